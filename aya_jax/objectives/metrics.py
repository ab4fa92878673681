"""Metrics as sums with their weights, so that they reduce exactly over devices, parts of a batch, steps and hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Metrics = dict[str, "WeightedSum"]


class WeightedSum(NamedTuple):
    """A weighted mean that has not been divided yet; add both parts to combine two.

    Attributes:
      sum: sum of weight * value; [num_tasks] with one entry per task, or a scalar where tasks are not told apart.
      weight: sum of weights, of the same shape.
    """

    sum: jax.Array
    weight: jax.Array


def add(left: Metrics, right: Metrics) -> Metrics:
    """The metrics of both parts together."""
    return jax.tree.map(lambda a, b: a + b, left, right)


def by_task(values: jax.Array, weights: jax.Array, task_ids: jax.Array, num_tasks: int) -> WeightedSum:
    """One weighted sum per task: values, weights, task_ids [B, N] -> [num_tasks].

    A masked reduction rather than a scatter: it fuses, and the number of tasks is small.
    """
    rows = jnp.arange(num_tasks, dtype=task_ids.dtype)[:, None, None] == task_ids[None]
    return WeightedSum(
        jnp.sum(jnp.where(rows, values * weights, 0.0), axis=(1, 2)),
        jnp.sum(jnp.where(rows, weights, 0.0), axis=(1, 2)),
    )


def lowest(values: jax.Array, weights: jax.Array, task_ids: jax.Array, num_tasks: int) -> WeightedSum:
    """Each task's lowest value in a batch, which counts as one: summed over batches, their mean, as TRL logs extremes.

    Args:
      values, weights: [B, N]; what has no weight is left out.
      task_ids: int32 [B, N].
      num_tasks: how many tasks they tell apart.
    """
    there = (jnp.arange(num_tasks, dtype=task_ids.dtype)[:, None, None] == task_ids[None]) & (weights > 0)
    found = jnp.min(jnp.where(there, values, jnp.inf), axis=(1, 2))
    known = jnp.any(there, axis=(1, 2))
    return WeightedSum(jnp.where(known, found, 0.0), known.astype(jnp.float32))


def token_metrics(
    scores: Any, entropy_weights: jax.Array, accuracy_weights: jax.Array, task_ids: jax.Array, num_tasks: int
) -> Metrics:
    """`entropy`, in nats, and `mean_token_accuracy`, how often the target is the likeliest token: TRL's names.

    Args:
      scores: a model's, with `entropy` and `correct` [B, S].
      entropy_weights, accuracy_weights: float32 [B, S], of the tokens that each is a mean over.
      task_ids: int32 [B, S].
      num_tasks: how many tasks they tell apart.
    """
    return {
        "entropy": by_task(scores.entropy, entropy_weights, task_ids, num_tasks),
        "mean_token_accuracy": by_task(scores.correct.astype(jnp.float32), accuracy_weights, task_ids, num_tasks),
    }


def weighted(
    numbers: Mapping[str, jax.Array], weights: jax.Array, task_ids: jax.Array, num_tasks: int
) -> tuple[jax.Array, Metrics]:
    """The mean of `numbers["loss"]` over all that has weight (0 where nothing has), and every number by task.

    Args:
      numbers: of each answer or pair, [B, N].
      weights: of each, float32 [B, N].
      task_ids: of each row's tokens, int32 [B, S]; a row is of one task.
      num_tasks: how many tasks they tell apart.
    """
    tasks, whole = task_ids[:, : weights.shape[1]], jnp.sum(weights)
    metrics = {name: by_task(values, weights, tasks, num_tasks) for name, values in numbers.items()}
    return jnp.sum(numbers["loss"] * weights) / jnp.where(whole > 0, whole, 1.0), metrics


def total(metric: WeightedSum) -> WeightedSum:
    """A metric over all tasks together, on the host."""
    return WeightedSum(np.sum(np.asarray(metric.sum, np.float64)), np.sum(np.asarray(metric.weight, np.float64)))


def by_name(name: str, metric: WeightedSum, tasks: Sequence[str], languages: Sequence[str]) -> dict[str, float]:
    """Means of a metric by task, and by language where there are several; what has no weight is left out.

    Args:
      name: the metric's.
      metric: [num_tasks].
      tasks: names.
      languages: of each task.
    """
    means = {
        f"{name}/{task}": mean(WeightedSum(*parts))
        for task, parts in zip(tasks, zip(*metric, strict=True), strict=True)
    }
    if len(set(languages)) > 1:
        for language in sorted(set(languages)):
            of_language = np.array([other == language for other in languages])
            parts = WeightedSum(*(np.asarray(part, np.float64)[of_language] for part in metric))
            means[f"{name}/language/{language}"] = mean(total(parts))
    return {key: float(value) for key, value in means.items() if np.isfinite(value)}


def mean(metric: WeightedSum) -> np.ndarray:
    """The mean behind a metric, in float64 on the host; not a number where nothing was weighed."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(metric.sum, np.float64) / np.asarray(metric.weight, np.float64)
