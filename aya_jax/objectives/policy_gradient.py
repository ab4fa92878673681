"""Learning from rewards: a clipped policy gradient over whole answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aya_jax.objectives.config import ADVANTAGES, REFERENCE, PolicyGradientConfig
from aya_jax.objectives.metrics import Metrics, token_metrics, weighted
from aya_jax.objectives.pairs import sum_segments

_TINY = 1e-4  # added to a standard deviation, as TRL does


def policy_gradient(
    apply_fn: Callable[..., Any],
    params: Any,
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    *,
    config: PolicyGradientConfig,
    num_tasks: int,
    token_statistics: bool = False,
) -> tuple[jax.Array, Metrics]:
    """Mean over the batch's answers of -min(r A, clip(r, 1 - epsilon, 1 + epsilon) A).

    r is the ratio of an answer's probability under the model to that when it was drawn, A its advantage (`advantages`). The
    ratio is of whole answers, as TRL's RLOO has it (Ahmadian et al. 2024, Back to Basics); TRL's GRPO takes one of each token.
    At the first step after answers were drawn it is 1 and this is REINFORCE.

    Args:
      apply_fn: (params, batch, rng) -> scores with `log_probs`, float32 [B, S].
      params: what `apply_fn` takes.
      batch: rows of answers, each a segment with its prompt, [B, S], with each one's `advantages`, and in
        `reference_log_probs` its log-probability when it was drawn.
      rng: passed on.
      config: clipping.
      num_tasks: how many tasks `task_ids` tells apart.
      token_statistics: measure `entropy` and `mean_token_accuracy` of the answers' tokens too, of scores with `entropy` and
        `correct`.

    Returns:
      the loss, and metrics, each by task, an answer weighing 1: `advantage`, `logps`, `kl` (how far the model has moved from
      the one that drew them, r - 1 - log r, in nats an answer), `clip_ratio` (answers whose gradient the clip stops; TRL's
      `clip_ratio/region_mean`).
    """
    ids = batch["segment_ids"]
    scores, predicted = apply_fn(params, batch, rng), batch["loss_weights"] > 0
    learnt = jnp.where(predicted, scores.log_probs, 0.0)
    log_probs, drawn, advantage = (
        sum_segments(values, ids) for values in (learnt, batch[REFERENCE], batch[ADVANTAGES])
    )
    tokens = predicted.astype(jnp.float32)
    weights = (sum_segments(tokens, ids) > 0).astype(jnp.float32)
    log_ratio = jnp.where(weights > 0, log_probs - drawn, 0.0)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - config.epsilon, 1 + config.epsilon)
    losses = -jnp.minimum(ratio * advantage, clipped * advantage)
    stopped = ((ratio < 1 - config.epsilon) & (advantage < 0)) | ((ratio > 1 + config.epsilon) & (advantage > 0))
    numbers = {
        "loss": losses,
        "advantage": advantage,
        "logps": log_probs,
        "kl": ratio - 1 - log_ratio,
        "clip_ratio": stopped.astype(jnp.float32),
    }
    loss, metrics = weighted(numbers, weights, batch["task_ids"], num_tasks)
    if token_statistics:
        metrics |= token_metrics(scores, tokens, tokens, batch["task_ids"], num_tasks)
    return loss, metrics


def advantages(rewards: Sequence[float], config: PolicyGradientConfig) -> np.ndarray:
    """How much better each answer to one prompt is than the others, float64 [k], k at least 2.

    "leave_one_out": the reward less the mean of the other answers' (Kool et al. 2019; RLOO); "group": less the mean of all,
    over their standard deviation + 1e-4 (Shao et al. 2024, GRPO; the deviation is that of a sample, as TRL's). Rewards have the
    divergence in them already: reward - beta (log p(answer) - log p(answer) under the reference), as TRL's RLOO; TRL's GRPO
    has it in the loss.
    """
    values = np.asarray(rewards, np.float64)
    if config.advantage == "leave_one_out":
        return values - (values.sum() - values) / (len(values) - 1)
    return (values - values.mean()) / (values.std(ddof=1) + _TINY)
