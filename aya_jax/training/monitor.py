"""What is known of a run while it goes: records, the progress bar, and the stop when too many steps are skipped."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from aya_jax.config import UserError
from aya_jax.models import flops
from aya_jax.objectives.metrics import WeightedSum, by_name, mean, total
from aya_jax.training.clock import Clock
from aya_jax.training.config import TrainConfig
from aya_jax.training.environment import peak_flops
from aya_jax.training.tracking import Trackers

Sums = dict[str, tuple[np.ndarray, np.ndarray]]


class Monitor:
    """Gathers the steps' metrics and writes a record every `tracking.every` steps.

    Metrics are fetched one step late, when the next step has been dispatched, so that the devices never wait for it.
    """

    def __init__(
        self,
        config: TrainConfig,
        task_names: Sequence[str],
        languages: Sequence[str],
        trackers: Trackers,
        console: Console,
        first: int,
        pending: Mapping[str, Any] | None = None,
    ):
        """`languages` is that of each task; `pending` are sums that `flush` gave."""
        self._config, self._trackers, self._console = config, trackers, console
        self._task_names, self._languages = task_names, languages
        self._queue: list[tuple[int, Mapping[str, Any]]] = []
        self._sums: Sums = {name: (np.array(s), np.array(w)) for name, (s, w) in (pending or {}).items()}
        self._last: dict[str, float | int] = {}
        self._timed_from = first
        devices = jax.devices()
        peak = peak_flops(devices[0].device_kind)
        self._peak = peak * len(devices) if peak else None
        self._flops_per_token = flops.per_token(config.model, config.data.sequence_length)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("training", total=config.steps, completed=first)

    def step(self, done: int, metrics: Mapping[str, Any], clock: Clock) -> None:
        """Takes the metrics of step `done` (counted from 1) and deals with those before it.

        Raises:
          UserError: `guard.max_skipped` steps in a row were skipped.
        """
        if self._queue and self._queue[-1][0] % self._config.tracking.every == 0:
            self._drain(clock)
        self._queue.append((done, metrics))
        self._progress.update(self._bar, completed=done)

    def flush(self, clock: Clock) -> dict[str, Any]:
        """Deals with every step so far; returns the sums since the last record, to be saved with a checkpoint."""
        self._drain(clock)
        return {name: (s.tolist(), w.tolist()) for name, (s, w) in self._sums.items()}

    def stamp(self, done: int, kind: str) -> dict[str, Any]:
        """The head of a record."""
        tokens = done * self._config.data.global_batch * self._config.data.sequence_length
        return {"step": done, "tokens": tokens, "wall_time": time.time(), "kind": kind}

    def __enter__(self) -> Monitor:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _drain(self, clock: Clock) -> None:
        fetched = jax.device_get([metrics for _, metrics in self._queue])
        steps = [done for done, _ in self._queue]
        self._queue.clear()
        for done, metrics in zip(steps, fetched, strict=True):
            self._add(done, metrics)
            if done % self._config.tracking.every == 0 or done == self._config.steps:
                self._write(done, clock)

    def _add(self, done: int, metrics: Mapping[str, Any]) -> None:
        if int(metrics["skipped"]):
            self._report_skip(done, metrics)
        else:
            for name, metric in metrics.items():
                if isinstance(metric, WeightedSum):
                    so_far = self._sums.get(name, (0.0, 0.0))
                    self._sums[name] = tuple(a + np.asarray(b, np.float64) for a, b in zip(so_far, metric, strict=True))
        self._last = {name: float(metrics[name]) for name in ("grad_norm", "learning_rate")}
        self._last["skipped_total"] = int(metrics["skipped_total"])

    def _report_skip(self, done: int, metrics: Mapping[str, Any]) -> None:
        norm, in_a_row = float(metrics["grad_norm"]), int(metrics["skipped_in_a_row"])
        self._trackers.write(
            self.stamp(done, "event") | {"event": "skipped", "grad_norm": norm, "skipped_in_a_row": in_a_row}
        )
        if in_a_row < self._config.guard.max_skipped:
            return
        batch = self._config.data.global_batch
        raise UserError(
            f"{self._config.run_dir}: stopped at step {done}: the gradients of {in_a_row} steps in a row were not finite "
            f"or jumped (the last norm is {norm:.3g}), and the steps were skipped. They read batches {done - in_a_row} to "
            f"{done - 1}, sequences {(done - in_a_row) * batch} to {done * batch - 1}: look at them with `aya inspect "
            f"--gin.InspectConfig.step={done - 1}`. Checkpoints are as they were: go on from one in another RUN_DIR "
            f"(--gin.MODEL_DIR=...) with a lower LEARNING_RATE or a higher GuardConfig.spike_factor."
        )

    def _write(self, done: int, clock: Clock) -> None:
        seconds = clock.lap()
        record = self.stamp(done, "train") | self._means() | self._speed(done, seconds)
        self._trackers.write(record)
        self._sums, self._timed_from = {}, done
        if not self._console.is_terminal:
            loss, speed = record["loss"], record["tokens_per_second"]
            shown = "all steps skipped" if loss is None else f"loss {loss:.4f}"
            self._console.print(
                f"step {done:>6} / {self._config.steps}  {shown}  {speed:,.0f} tokens/s", highlight=False
            )
        elif record["loss"] is not None:
            self._progress.update(self._bar, description=f"loss {record['loss']:.4f}")

    def _means(self) -> dict[str, Any]:
        if not self._sums:  # every step since the last record was skipped
            return {"loss": None, **self._last}
        sums = {name: WeightedSum(*sums) for name, sums in self._sums.items()}
        numbers = {name: float(mean(total(metric))) for name, metric in sums.items()}
        if self._config.objective is None:
            numbers["perplexity"] = math.exp(min(numbers["loss"], 700.0))
        numbers |= self._last
        for name, metric in sums.items():
            if np.ndim(metric.sum):
                numbers |= by_name(name, metric, self._task_names, self._languages)
        return numbers

    def _speed(self, done: int, seconds: Mapping[str, float]) -> dict[str, float | None]:
        """Compilation and validation are no part of the pace; waiting for data and for checkpoints is."""
        tokens = (done - self._timed_from) * self._config.data.global_batch * self._config.data.sequence_length
        spent = max(seconds["total"] - seconds["compilation"] - seconds["validation"], 1e-9)
        pace = tokens / spent
        return {
            "tokens_per_second": pace,
            "mfu": pace * self._flops_per_token / self._peak if self._peak else None,
            "data_fraction": seconds["data"] / spent,
            "checkpoint_fraction": seconds["checkpoint"] / spent,
        }
