"""What a run carries from step to step, made and placed over the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from aya_jax.models.low_rank import AdaptedModel, Model, base_model
from aya_jax.parallel.sharding import named_shardings, replicated


class Guard(NamedTuple):
    """What the run remembers of its gradients.

    Attributes:
      norm: running mean of the gradient norm, float32, over steps that were not skipped.
      steps: how many steps the mean is over, int32.
      skipped: steps skipped so far, int32.
      in_a_row: steps skipped since the last good one, int32.
    """

    norm: jax.Array
    steps: jax.Array
    skipped: jax.Array
    in_a_row: jax.Array


class TrainState(NamedTuple):
    """Everything that the next step depends on.

    Attributes:
      step: steps done, int32; also the index of the next batch.
      params: the model's parameters.
      optimizer: optax's state.
      guard: the gradient guard's state.
      frozen: parameters that are held still, where adapters are trained; they are no part of a checkpoint.
    """

    step: jax.Array
    params: Any
    optimizer: Any
    guard: Guard
    frozen: Any = None


def fresh_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, params, optimizer.init(params), Guard(jnp.zeros((), jnp.float32), zero, zero, zero))


def state_shardings(mesh: Mesh, model: Model, optimizer: optax.GradientTransformation) -> TrainState:
    """Shardings of a `TrainState`: moments lie where their parameters do, all else is on every device.

    Raises:
      UserError: a parameter's dim does not divide over the mesh.
    """
    shapes = model.shapes()
    params = named_shardings(mesh, model.rules, model.logical_axes(), shapes)
    whole = replicated(mesh)
    state = jax.eval_shape(lambda p: fresh_state(p, optimizer), shapes)
    moments = optax.tree_map_params(
        optimizer, lambda _, sharding: sharding, state.optimizer, params, transform_non_params=lambda _: whole
    )
    frozen = None
    if isinstance(model, AdaptedModel):
        base = base_model(model)
        frozen = named_shardings(mesh, base.rules, base.logical_axes(), base.shapes())
    return TrainState(whole, params, moments, Guard(whole, whole, whole, whole), frozen)


def abstract_params(model: Model, mesh: Mesh, dtype: str | None = None) -> Any:
    """What the model's parameters are loaded into: shapes with shardings, in the model's own formats or in `dtype`."""
    shapes = model.shapes()
    shardings = named_shardings(mesh, model.rules, model.logical_axes(), shapes)
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, dtype or s.dtype, sharding=sharding), shapes, shardings
    )


def abstract_state(model: Model, optimizer: optax.GradientTransformation, shardings: TrainState) -> TrainState:
    """The state as `jax.ShapeDtypeStruct`s with shardings: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda p: fresh_state(p, optimizer), model.shapes())
    if isinstance(model, AdaptedModel):
        shapes = shapes._replace(frozen=base_model(model).shapes())
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def make_state(
    make_params: Callable[[Any], Any], source: Any, optimizer: optax.GradientTransformation, shardings: TrainState
) -> TrainState:
    """The state before the first step, each part made where it belongs.

    Args:
      make_params: from `source` to parameters.
      source: a key, or weights that were loaded; an argument of the program, so that weights do not become part of it.
      optimizer: whose state to start.
      shardings: from `state_shardings`; those of frozen parameters are not used, for none are made.
    """
    places = shardings._replace(frozen=None)
    return jax.jit(lambda given: fresh_state(make_params(given), optimizer), out_shardings=places)(source)
