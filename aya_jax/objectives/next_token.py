"""Predicting the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aya_jax.objectives.metrics import Metrics, WeightedSum, by_task, token_metrics


def next_token(
    apply_fn: Callable[..., Any],
    params: Any,
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    *,
    num_tasks: int,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    token_statistics: bool = False,
) -> tuple[jax.Array, Metrics]:
    """Weighted mean of -log p(target) + z_loss * lse^2 over the batch, with smoothed targets where asked for.

    Args:
      apply_fn: (params, batch, rng) -> scores with `log_probs` and `lse`, and for smoothing `mean_logit`, float32 [B, S].
      params: what `apply_fn` takes.
      batch: with `targets`, `loss_weights` and `task_ids`, [B, S].
      rng: passed on.
      num_tasks: how many tasks `task_ids` tells apart.
      z_loss: weight of the squared log-sum-exp (Chowdhery et al. 2022, PaLM, section 5), which keeps logits near
        normalised.
      label_smoothing: eps of (1 - eps) * -log p(target) + eps * mean over the vocabulary of -log p (Szegedy et al. 2016,
        Rethinking the Inception Architecture, section 7).
      token_statistics: measure `entropy` and `mean_token_accuracy` too, of scores with `entropy` and `correct`.

    Returns:
      the loss, and metrics: `loss`, the negative log-likelihood in nats, not smoothed, by task; `z_loss`, the weighted square.
      Metrics weigh as the loss does (TRL's SFTTrainer counts each predicted token once: the same where weights are 0 and 1).
    """
    scores = apply_fn(params, batch, rng)
    weights, nll, square = batch["loss_weights"], -scores.log_probs, jnp.square(scores.lse)
    total = jnp.sum(weights)
    metrics = {
        "loss": by_task(nll, weights, batch["task_ids"], num_tasks),
        "z_loss": WeightedSum(jnp.sum(square * weights), total),
    }
    if token_statistics:
        metrics |= token_metrics(scores, weights, weights, batch["task_ids"], num_tasks)
    loss = jnp.sum(nll * weights) + z_loss * metrics["z_loss"].sum
    if label_smoothing:
        loss += label_smoothing * jnp.sum((scores.lse - scores.mean_logit - nll) * weights)
    return loss / jnp.where(total > 0, total, 1.0), metrics
