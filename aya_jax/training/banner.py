"""What a run says about itself before its first step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.console import Console
from rich.text import Text

from aya_jax.kernels import attention, cross_entropy
from aya_jax.models import flops, parameters
from aya_jax.models.layers import layer_kinds
from aya_jax.parallel.config import as_tuple
from aya_jax.training.config import TrainConfig
from aya_jax.training.environment import MFU_FORMULA, peak_flops

_DIVIDED = ("batch", "sequence", "vocab")


def show_banner(console: Console, config: TrainConfig, mesh: Mesh, first: int, validated: Sequence[str]) -> None:
    """Prints devices, mesh, parameters, the kernels chosen, the tokens planned, and the tasks that are validated."""
    shown = f"on {', '.join(validated)}" if validated else "none: no task has held-out documents"
    for name, value in (*_rows(config, mesh, first), ("validation", shown)):
        console.print(Text.assemble((f"{name:<12}", "dim"), value))


def _rows(config: TrainConfig, mesh: Mesh, first: int) -> list[tuple[str, str]]:
    device = jax.devices()[0]
    count = parameters.count(config.model)
    data = config.data
    per_step = data.global_batch * data.sequence_length
    peak = peak_flops(device.device_kind)
    measured = MFU_FORMULA if peak else "n/a: no sourced peak for this device"
    start = f"step {first} (resumed)" if first else config.initialize_from or f"random parameters, seed {config.seed}"
    return [
        ("run", config.run_dir),
        ("start", start),
        ("devices", f"{jax.device_count()} x {device.device_kind}, {jax.process_count()} process(es)"),
        ("mesh", ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())),
        ("parameters", f"{count.total:,} ({count.embedding:,} embedding)"),
        (
            "precision",
            f"{config.precision.params} params, {config.precision.compute} compute, remat {config.precision.remat}",
        ),
        ("kernels", chosen_kernels(config, mesh)),
        (
            "batch",
            f"{data.global_batch} x {data.sequence_length} tokens in {config.accumulation} part(s), {data.packing}",
        ),
        ("tokens", f"{config.steps:,} steps x {per_step:,} = {config.steps * per_step:,}"),
        ("compute", f"{flops.per_token(config.model, data.sequence_length):.3g} FLOPs per token; {measured}"),
    ]


def chosen_kernels(config: TrainConfig, mesh: Mesh) -> str:
    """The back-ends as the dispatchers will pick them, one for each kind of layer.

    Raises:
      UserError: one that is asked for by name cannot do this here.
    """
    model, length = config.model, config.data.sequence_length
    rules = config.mesh.logical_axes
    parts = {dim: math.prod(mesh.shape[axis] for axis in as_tuple(getattr(rules, dim))) for dim in _DIVIDED}
    rows = config.data.global_batch // config.accumulation
    if parts["sequence"] > 1:
        # Over intervals, for each device has its own positions (`kernels.attention.sharded`).
        attentions = {config.precision.attention or "interval"}
    else:
        attentions = {
            attention.choose(
                segments=True,
                causal=True,
                window=kind.window,
                gqa=model.num_heads != model.num_kv_heads,
                shape=attention.Shape(model.head_dim, length, length, jnp.dtype(config.precision.compute)),
                implementation=config.precision.attention,
            )
            for kind in layer_kinds(model)
        }
    head = cross_entropy.choose(
        tokens=-(-rows * length // (parts["batch"] * parts["sequence"])),
        vocab_size=-(-model.vocab_size // parts["vocab"]),
        width=model.embed_dim,
        implementation=config.precision.cross_entropy,
    )
    return f"attention {', '.join(sorted(attentions))}; linear + cross-entropy {head}"
