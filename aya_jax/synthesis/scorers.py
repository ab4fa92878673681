"""What judges answers: a reward model of ours or behind an endpoint, or a Python function."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import jax

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.parallel.distributed import agree_on
from aya_jax.synthesis.config import RewardEndpointConfig, RewardFunctionConfig, RewardModelConfig

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from aya_jax.parallel.config import LogicalAxes


@dataclass(frozen=True)
class Answer:
    """An answer to be judged.

    Attributes:
      messages: the conversation that it answers.
      text: what it says.
      fields: of the prompt's row.
    """

    messages: tuple[Message, ...]
    text: str
    fields: Mapping[str, Any]


class Scorer(Protocol):
    """Answers in, rewards out."""

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """A reward of each, in order; not a number (NaN) where one cannot be judged."""
        ...


def open_scorer(
    config: RewardModelConfig | RewardFunctionConfig | RewardEndpointConfig,
    mesh: Mesh,
    rules: LogicalAxes,
    say: Callable[[str], None],
) -> Scorer:
    """The scorer that a configuration asks for; a model runs on the mesh.

    Raises:
      UserError: there is no such model or function.
    """
    if isinstance(config, RewardFunctionConfig):
        return OnFirstProcess(lambda: FunctionScorer(config))
    if isinstance(config, RewardEndpointConfig):
        from aya_jax.synthesis.endpoint_scorer import EndpointScorer

        return OnFirstProcess(lambda: EndpointScorer(config))
    from aya_jax.synthesis.reward_scorer import RewardScorer

    return RewardScorer(config, mesh, rules, say)


class OnFirstProcess:
    """A scorer that process 0 asks for all: a function may be random, and calls to an endpoint cost."""

    def __init__(self, make: Callable[[], Scorer]):
        """Makes the scorer where it is used."""
        self._scorer = make() if jax.process_index() == 0 else None

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """As `Scorer.score`; every process must call it."""
        return agree_on(None if self._scorer is None else self._scorer.score(answers))


class FunctionScorer:
    """Calls a Python function for each answer."""

    def __init__(self, config: RewardFunctionConfig):
        module, name = config.function.split(":")
        try:
            self._function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"RewardFunctionConfig.function = {config.function!r}: {error}") from error
        self._config = config

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """As `Scorer.score`.

        Raises:
          UserError: the function fails, or gives something that is no number.
        """
        return [self._score(answer) for answer in answers]

    def _score(self, answer: Answer) -> float:
        try:
            value = self._function(answer.messages, answer.text, answer.fields, **self._config.options)
        except Exception as error:
            raise UserError(f"{self._config.function} fails on {answer.text[:60]!r}: {error!r}") from error
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
            raise UserError(f"{self._config.function} gives {value!r} for {answer.text[:60]!r}, and no finite number")
        return float(value)
