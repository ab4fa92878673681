"""One optimizer step as one compiled program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aya_jax.objectives.metrics import Metrics, add
from aya_jax.training.config import GuardConfig, OptimizerConfig
from aya_jax.training.optimizer import clip_by_global_norm
from aya_jax.training.schedules import Schedule
from aya_jax.training.state import Guard, TrainState

Objective = Callable[[Any, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, Metrics]]
StepFunction = Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, dict[str, Any]]]


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    optimizer_config: OptimizerConfig,
    guard_config: GuardConfig,
    accumulation: int = 1,
    seed: int = 0,
    join: Callable[[Any, Any], Any] = lambda params, _: params,
) -> StepFunction:
    """The function (state, batch) -> (state, metrics); jit it with the state donated.

    Args:
      objective: (params, batch, rng) -> (loss, metrics), where `metrics["loss"].weight` is the weight behind the loss.
      optimizer: from `make_optimizer`.
      schedule: the learning rate of a step.
      optimizer_config: for clipping.
      guard_config: for skipping.
      accumulation: parts in which the batch is computed.
      seed: the objective's randomness in step i derives from (seed, i) alone.
      join: from what is trained and what is held still to the parameters that the objective takes.

    Returns:
      the function; its metrics are the objective's, and scalars: `grad_norm`, `learning_rate`, `skipped` (0 or 1, this
      step), `skipped_total` and `skipped_in_a_row`.
    """

    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, dict[str, Any]]:
        rng = jax.random.fold_in(jax.random.key(seed), state.step)

        def of_trained(params: Any, batch: Mapping[str, jax.Array], rng: jax.Array) -> tuple[jax.Array, Metrics]:
            return objective(join(params, state.frozen), batch, rng)

        gradients, metrics = mean_gradients(of_trained, state.params, batch, rng, accumulation)
        norm = optax.global_norm(jax.tree.map(lambda g: g.astype(jnp.float32), gradients))
        good = is_good(norm, state.guard, guard_config)
        rate = schedule(state.step)
        with jax.named_scope("optimizer"):
            clipped = clip_by_global_norm(gradients, norm, optimizer_config.clip_norm)
            direction, moments = optimizer.update(clipped, state.optimizer, state.params)
            params = jax.tree.map(lambda p, d: (p - rate * d).astype(p.dtype), state.params, direction)
        guard = next_guard(norm, good, state.guard, guard_config)
        new = TrainState(
            state.step + 1,
            _choose(good, params, state.params),
            _choose(good, moments, state.optimizer),
            guard,
            state.frozen,
        )
        scalars = {
            "grad_norm": norm,
            "learning_rate": rate,
            "skipped": (~good).astype(jnp.int32),
            "skipped_total": guard.skipped,
            "skipped_in_a_row": guard.in_a_row,
        }
        return new, metrics | scalars

    return step


def mean_gradients(
    objective: Objective, params: Any, batch: Mapping[str, jax.Array], rng: jax.Array, accumulation: int
) -> tuple[Any, Metrics]:
    """Gradients of the whole batch's weighted mean loss, and its metrics, computed in `accumulation` parts.

    Parts weigh by their `metrics["loss"].weight`, so uneven weights among them give the same mean as one part would.
    """
    gradient = jax.grad(objective, has_aux=True)
    if accumulation == 1:
        return gradient(params, batch, rng)
    # Every k-th row to a part: a part then lies over the devices as the batch does, and nothing is moved.
    parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), dict(batch))
    keys = jax.random.split(rng, accumulation)

    def weighted(part: Mapping[str, jax.Array], key: jax.Array) -> tuple[Any, Metrics]:
        gradients, metrics = gradient(params, part, key)
        weight = jnp.sum(metrics["loss"].weight)
        return jax.tree.map(lambda g: g.astype(jnp.float32) * weight, gradients), metrics

    def body(total: tuple[Any, Metrics], inputs: tuple[Any, jax.Array]) -> tuple[tuple[Any, Metrics], None]:
        gradients, metrics = weighted(*inputs)
        return (jax.tree.map(jnp.add, total[0], gradients), add(total[1], metrics)), None

    first = jax.tree.map(lambda x: x[0], (parts, keys))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(weighted, *first))
    (gradients, metrics), _ = jax.lax.scan(body, zero, (parts, keys))
    weight = jnp.sum(metrics["loss"].weight)
    weight = jnp.where(weight > 0, weight, 1.0)
    return jax.tree.map(lambda g, p: (g / weight).astype(p.dtype), gradients, params), metrics


def is_good(norm: jax.Array, guard: Guard, config: GuardConfig) -> jax.Array:
    """Whether a gradient of this norm may be applied. A loss that is not finite gives a norm that is not, either."""
    finite = jnp.isfinite(norm)
    if config.spike_factor is None:
        return finite
    return finite & ((guard.steps < config.warmup_steps) | (norm <= config.spike_factor * guard.norm))


def next_guard(norm: jax.Array, good: jax.Array, guard: Guard, config: GuardConfig) -> Guard:
    """The guard after a step. The running mean is a plain one at first, then decays exponentially."""
    decay = jnp.minimum(config.decay, guard.steps / (guard.steps + 1.0))
    mean = decay * guard.norm + (1.0 - decay) * norm
    one = good.astype(jnp.int32)
    return Guard(
        norm=jnp.where(good, mean, guard.norm),
        steps=guard.steps + one,
        skipped=guard.skipped + 1 - one,
        in_a_row=(guard.in_a_row + 1) * (1 - one),
    )


def _choose(good: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
