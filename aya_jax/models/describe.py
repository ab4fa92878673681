"""`aya describe`: a model's shapes, parameters, arithmetic and memory, in seconds for any size."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.table import Table

from aya_jax.kernels import attention, cross_entropy
from aya_jax.models import flops, parameters
from aya_jax.models.config import DescribeConfig, PrecisionConfig, TransformerConfig
from aya_jax.models.layers import layer_kinds

if TYPE_CHECKING:
    from aya_jax.config import Resolved

_BYTES = {"float32": 4, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device while training with AdamW, state and batch divided evenly over the devices.

    Attributes:
      parameters: the weights.
      optimizer: AdamW's two moments, in the parameters' format.
      gradients: one per parameter, in the parameters' format.
      activations: what the forward pass keeps for the backward pass (an estimate from the block's structure).
      logits: float32 logits that exist at one time.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All parts."""
        return sum(dataclasses.astuple(self))


def run(resolved: Resolved) -> None:
    """Prints the tables for a resolved DescribeConfig."""
    Console().print(render(resolved.config))


def sequence_length(config: DescribeConfig) -> int:
    """Tokens per sequence that the report is about."""
    return config.sequence_length or config.model.max_sequence_length


def memory(config: DescribeConfig) -> Memory:
    """Memory by part."""
    length = sequence_length(config)
    tokens = math.ceil(config.global_batch / config.devices) * length
    state = parameters.count(config.model).total * _BYTES[config.precision.params]
    return Memory(
        parameters=state // config.devices,
        optimizer=2 * state // config.devices,
        gradients=state // config.devices,
        activations=tokens * activation_bytes_per_token(config.model, config.precision),
        logits=4 * config.model.vocab_size * tokens // _logit_tiles(tokens, config.model.vocab_size),
    )


def activation_bytes_per_token(model: TransformerConfig, precision: PrecisionConfig) -> int:
    """Bytes per token that the layers keep for the backward pass.

    Counted per layer, in values of the compute format: the layer's input ("full" keeps nothing else, and "offload" not
    even that, but for the two layers whose inputs are on their way); with "dots" also
    the results of the projections; with "none" also what comes between them (normed inputs, rotated heads, the
    attention's output and float32 normaliser, the two factors of the gated product).
    """
    width = _BYTES[precision.compute]
    queries, keys = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    values = model.embed_dim
    if precision.remat == "offload":
        return 2 * values * width
    if precision.remat != "full":
        values += queries + 2 * keys + 2 * model.mlp_dim + 2 * model.embed_dim
    if precision.remat == "none":
        norms = 1 if model.block == "parallel" else 2
        values += norms * model.embed_dim + 2 * queries + keys + 2 * model.mlp_dim
    normaliser = 4 * model.num_heads if precision.remat == "none" else 0
    return model.num_layers * (values * width + normaliser)


def render(config: DescribeConfig) -> Group:
    """The report as rich tables."""
    return Group(_shapes_table(config.model), _numbers_table(config), _memory_table(config))


def _logit_tiles(tokens: int, vocab_size: int) -> int:
    if cross_entropy.choose(tokens=tokens, vocab_size=vocab_size) == "dense":
        return 1
    return max(1, math.ceil(tokens * vocab_size / cross_entropy.TILE_LOGITS))


def _shapes_table(model: TransformerConfig) -> Table:
    table = Table(title="Parameters", title_justify="left")
    table.add_column("name")
    table.add_column("shape")
    table.add_column("parameters", justify="right")
    for name, shape in parameters.shapes(model).items():
        table.add_row(name, " x ".join(f"{size:,}" for size in shape), f"{math.prod(shape):,}")
    return table


def _numbers_table(config: DescribeConfig) -> Table:
    model, precision, length = config.model, config.precision, sequence_length(config)
    count = parameters.count(model)
    per_token = flops.per_token(model, length)
    rows = {
        "parameters": f"{count.total:,}",
        "  embedding": f"{count.embedding:,}",
        "  not embedding": f"{count.non_embedding:,}",
        "layers": _layers_line(model),
        "FLOPs per token, forward and backward": f"{per_token:.4g}",
        "precision": f"params {precision.params}, compute {precision.compute}, remat {precision.remat}",
        "batch": f"{config.global_batch:,} x {length:,} tokens over {config.devices:,} device(s)",
        "FLOPs per step": f"{per_token * config.global_batch * length:.4g}",
        "KV cache per token": _size(_cache_bytes(config)),
        "kernels here": ", ".join(_kernels(config)),
    }
    table = Table(title="Model", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how much", justify="right")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _memory_table(config: DescribeConfig) -> Table:
    parts = memory(config)
    table = Table(title="Memory per device, training", title_justify="left", show_footer=True)
    table.add_column("part", footer="total")
    table.add_column("size", justify="right", footer=_size(parts.total))
    for field in dataclasses.fields(parts):
        table.add_row(field.name, _size(getattr(parts, field.name)))
    return table


def _size(count: float) -> str:
    """Bytes as KiB, MiB or GiB, whichever keeps the number readable."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 2**10:,.2f} KiB"


def _layers_line(model: TransformerConfig) -> str:
    kinds = layer_kinds(model)
    full = sum(kind.window is None for kind in kinds) * model.num_layers // len(kinds)
    local = model.num_layers - full
    if not local:
        return f"{full}, full attention"
    return f"{local} in a window of {model.sliding_window:,}, {full} full"


def _kernels(config: DescribeConfig) -> list[str]:
    model = config.model
    windows = {kind.window for kind in layer_kinds(model)}
    gqa = model.num_heads != model.num_kv_heads
    shape = attention.Shape(model.head_dim, sequence_length(config), sequence_length(config))
    asked = config.precision.attention
    names = sorted({attention.choose(window=window, gqa=gqa, shape=shape, implementation=asked) for window in windows})
    tokens = math.ceil(config.global_batch / config.devices) * sequence_length(config)
    loss = cross_entropy.choose(tokens=tokens, vocab_size=model.vocab_size)
    return [*(f"attention {name}" for name in names), f"cross-entropy {loss}"]


def _cache_bytes(config: DescribeConfig) -> int:
    model = config.model
    return 2 * model.num_layers * model.num_kv_heads * model.head_dim * _BYTES[config.precision.compute]
