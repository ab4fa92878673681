"""Direct preference objectives over pairs of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aya_jax.objectives.config import REFERENCE, PreferenceConfig
from aya_jax.objectives.metrics import Metrics, by_task, token_metrics, weighted
from aya_jax.objectives.pairs import Pairs, answer_lengths, pair_weights, sum_pairs


def preference(
    apply_fn: Callable[..., Any],
    params: Any,
    batch: Mapping[str, jax.Array],
    rng: jax.Array,
    *,
    config: PreferenceConfig,
    num_tasks: int,
    token_statistics: bool = False,
) -> tuple[jax.Array, Metrics]:
    """Mean loss over the pairs of the batch.

    An answer's log-probability is the sum over its predicted tokens.

    Args:
      apply_fn: (params, batch, rng) -> scores with `log_probs` and `mean_logit`, float32 [B, S].
      params: what `apply_fn` takes.
      batch: rows of pairs (`pairs`), [B, S], with the reference's log-probability of each answer in `reference_log_probs`
        where the loss has a reference.
      rng: passed on.
      config: which loss.
      num_tasks: how many tasks `task_ids` tells apart.
      token_statistics: measure `entropy`, over both answers' predicted tokens, and `mean_token_accuracy`, over the chosen
        answer's, too, of scores with `entropy` and `correct`.

    Returns:
      the loss, and metrics by TRL's names: `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies`
      (how often the chosen answer's reward is the higher; not where they are equal), `logps/chosen`, `logps/rejected`, in
      which a pair weighs 1, and `logits/chosen`, `logits/rejected` (the mean over the vocabulary), in which a predicted token
      does; each by task. A reward is beta times the log-ratio to the reference; with "simpo" beta times
      the log-probability per token.
    """
    lengths = answer_lengths(batch)
    weights = pair_weights(lengths)
    scores, predicted = apply_fn(params, batch, rng), batch["loss_weights"] > 0
    learnt = jnp.where(predicted, scores.log_probs, 0.0)
    log_probs = sum_pairs(learnt, batch["segment_ids"])
    if config.has_reference:
        ratios = _map(jnp.subtract, log_probs, sum_pairs(batch[REFERENCE], batch["segment_ids"]))
    else:
        ratios = _map(jnp.divide, log_probs, _map(lambda n: jnp.maximum(n, 1.0), lengths))
    losses = preference_loss(ratios, lengths, config)
    rewards = _map(lambda ratio: config.beta * ratio, ratios)
    numbers = {
        "loss": losses,
        "rewards/chosen": rewards.chosen,
        "rewards/rejected": rewards.rejected,
        "rewards/margins": rewards.chosen - rewards.rejected,
        "rewards/accuracies": (rewards.chosen > rewards.rejected).astype(jnp.float32),
        "logps/chosen": log_probs.chosen,
        "logps/rejected": log_probs.rejected,
    }
    loss, metrics = weighted(numbers, weights, batch["task_ids"], num_tasks)
    chosen = batch["segment_ids"] % 2 == 1
    tokens = Pairs((predicted & chosen).astype(jnp.float32), (predicted & ~chosen).astype(jnp.float32))
    metrics["logits/chosen"] = by_task(scores.mean_logit, tokens.chosen, batch["task_ids"], num_tasks)
    metrics["logits/rejected"] = by_task(scores.mean_logit, tokens.rejected, batch["task_ids"], num_tasks)
    if token_statistics:
        both = tokens.chosen + tokens.rejected
        metrics |= token_metrics(scores, both, tokens.chosen, batch["task_ids"], num_tasks)
    return loss, metrics


def preference_loss(ratios: Pairs, lengths: Pairs, config: PreferenceConfig) -> jax.Array:
    """The loss of each pair, [B, P].

    With d the chosen answer's log-ratio to the reference less the rejected one's, dn the same with each divided by its
    answer's length (at least 1), b beta and e the label smoothing:

      sigmoid: -log s(b d) (Rafailov et al. 2023, equation 7);
      conservative: (1 - e) -log s(b d) + e -log s(-b d) (Mitchell 2023; TRL's "sigmoid" with smoothing in earlier releases);
      robust: ((1 - e) -log s(b d) - e -log s(-b d)) / (1 - 2 e) (Chowdhury et al. 2024, equation 12);
      hinge: max(0, 1 - b d) (Zhao et al. 2023, SLiC);
      ipo: (dn - 1 / (2 b))^2 (Azar et al. 2023, with TRL's division by length, which the paper does not have);
      sigmoid_norm: -log s(b dn) (Lambert et al. 2024, Tulu 3; open-instruct's "dpo_norm");
      simpo: -log s(b dn - target margin), without a reference (Meng et al. 2024, equation 6).

    Args:
      ratios: of each answer; with "simpo" its log-probability per token.
      lengths: predicted tokens of each answer.
      config: which loss.
    """
    beta, smoothing = config.beta, config.label_smoothing
    if config.loss in ("ipo", "sigmoid_norm"):
        ratios = _map(lambda ratio, length: ratio / jnp.maximum(length, 1.0), ratios, lengths)
    difference = ratios.chosen - ratios.rejected
    right, wrong = -jax.nn.log_sigmoid(beta * difference), -jax.nn.log_sigmoid(-beta * difference)
    match config.loss:
        case "sigmoid" | "sigmoid_norm":
            return right
        case "conservative":
            return (1 - smoothing) * right + smoothing * wrong
        case "robust":
            return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
        case "hinge":
            return jax.nn.relu(1 - beta * difference)
        case "ipo":
            return jnp.square(difference - 1 / (2 * beta))
        case "simpo":
            return -jax.nn.log_sigmoid(beta * difference - config.target_margin)
    raise ValueError(config.loss)


def _map(function: Callable[..., jax.Array], *pairs: Pairs) -> Pairs:
    return Pairs(function(*(p.chosen for p in pairs)), function(*(p.rejected for p in pairs)))
