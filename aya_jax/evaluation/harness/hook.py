"""Benchmarks while a model trains: the same questions every so many steps, their means in metrics.jsonl, the answers beside.

`evaluations/step_<N>.json` and its records are those of `aya evaluate`, so two steps of a run can be compared question by
question like two models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.config import BenchmarkHookConfig
from aya_jax.evaluation.harness.in_memory import Benchmarks
from aya_jax.evaluation.results import write
from aya_jax.evaluation.weights import weights_digest
from aya_jax.training.hooks import Setting
from aya_jax.training.tokenizer_files import FOLDER


class BenchmarkHook:
    """A `training.hooks.Hook`."""

    kind = "benchmarks"

    def __init__(self, config: BenchmarkHookConfig, setting: Setting):
        """Loads the questions.

        Raises:
          UserError: a task or the tokenizer is not to be had.
        """
        run = setting.config
        self._config, self._setting = config.benchmarks, setting
        tokenizer = ChatTokenizer.open(_tokenizer(run))
        self._benchmarks = Benchmarks(self._config, setting.model, setting.mesh, tokenizer, setting.console.print)

    def measure(self, params: Any, step: int) -> dict[str, float]:
        """Asks everything, writes `evaluations/step_<N>.json`, and gives the languages' means and each language's."""
        samples, reported = self._benchmarks.ask(params)
        heading = {
            "kind": "benchmarks",
            "name": f"step_{step}",
            "model": self._setting.config.run_dir,
            "checkpoint_step": step,
            "weights_digest": weights_digest(params),
            "limit": self._config.limit,
            "tasks": sorted(self._benchmarks.tasks),
            "reported_by_harness": reported,
        }
        file = Path(self._setting.config.run_dir) / "evaluations" / f"step_{step}.json"
        families = write(file, heading, samples, first=jax.process_index() == 0)["families"]
        return {
            name: value
            for family, metrics in families.items()
            for metric, found in metrics.items()
            for name, value in (
                (f"{family}/{metric}", found["macro"]["mean"]),
                *((f"{family}/{metric}/{language}", of["mean"]) for language, of in found["languages"].items()),
            )
        }


def _tokenizer(run: Any) -> str:
    """Of the run: its own copy, else what its stores were made with."""
    own = Path(run.run_dir) / FOLDER
    if own.is_dir():
        return str(own)
    beside = Path(run.data.store_dir) / "vocabulary"
    return str(beside) if beside.is_dir() else "bytes"
