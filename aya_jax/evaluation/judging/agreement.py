"""How far a judge agrees with people: accuracy and Cohen's kappa against labelled pairs, such as LLMBar's."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.analyses.resampling import ratio
from aya_jax.evaluation.judging.battles import Battle, Game
from aya_jax.evaluation.judging.resampling import Estimate, estimate
from aya_jax.evaluation.rows import Row, read_rows
from aya_jax.evaluation.statistics import resample_counts

Label = Literal[1, 2]
FIRST, SECOND = "output_1", "output_2"


@dataclass(frozen=True, kw_only=True)
class LabelledPair:
    """Two answers of which people have said which is better.

    Attributes:
      id: file and line.
      prompt: what was asked.
      first, second: the answers.
      labels: 1 or 2, the better one, by each person who was asked; None where one had no opinion.
      language: of the prompt.
      subject: as the file groups its pairs; "" where it does not.
    """

    id: str
    prompt: str
    first: str
    second: str
    labels: tuple[Label | None, ...]
    language: str = "en"
    subject: str = ""

    @property
    def label(self) -> Label | None:
        """What most people say; None where as many say the one as the other."""
        ones, twos = self.labels.count(1), self.labels.count(2)
        return None if ones == twos else 1 if ones > twos else 2


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A judge against labels.

    Attributes:
      accuracy: per cent of all judgements that name the right answer; a tie and one that cannot be read are not right.
      accuracy_of_read: the same of those that can be read.
      kappa: Cohen's, of those that can be read, a tie being a label of its own; NaN where it does not exist.
      judgements, ties, unparsed: how many.
    """

    accuracy: Estimate
    accuracy_of_read: Estimate
    kappa: Estimate
    judgements: int
    ties: int
    unparsed: int


def load_llmbar(path: str | os.PathLike[str]) -> list[LabelledPair]:
    """Rows of LLMBar: `input`, `output_1`, `output_2`, `label` (1 or 2), or `labels` of several people (1, 2 or null).

    Raises:
      UserError: naming file, line and field.
    """
    stem = Path(path).name.partition(".")[0]
    return [_pair(row, f"{stem}:{row.line}") for row in read_rows(path)]


def _pair(row: Row, name: str) -> LabelledPair:
    return LabelledPair(
        id=name,
        prompt=row.text("input"),
        first=row.answer(FIRST),
        second=row.answer(SECOND),
        labels=_labels(row),
        language=row.text("language") if row.fields.get("language") else "en",
        subject=row.text("subject") if row.fields.get("subject") else "",
    )


def _labels(row: Row) -> tuple[Label | None, ...]:
    several = "labels" in row.fields
    given = row.fields["labels"] if several else [row.fields.get("label")]
    allowed = (1, 2, None) if several else (1, 2)
    if several and (not isinstance(given, list) or not any(given)):
        raise row.problem("labels", f"is {given!r:.60}; a list of 1, 2 or null is needed, one for each person")
    for label in given:
        if label not in allowed or isinstance(label, bool):
            raise row.problem("labels" if several else "label", f"is {label!r}; 1 or 2 is needed")
    return tuple(None if label is None else int(label) for label in given)


def pair_battles(pairs: Iterable[LabelledPair]) -> list[Battle]:
    """The pairs as battles: the first answer is the model's, the second the baseline's."""
    return [
        Battle(
            prompt_id=pair.id,
            language=pair.language,
            messages=(Message("user", pair.prompt),),
            model_answer=pair.first,
            baseline_answer=pair.second,
            model=FIRST,
            baseline=SECOND,
        )
        for pair in pairs
    ]


def judge_agreement(
    games: Iterable[Game],
    pairs: Iterable[LabelledPair],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Games of `pair_battles` against what most people say; each game is a judgement, and intervals draw pairs.

    Pairs on which people are divided have no right answer and are left out.

    Raises:
      UserError: a game of a pair that is not given, or a pair without any game.
    """
    pairs, games = list(pairs), list(games)
    known = {pair.id for pair in pairs}
    for game in games:
        if game.prompt_id not in known:
            raise UserError(f"a game of {game.prompt_id!r}, which has no label")
    labels = {pair.id: pair.label for pair in pairs if pair.label is not None}
    games = [game for game in games if game.prompt_id in labels]
    left = sorted(set(labels) - {game.prompt_id for game in games})
    if left:
        raise UserError(f"{len(left)} of {len(labels)} labelled pairs were not judged, {left[0]!r} among them")
    said = {None: None, 1: 1, 0: 0, -1: 2}
    judged = [said[None if game.strength is None else int(np.sign(game.strength))] for game in games]
    truth = [labels[game.prompt_id] for game in games]
    units = [game.prompt_id for game in games]
    return agreement(judged, truth, units, resamples=resamples, confidence=confidence, seed=seed)


def agreement(
    judged: Sequence[int | None],
    truth: Sequence[int],
    units: Sequence[Hashable],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Judgements against labels.

    Args:
      judged: 1 or 2, 0 for a tie, None for a reply that cannot be read.
      truth: 1 or 2.
      units: what intervals draw; judgements of the same pair share theirs.
      resamples, confidence, seed: of the bootstrap.
    """
    tables = confusions(judged, truth, units, (0, 1, 2))
    unread = [float(label is None) for label in judged]
    index = {unit: k for k, unit in enumerate(sorted(set(units)))}
    asked, missed = np.zeros(len(index)), np.zeros(len(index))
    for unit, miss in zip(units, unread, strict=True):
        asked[index[unit]] += 1
        missed[index[unit]] += miss

    def numbers(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        table = np.tensordot(counts, tables, 1)
        right = np.trace(table, axis1=-2, axis2=-1)
        return 100 * ratio(right, counts @ asked), 100 * ratio(right, counts @ (asked - missed)), kappas(table)

    point = numbers(np.ones((1, len(index))))
    parts = [numbers(counts) for counts in resample_counts(len(index), resamples, seed)]
    drawn = [np.concatenate(column) for column in zip(*parts, strict=True)]
    accuracy, of_read, kappa = (
        estimate(float(value[0]), draws, len(index), confidence, percent=percent)
        for value, draws, percent in zip(point, drawn, (True, True, False), strict=True)
    )
    return Agreement(
        accuracy=accuracy,
        accuracy_of_read=of_read,
        kappa=kappa,
        judgements=len(judged),
        ties=sum(label == 0 for label in judged),
        unparsed=int(sum(unread)),
    )


def confusions(
    first: Sequence[Hashable | None],
    second: Sequence[Hashable | None],
    units: Sequence[Hashable],
    labels: Sequence[Hashable],
) -> np.ndarray:
    """How often each unit (sorted) has each pair of labels, float64 [U, C, C]; a pair with a None is left out."""
    at: Mapping[Hashable, int] = {label: k for k, label in enumerate(labels)}
    index = {unit: k for k, unit in enumerate(sorted(set(units)))}
    tables = np.zeros((len(index), len(labels), len(labels)))
    for a, b, unit in zip(first, second, units, strict=True):
        if a is not None and b is not None:
            tables[index[unit], at[a], at[b]] += 1
    return tables


def kappas(tables: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960) of each confusion table: (p_o - p_e) / (1 - p_e), [..., C, C] → [...].

    NaN for an empty table, and where both raters always say the same one thing (p_e = 1): agreement by chance and by
    judgement cannot be told apart.
    """
    total = tables.sum((-2, -1))
    observed = ratio(np.trace(tables, axis1=-2, axis2=-1), total)
    expected = ratio((tables.sum(-1) * tables.sum(-2)).sum(-1), total**2)
    return ratio(observed - expected, 1.0 - expected)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Cohen's kappa of two raters' labels of the same things; NaN as in `kappas`."""
    labels = sorted({*first, *second}, key=repr)
    tables = confusions(first, second, [0] * len(first), labels)
    return float(kappas(tables.sum(0))) if len(first) else math.nan
