"""Benchmarks while a model trains: the same questions every so many steps, their means in metrics.jsonl, the answers beside.

`evaluations/step_<N>.json` and its records are those of `aya evaluate`, so two steps of a run can be compared question by
question like two models.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.config import BenchmarkHookConfig
from aya_jax.evaluation.harness.benchmarks import ask_all, load_tasks
from aya_jax.evaluation.held_out import weights_digest
from aya_jax.evaluation.results import write
from aya_jax.evaluation.scoring import Scorer
from aya_jax.inference.engine import Engine
from aya_jax.inference.local import LocalGenerator
from aya_jax.training.hooks import Setting
from aya_jax.training.tokenizer_files import FOLDER


class Unkept:
    """Answers of weights that will be others in a moment."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def get(self, key: str) -> Any | None:
        """As `Answers.get`."""
        return self._known.get(key)

    def put(self, found: Mapping[str, Any]) -> None:
        """As `Answers.put`."""
        self._known |= found


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
        self._tokenizer = ChatTokenizer.open(_tokenizer(run))
        self._tasks = load_tasks(self._config, setting.console.print)
        longest = setting.model.config.max_sequence_length
        self._max_length = min(self._config.max_length or longest, longest)
        batch = self._config.batch_tokens
        self._scorer = Scorer(setting.model, setting.mesh, max_length=self._max_length, batch_tokens=batch)

    def measure(self, params: Any, step: int) -> dict[str, float]:
        """Asks everything, writes `evaluations/step_<N>.json`, and gives the languages' means and each language's."""
        samples, reported = ask_all(
            self._config,
            self._tasks,
            lambda asked, answer: self._scorer.score(params, asked, answer),
            lambda longest: self._generator(params, longest),
            self._tokenizer,
            Unkept(),
            _silent,
            self._max_length,
        )
        heading = {
            "kind": "benchmarks",
            "name": f"step_{step}",
            "model": self._setting.config.run_dir,
            "checkpoint_step": step,
            "weights_digest": weights_digest(params),
            "limit": self._config.limit,
            "tasks": sorted(self._tasks),
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

    @contextlib.contextmanager
    def _generator(self, params: Any, longest: int) -> Iterator[LocalGenerator]:
        config = dataclasses.replace(self._config.engine, max_length=self._config.engine.max_length or longest)
        with jax.set_mesh(self._setting.mesh):
            engine = Engine(self._setting.model, params, config)
        with LocalGenerator(engine, self._tokenizer, self._setting.mesh, "model", lambda: "") as opened:
            yield opened


def _tokenizer(run: Any) -> str:
    """Of the run: its own copy, else what its stores were made with."""
    own = Path(run.run_dir) / FOLDER
    if own.is_dir():
        return str(own)
    beside = Path(run.data.store_dir) / "vocabulary"
    return str(beside) if beside.is_dir() else "bytes"


@contextlib.contextmanager
def _silent(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None
