"""The ledger of tokens: what the mixture planned, what was trained, how often each task's text was read."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_jax.studies.runs import CODE_KINDS, TrainingRun, read_json, tags_of


@dataclass(frozen=True)
class Entry:
    """One task in one training run.

    Attributes:
      task: its name.
      domain: "text" or a kind of code.
      planned: tokens that the mixture gives it over the whole run.
      trained: tokens that it has been given so far.
      available: tokens in its store; None where the store is no longer there.
    """

    task: str
    domain: str
    planned: float
    trained: float
    available: int | None

    @property
    def epochs(self) -> float | None:
        """How often the task's text was read."""
        return self.trained / self.available if self.available else None


def total_tokens(config: Mapping[str, Any]) -> int:
    """Tokens of a whole run: steps × batch × sequence length."""
    return config["steps"] * config["data"]["global_batch"] * config["data"]["sequence_length"]


def ledger(run: TrainingRun) -> list[Entry]:
    """The entries of one run, by task; [] where its directory holds no configuration, or its mixture is a mere name."""
    data = run.config.get("data")
    if not data or not isinstance(data["mixture"]["rates"], Mapping):
        return []
    steps = run.config["steps"]
    done = min(steps, run.train[-1]["step"] if run.train else 0)
    per_step = total_tokens(run.config) / steps
    available = store_tokens(Path(data["store_dir"]))
    planned: dict[str, float] = {}
    trained: dict[str, float] = {}
    for start, stop, rates in phases(data["mixture"], steps, available):
        for task, share in rates.items():
            planned[task] = planned.get(task, 0.0) + share * per_step * (stop - start)
            trained[task] = trained.get(task, 0.0) + share * per_step * max(0, min(stop, done) - start)
    return [Entry(task, tags_of(task)[1], planned[task], trained[task], available.get(task)) for task in planned]


def code_share(lineage: Sequence[TrainingRun]) -> float:
    """The share of code among the tokens planned over all stages of a model's training; NaN where it is not known."""
    entries = [entry for run in lineage for entry in ledger(run)]
    total = sum(entry.planned for entry in entries)
    code = sum(entry.planned for entry in entries if entry.domain in CODE_KINDS)
    return round(code / total, 9) if total else math.nan


def phases(
    mixture: Mapping[str, Any], steps: int, available: Mapping[str, int]
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(first step, step after the last, task → share) for each stretch of steps with the same rates."""
    starts = [(0, mixture["rates"]), *_schedule(mixture.get("schedule") or {})]
    for index, (start, rates) in enumerate(starts):
        stop = min(steps, starts[index + 1][0]) if index + 1 < len(starts) else steps
        if stop > start:
            yield start, stop, shares(rates, mixture.get("temperature", 1.0), available)


def shares(rates: Mapping[str, float], temperature: float, available: Mapping[str, int]) -> dict[str, float]:
    """Each task's share of the tokens. A pattern's rate is split over its tasks, those that
    have a rate of their own left out, by tokens^(1/temperature) (`MixtureConfig`).

    A pattern that no prepared store matches stays as it is: its share is known, its tasks are not.
    """
    split: dict[str, float] = {}
    for name, rate in rates.items():
        tasks = [task for task in fnmatch.filter(sorted(available), name) if task == name or task not in rates] or [
            name
        ]
        weights = {task: available.get(task, 1) ** (1.0 / temperature) for task in tasks}
        for task, weight in weights.items():
            split[task] = split.get(task, 0.0) + rate * weight / sum(weights.values())
    total = sum(split.values())
    return {task: rate / total for task, rate in split.items()}


def _schedule(entries: Mapping[str, Any]) -> list[tuple[int, Mapping[str, float]]]:
    """(step, rates) pairs as a snapshot holds them: {"0": {"0": step, "1": rates}, ...}."""
    return [(entry["0"], entry["1"]) for entry in entries.values()]


def store_tokens(store_dir: Path) -> dict[str, int]:
    """Training tokens of every prepared task."""
    return {path.parts[-3]: int(read_json(path)["tokens"]) for path in sorted(store_dir.glob("*/train/manifest.json"))}
