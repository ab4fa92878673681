"""Benchmarks of weights that are on the devices and will be others in a moment: a model in training, a merge that is tried."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.config import HarnessConfig
from aya_jax.evaluation.harness.benchmarks import ask_all, load_tasks
from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.scoring import Scorer
from aya_jax.inference.local import generating
from aya_jax.models.transformer import Transformer


class Benchmarks:
    """Questions that are put to one set of weights after another; nothing is kept of the answers."""

    def __init__(
        self,
        config: HarnessConfig,
        model: Transformer,
        mesh: Mesh,
        tokenizer: ChatTokenizer,
        say: Callable[[str], None],
    ):
        """Loads the questions.

        Args:
          config: which, and how they are put.
          model: the shape of all that is asked.
          mesh: what the work is divided over.
          tokenizer: of the model.
          say: told what is left out.

        Raises:
          UserError: a task is not to be had.
        """
        self._config, self._model, self._mesh, self._tokenizer = config, model, mesh, tokenizer
        self.tasks = load_tasks(config, say)
        longest = model.config.max_sequence_length
        self._max_length = min(config.max_length or longest, longest)
        self._scorer = Scorer(model, mesh, max_length=self._max_length, batch_tokens=config.batch_tokens)

    def ask(self, params: Any) -> tuple[list[Sample], dict[str, Any]]:
        """As `ask_all`, of these weights, which stay where they are."""
        return ask_all(
            self._config,
            self.tasks,
            functools.partial(self._scorer.score, params),
            functools.partial(
                generating, self._model, params, self._config.engine, self._tokenizer, self._mesh, "model"
            ),
            self._tokenizer,
            _Unkept(),
            _silent,
            self._max_length,
        )


class _Unkept:
    """Answers as long as they are of use."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def get(self, key: str) -> Any | None:
        """As `Answers.get`."""
        return self._known.get(key)

    def put(self, found: Mapping[str, Any]) -> None:
        """As `Answers.put`."""
        self._known |= found


@contextlib.contextmanager
def _silent(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None
