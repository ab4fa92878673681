"""An objective's metrics on held-out judged answers, with intervals of its accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.stats import binomtest

from aya_jax.data.batches import BatchLoader, ordered_batches
from aya_jax.models.low_rank import Model
from aya_jax.objectives.metrics import Metrics, WeightedSum, mean, total
from aya_jax.parallel.sharding import replicated
from aya_jax.training.config import TrainConfig
from aya_jax.training.objective import make_objective
from aya_jax.training.placement import place, row_share
from aya_jax.training.validation import find_tasks, held_out_store, is_due

_ACCURACIES = ("rewards/accuracies", "accuracy")


class ObjectiveValidator:
    """Measures the tasks of a run on their held-out pairs or answers.

    Attributes:
      tasks: those that have any.
      stores: of each.
    """

    def __init__(self, config: TrainConfig, model: Model, mesh: Mesh, loader: BatchLoader):
        self._config, self._mesh, self._rules = config, mesh, model.rules
        self.tasks = find_tasks(config, loader)
        self.stores = {task: held_out_store(config.data.store_dir, task) for task in self.tasks}
        self._numbers: dict[str, dict[str, np.ndarray]] = {}
        objective = make_objective(config, model, num_tasks=1, held_out=True)

        def measure(params: Any, batch: Mapping[str, jax.Array]) -> Metrics:
            return objective(params, batch, jax.random.key(0))[1]

        self._measure = jax.jit(measure, out_shardings=replicated(mesh))

    def attach(self, field: str, values: Mapping[str, np.ndarray]) -> None:
        """Gives batches a field with a number of each document; by task, float32 [documents]."""
        for task, numbers in values.items():
            self._numbers.setdefault(task, {})[field] = numbers

    def is_due(self, done: int) -> bool:
        """Whether step `done` is one to measure after: every so many, and the last."""
        return is_due(self._config, self.tasks, done)

    def measure(self, params: Any) -> dict[str, float]:
        """The numbers of a validation record: each metric over all of them, by language and by task."""
        by_task = {task: self._measure_task(params, task) for task in self.tasks}
        numbers = describe("", list(by_task.values()))
        languages = {task: store.manifest.language for task, store in self.stores.items()}
        for language in sorted(set(languages.values())):
            of_language = [sums for task, sums in by_task.items() if languages[task] == language]
            numbers |= describe(f"language/{language}/", of_language)
        for task, sums in by_task.items():
            numbers |= describe(f"validation/{task}/", [sums])
        return numbers

    def _measure_task(self, params: Any, task: str) -> Metrics:
        share = row_share(self._mesh, self._rules)
        batches = ordered_batches(
            self.stores[task],
            self._config.data,
            max_tokens=self._config.validation.max_tokens,
            process_index=share.index,
            process_count=share.count,
            numbers=self._numbers.get(task),
        )
        sums: Metrics = {}
        for batch in batches:
            found = jax.device_get(self._measure(params, place(batch, self._mesh, self._rules)))
            for name, metric in found.items():
                so_far = sums.get(name, WeightedSum(np.float64(0), np.float64(0)))
                sums[name] = WeightedSum(*(a + b for a, b in zip(so_far, total(metric), strict=True)))
        return sums


def describe(prefix: str, parts: list[Metrics]) -> dict[str, float]:
    """Means over parts together; of accuracies also the 95 % interval (Wilson 1927), and how many pairs they are of."""
    numbers = {}
    for name in parts[0] if parts else ():
        metric = WeightedSum(*(sum(values) for values in zip(*(part[name] for part in parts), strict=True)))
        numbers[f"{prefix}{name}"] = float(mean(metric))
        pairs = round(float(metric.weight))
        if name in _ACCURACIES and pairs:
            interval = binomtest(round(float(metric.sum)), pairs).proportion_ci(method="wilson")
            numbers[f"{prefix}{name}/low"], numbers[f"{prefix}{name}/high"] = interval.low, interval.high
            numbers[f"{prefix}pairs"] = pairs
    return numbers
