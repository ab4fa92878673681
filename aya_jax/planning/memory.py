"""What one device holds during a step: the state exactly, from its shardings; the rest estimated from the model's shape."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aya_jax.config.errors import UserError
from aya_jax.kernels import cross_entropy
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.describe import activation_bytes_per_token
from aya_jax.models.low_rank import AdaptedModel, Model, base_model
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MESH_AXES, LogicalAxes, MeshAxes
from aya_jax.planning.targets import Chip
from aya_jax.training.config import OptimizerConfig, TrainConfig
from aya_jax.training.objective import make_model
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.state import fresh_state

# tokens, targets, segment_ids, positions, task_ids: int32; loss_weights, and what an objective reads beside: float32.
_FIELDS, _FIELD_BYTES = 6, 4


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes on one device.

    Attributes:
      parameters: the weights; exact.
      optimizer: the optimizer's moments; exact.
      batch: one batch; exact.
      gradients: one per parameter that is trained, and float32 sums of them where a batch is computed in parts.
      activations: what the layers keep for the backward pass.
      layer: one layer at work: what lies between its input and its output, and its weights, gathered and cast.
      table: the token table, gathered and cast: compilers gather it ahead, while layers are at work. Twice on TPUs whose two
        cores are one device: libtpu gathers there by adding up arrays that are zero elsewhere.
      logits: float32 logits of one tile, their softmax and its gradient, and the table's gradient: a piece of it and the
        same summed over the devices where kernels make it by pieces.
    """

    parameters: int
    optimizer: int
    batch: int
    gradients: int
    activations: int
    layer: int
    table: int
    logits: int

    @property
    def arguments(self) -> int:
        """What the step is given: state and batch."""
        return self.parameters + self.optimizer + self.batch

    @property
    def temporaries(self) -> int:
        """What exists within the step at its fullest moment: in the loss, or in a layer's backward pass."""
        return self.gradients + self.activations + self.table + max(self.layer, self.logits)

    @property
    def peak(self) -> int:
        """All of it."""
        return self.arguments + self.temporaries


@dataclasses.dataclass(frozen=True)
class Shares:
    """How a mesh divides a run.

    Attributes:
      mesh: sizes of the mesh axes.
      rows: rows of the batch that one device computes at a time.
      tokens: tokens of them that lie on one device.
      tensor: parts of a layer's and the table's matrices that no device gathers (the axes that divide `mlp`).
      residual: parts of a row's tokens in what layers keep between them.
      chip: what each device is; None: as this machine's.
    """

    mesh: Mapping[str, int]
    rows: float
    tokens: float
    tensor: int
    residual: int
    chip: Chip | None = None


def shares(config: TrainConfig, devices: int, chip: Chip | None = None) -> Shares:
    """How `config.mesh` divides the run over so many devices, which are such chips.

    Raises:
      UserError: the axes do not multiply to the devices, or do not divide the batch or the sequence.
    """
    sizes = dict(zip(MESH_AXES, config.mesh.shape(devices), strict=True))
    axes, data = config.mesh.logical_axes, config.data
    rows, sequence = _parts(sizes, axes.batch), _parts(sizes, axes.sequence)
    per_part = data.global_batch // config.accumulation
    if per_part % rows or data.sequence_length % sequence:
        raise UserError(
            f"{per_part} rows of {data.sequence_length} tokens (GLOBAL_BATCH / accumulation, SEQUENCE_LENGTH) do not divide "
            f"over {rows} x {sequence} devices of the {devices}; change them or MeshConfig"
        )
    tokens = per_part * data.sequence_length / (rows * sequence)
    tensor = _parts(sizes, axes.mlp)
    residual = _parts(sizes, getattr(axes, "residual", axes.sequence)) // sequence
    return Shares(sizes, per_part / rows, tokens, tensor, residual, chip)


def estimate(config: TrainConfig, devices: int, chip: Chip | None = None) -> Estimate:
    """Memory of one of `devices` devices, which are such chips.

    Raises:
      UserError: as `shares`, or a parameter's dim does not divide over the mesh.
    """
    share = shares(config, devices, chip)
    state = state_bytes(config, share.mesh)
    model, precision = config.model, config.precision
    width = jnp.dtype(precision.compute).itemsize
    trained_width = jnp.dtype(precision.params).itemsize if config.adapter is None else 4
    sums = 4 * state.trained // trained_width if config.accumulation > 1 else 0
    kept = activation_bytes_per_token(model, precision) * share.tokens / share.residual
    whole = PrecisionConfig(params=precision.params, compute=precision.compute, remat="none")
    one_layer = activation_bytes_per_token(model, whole) / model.num_layers * share.tokens / share.tensor
    # Cast, and a float32 gradient of what is trained.
    weights = layer_parameters(model) * (width + (4 if config.adapter is None else 0)) / share.tensor
    rows = model.vocab_size / share.tensor
    more = len(config.objective.fields) if config.objective else 0
    chosen = loss_implementation(config, share)
    tile = share.tokens if chosen == "dense" else min(share.tokens, cross_entropy.TILE_LOGITS / rows)
    if chosen == "pallas_tpu":
        logits = 2 * min(cross_entropy.GRADIENT_PIECE, 4 * rows * model.embed_dim)
    else:
        logits = tile * rows * (4 + 4 + width) + 4 * rows * model.embed_dim
    return Estimate(
        parameters=state.parameters,
        optimizer=state.moments,
        batch=int(_FIELD_BYTES * (_FIELDS + more) * share.tokens * config.accumulation),
        gradients=state.trained + sums,
        activations=int(kept),
        layer=int(2 * one_layer + weights),
        table=int(rows * model.embed_dim * width * (chip.cores_in_name if chip else 1)),
        logits=int(logits),
    )


def loss_implementation(config: TrainConfig, share: Shares) -> str:
    """How the head and its loss are computed: as the run asks for it, else as the shapes decide."""
    return config.precision.cross_entropy or cross_entropy.choose(
        tokens=math.ceil(share.tokens),
        vocab_size=math.ceil(config.model.vocab_size / share.tensor),
        width=config.model.embed_dim,
        platform=share.chip and share.chip.platform,
        device_kind=share.chip and f"{share.chip.platform.upper()} {share.chip.name}",
    )


class StateBytes(NamedTuple):
    """Bytes on one device of a mesh.

    Attributes:
      parameters: all that the model is computed with.
      trained: those of them that are trained.
      moments: the optimizer's, of what is trained.
    """

    parameters: int
    trained: int
    moments: int


def state_bytes(config: TrainConfig, mesh: Mapping[str, int]) -> StateBytes:
    """What a run's state takes on one device of a mesh.

    Raises:
      UserError: a parameter's dim does not divide over the mesh.
    """
    model = make_model(config)
    trained = _held(model, config.mesh.logical_axes, mesh)
    frozen = _held(base_model(model), config.mesh.logical_axes, mesh) if isinstance(model, AdaptedModel) else 0
    return StateBytes(trained + frozen, trained, round(trained * _moments_per_parameter_byte(model, config.optimizer)))


def layer_parameters(model: TransformerConfig) -> int:
    """Parameters of one layer."""
    shapes, logical = _parameters(Transformer(model))
    return sum(s.size for s, axes in zip(shapes, logical, strict=True) if axes[0] == "layers") // model.num_layers


def _held(model: Model, rules: LogicalAxes, mesh: Mapping[str, int]) -> int:
    shapes, logical = _parameters(model)
    return sum(_shard_bytes(shape, axes, rules, mesh) for shape, axes in zip(shapes, logical, strict=True))


@functools.lru_cache(maxsize=64)
def _parameters(model: Model) -> tuple[list[jax.ShapeDtypeStruct], list[tuple]]:
    logical = jax.tree.leaves(model.logical_axes(), is_leaf=lambda node: isinstance(node, tuple))
    return jax.tree.leaves(model.shapes()), logical


@functools.lru_cache(maxsize=64)
def _moments_per_parameter_byte(model: Model, config: OptimizerConfig) -> float:
    """Bytes of the optimizer's state for each byte of what is trained, beside which it lies."""
    shapes = model.shapes()
    state = jax.eval_shape(lambda params: fresh_state(params, make_optimizer(config)), shapes)
    moments, whole = (
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) for tree in (state.optimizer, shapes)
    )
    return moments / whole


def _shard_bytes(shape: jax.ShapeDtypeStruct, logical: tuple, rules: LogicalAxes, mesh: Mapping[str, int]) -> int:
    parts = [_parts(mesh, axes) for axes in rules.mesh_axes(logical)]
    for name, size, count in zip(logical, shape.shape, parts, strict=True):
        if size % count:
            raise UserError(
                f"the dim {name!r} of {size} does not divide over {count} devices; choose a mesh that divides it, or bind "
                f"LogicalAxes.{name} = None"
            )
    return shape.size // math.prod(parts) * shape.dtype.itemsize


def _parts(mesh: Mapping[str, int], axes: MeshAxes) -> int:
    """Over how many devices these mesh axes divide a dim."""
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh[axis] for axis in names)
