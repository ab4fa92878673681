"""Learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from aya_jax.training.config import OptimizerConfig

Schedule = Callable[[jax.Array], jax.Array]


def learning_rate(config: OptimizerConfig, steps: int) -> Schedule:
    """The rate of each step, counted from 0: float32 from int32, any shape.

    Warm-up of w steps gives step i the rate peak * (i + 1) / w, so that no step is wasted on a rate of 0; what follows
    reaches the final rate at step `steps`, one past the last.
    """
    schedule, peak, final = config.schedule, config.learning_rate, config.schedule.final_learning_rate
    warmup = schedule.warmup_steps

    def rate(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        after = _DECAYS[schedule.kind](step, warmup, steps, schedule.decay_steps)
        value = final + (peak - final) * after
        return jnp.where(step < warmup, peak * (step + 1) / max(warmup, 1), value).astype(jnp.float32)

    return rate


def _progress(step: jax.Array, first: int, last: int) -> jax.Array:
    """0 at `first` and before, 1 at `last`."""
    return jnp.clip((step - first) / max(last - first, 1), 0.0, 1.0)


# Each gives the share of the way down that is left: 1 at the peak, 0 at the final rate.
_DECAYS: dict[str, Callable[[jax.Array, int, int, int], jax.Array]] = {
    "constant": lambda step, warmup, steps, decay: jnp.ones_like(step),
    "linear": lambda step, warmup, steps, decay: 1.0 - _progress(step, warmup, steps),
    "cosine": lambda step, warmup, steps, decay: 0.5 * (1.0 + jnp.cos(jnp.pi * _progress(step, warmup, steps))),
    "wsd": lambda step, warmup, steps, decay: 1.0 - _progress(step, steps - decay, steps),
}
