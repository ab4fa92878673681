"""What judging shares, whatever is judged: the judge at work, what there is to do, and answers from files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aya_jax.evaluation.judging.asking import judge_sampling
from aya_jax.evaluation.judging.battles import Battle, Game
from aya_jax.evaluation.judging.config import JudgeConfig
from aya_jax.evaluation.judging.judge import RewardFunction, judge_games, reward_games
from aya_jax.evaluation.judging.load import load_prompts
from aya_jax.evaluation.results import Sample, plain
from aya_jax.evaluation.rows import Row, read_rows
from aya_jax.inference.protocol import Generator


@dataclasses.dataclass(frozen=True)
class Sitting:
    """A judge at work.

    Attributes:
      config: what is asked for.
      judge: who writes verdicts; None where rewards judge.
      reward: rewards of answers; None where verdicts are written.
    """

    config: JudgeConfig
    judge: Generator | None
    reward: RewardFunction | None

    @property
    def options(self) -> dict[str, Any]:
        """Of every bootstrap."""
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    @property
    def asking(self) -> dict[str, Any]:
        """Of every question."""
        sampling = judge_sampling(self.config.max_tokens, self.config.seed)
        return {"sampling": sampling, "name_language": self.config.name_language}

    def games(self, battles: list[Battle], margin: float, form: str) -> list[Game]:
        """Both orders of every battle, in an order that does not depend on which reply came first."""
        if self.reward is not None:
            return list(reward_games(self.reward, battles, margin=margin))
        games = judge_games(self.judge, battles, form=form, **self.asking)
        return sorted(games, key=lambda game: (game.language, game.prompt_id, game.order))


@dataclasses.dataclass(frozen=True)
class Work:
    """What there is to judge.

    Attributes:
      calls: replies, or rewards of answers.
      cost: that, for people.
      files: that it is read from.
      ask: does it: a sitting in, what is found and the records of it out.
      kind: "benchmarks" where the records are scores of a model, which `aya compare` takes.
    """

    calls: int
    cost: str
    files: tuple[str, ...]
    ask: Callable[[Sitting], tuple[dict[str, Any], list[Sample]]]
    kind: str = "judged"


def answers_of(file: str, language: str | None) -> dict[tuple[str, str], str]:
    """Answers by (language, id) from a file of `aya generate`: each row's first completion.

    Raises:
      UserError: a row has none; it names the line.
    """
    return {key: texts[0] for key, texts in all_answers_of(file, language).items()}


def all_answers_of(file: str, language: str | None) -> dict[tuple[str, str], tuple[str, ...]]:
    """All completions of each row; those of a row with several turns are one for each turn.

    Raises:
      UserError: as `answers_of`.
    """
    prompts = load_prompts(file, language=language)
    texts = [_completions(row) for row in read_rows(file)]
    return {prompt.key: found for prompt, found in zip(prompts, texts, strict=True)}


def _completions(row: Row) -> tuple[str, ...]:
    completions = row.fields.get("completions")
    whole = isinstance(completions, list) and completions and all(isinstance(c, Mapping) for c in completions)
    if not whole or not all(isinstance(completion.get("text"), str) for completion in completions):
        raise row.problem("completions", "is missing: the file is to be written by `aya generate`")
    return tuple(completion["text"] for completion in completions)


def records(family: str, judged: Sequence[Any], name: Callable[[Any], str]) -> list[Sample]:
    """Records of judgements that are no model's scores: dataclasses with a language, each by a name of its own."""
    return [
        Sample(
            id=f"{family}/{name(one)}", task=family, family=family, item=f"{family}/{name(one)}", language=one.language,
            metrics={}, prediction=None, target=None, prompt="", doc=plain(dataclasses.asdict(one)),
        )
        for one in judged
    ]  # fmt: skip
