"""The Bradley-Terry objective of reward models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aya_jax.objectives.config import MARGINS, RewardConfig
from aya_jax.objectives.metrics import Metrics, WeightedSum, lowest, weighted
from aya_jax.objectives.pairs import Pairs, answer_lengths, pair_weights, sum_pairs


def bradley_terry(
    apply_fn: Callable[..., Any],
    params: Any,
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    *,
    config: RewardConfig,
    num_tasks: int,
) -> tuple[jax.Array, Metrics]:
    """Mean over the pairs of -log s(r_chosen - r_rejected - margin) + centering * (r_chosen + r_rejected)^2.

    The first term is that of Bradley and Terry (1952) with the margin of Touvron et al. (2023, Llama 2, section 3.2.2), the
    second keeps rewards centred (Eisenstein et al. 2023, Helping or Herding, section 4.2). A reward is the model's at an
    answer's last token.

    Args:
      apply_fn: (params, batch, rng) -> rewards, float32 [B, S], of what each position ends.
      params: what `apply_fn` takes.
      batch: rows of pairs (`pairs`), [B, S], with each pair's `margins` where those are used.
      rng: passed on.
      config: margins and centering.
      num_tasks: how many tasks `task_ids` tells apart.

    Returns:
      the loss, and metrics by TRL's names: `accuracy` (how often the chosen answer's reward is the higher), `margin`,
      `mean_reward`, each by task, a pair weighing 1; `min_reward` and `max_reward`, the lowest and highest of a task's
      answers in the batch, a batch weighing 1.
    """
    rewards = last_of_pairs(apply_fn(params, batch, rng), batch["segment_ids"])
    weights = pair_weights(answer_lengths(batch))
    difference = rewards.chosen - rewards.rejected
    wanted = sum_pairs(batch[MARGINS], batch["segment_ids"]).chosen if config.use_margins else 0.0
    losses = -jax.nn.log_sigmoid(difference - wanted)
    losses += config.centering * jnp.square(rewards.chosen + rewards.rejected)
    numbers = {
        "loss": losses,
        "accuracy": (difference > 0).astype(jnp.float32),
        "margin": difference,
        "mean_reward": (rewards.chosen + rewards.rejected) / 2,
    }
    loss, metrics = weighted(numbers, weights, batch["task_ids"], num_tasks)
    tasks = batch["task_ids"][:, : weights.shape[1]]
    metrics["min_reward"] = lowest(jnp.minimum(*rewards), weights, tasks, num_tasks)
    highest = lowest(-jnp.maximum(*rewards), weights, tasks, num_tasks)
    metrics["max_reward"] = WeightedSum(-highest.sum, highest.weight)
    return loss, metrics


def last_of_pairs(values: jax.Array, segment_ids: jax.Array) -> Pairs:
    """Values [B, S] at the last position of each answer."""
    following = jnp.pad(segment_ids[:, 1:], ((0, 0), (0, 1)))
    return sum_pairs(jnp.where(segment_ids != following, values, 0.0), segment_ids)
