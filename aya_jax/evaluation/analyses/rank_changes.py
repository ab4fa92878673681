"""How the ranking of models depends on whether questions are culturally sensitive (Global-MMLU, 2412.03304, section 5).

In every language, models are ranked by accuracy on all annotated questions (MA) and on a subset S of them, CS or CA. With
δ_m = rank_MA(m) - rank_S(m), the rank changes are the models with δ ≠ 0 and the position changes Σ |δ|, each averaged over
languages (papers.md section 2).

Ties: the paper gives no rule. Here equal models share the best of their ranks (1, 2, 2, 4: `scipy.stats.rankdata`'s 'min'),
whichever order they come in; equal means equal numbers of right answers, not accuracies that rounding made alike.

Resampling questions shuffles models that are close, so changes are more frequent in resamples than in the sample: intervals
lean upward. They answer "how many changes could other questions have given", not "is there any".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.global_mmlu import RESOURCES, Answers
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate

ALL_AND_RESOURCES: Mapping[str, Sequence[str] | None] = {"all": None, **RESOURCES}
_RANKED = ("MA", "CS", "CA")


@dataclass(frozen=True)
class RankChanges:
    """What changes when models are ranked on a subset instead of on all annotated questions.

    Attributes:
      rank_changes: models whose rank changes, mean over languages.
      position_changes: positions that they move by, summed over models, mean over languages.
      largest: the largest move of a model in a language.
      by_model: mean over languages of each model's move.
    """

    rank_changes: Estimate
    position_changes: Estimate
    largest: int
    by_model: Mapping[str, Estimate]


def ranks(right: np.ndarray) -> np.ndarray:
    """Competition ranks, 1 for the most right answers, ties sharing the best; [..., M] → int64 [..., M]."""
    return 1 + np.sum(right[..., None, :] > right[..., :, None], axis=-1)


def rank_table(models: Mapping[str, Answers]) -> dict[str, dict[str, dict[str, int]]]:
    """Every model's rank: subset ("MA", "CS", "CA") → language → model → rank.

    Raises:
      UserError: models answered different questions.
    """
    first, correct = _aligned(models)
    table = {}
    for subset in _RANKED:
        found = ranks(correct[:, :, first.mask(subset)].sum(axis=2).T)
        table[subset] = {
            language: dict(zip(models, of_language.tolist(), strict=True))
            for language, of_language in zip(first.languages, found, strict=True)
        }
    return table


def rank_changes(
    models: Mapping[str, Answers],
    groups: Mapping[str, Sequence[str] | None] = ALL_AND_RESOURCES,
    bootstrap: Bootstrap | None = None,
) -> dict[str, dict[str, RankChanges]]:
    """Rank and position changes: subset ("CS", "CA") → group of languages → changes.

    Annotated questions are drawn jointly for all models, languages and subsets.

    Args:
      models: name → answers; all to the same questions in the same languages, none missing.
      groups: name → languages; None for all. A group of which there are no answers is left out.
      bootstrap: over annotated questions.

    Raises:
      UserError: models answered different questions.
    """
    first, correct = _aligned(models)
    annotated = first.mask("MA")
    masks = np.stack([first.mask(subset)[annotated] for subset in _RANKED]).astype(np.float64)
    answers = correct[:, :, annotated]
    members = {
        name: [row for row, language in enumerate(first.languages) if group is None or language in group]
        for name, group in groups.items()
    }
    members = {name: rows for name, rows in members.items() if rows}

    def statistic(counts: np.ndarray) -> np.ndarray:
        moves = _moves(counts, answers, masks)
        return np.stack([_over_languages(moves[:, :, rows]) for rows in members.values()], axis=2)

    size = answers.shape[2]
    found = estimate(statistic, size, bootstrap or Bootstrap())
    moves = _moves(np.ones((1, size)), answers, masks)[0]
    return {
        subset: {
            name: RankChanges(
                rank_changes=found.at(at, group, 0),
                position_changes=found.at(at, group, 1),
                largest=int(moves[at, rows].max()),
                by_model={model: found.at(at, group, 2 + number) for number, model in enumerate(models)},
            )
            for group, (name, rows) in enumerate(members.items())
        }
        for at, subset in enumerate(_RANKED[1:])
    }


def _aligned(models: Mapping[str, Answers]) -> tuple[Answers, np.ndarray]:
    """The first model's table, and all models' answers arranged as its: float64 [M, L, Q]."""
    if not models:
        raise UserError("a ranking needs models")
    name, first = next(iter(models.items()))
    arranged = []
    for other, answers in models.items():
        if set(answers.questions) != set(first.questions) or set(answers.languages) != set(first.languages):
            raise UserError(f"{other!r} and {name!r} did not answer the same questions in the same languages")
        questions = {question: at for at, question in enumerate(answers.questions)}
        languages = {language: at for at, language in enumerate(answers.languages)}
        columns = [questions[question] for question in first.questions]
        table = answers.correct[[languages[language] for language in first.languages]][:, columns]
        if (answers.labels[columns] != first.labels).any():
            raise UserError(f"{other!r} and {name!r} label the same questions differently")
        if np.isnan(table).any():
            language = first.languages[int(np.isnan(table).any(axis=1).argmax())]
            raise UserError(f"{other!r} lacks answers in language {language!r}; ranks need every question answered")
        arranged.append(table)
    return first, np.stack(arranged)


def _moves(counts: np.ndarray, answers: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """|δ| of each model: counts [R, Q], answers [M, L, Q], masks of MA, CS, CA [3, Q] → int64 [R, 2, L, M]."""
    models, languages, size = answers.shape
    flat = answers.reshape(models * languages, size).T
    found = np.stack(
        [ranks((counts @ (flat * mask[:, None])).reshape(-1, models, languages).swapaxes(1, 2)) for mask in masks],
        axis=1,
    )
    return np.abs(found[:, :1] - found[:, 1:])


def _over_languages(moves: np.ndarray) -> np.ndarray:
    """Means over languages: [R, 2, L, M] → [R, 2, 2 + M], rank changes, position changes and each model's move."""
    summed = np.stack([(moves != 0).sum(axis=3), moves.sum(axis=3)], axis=3)
    return np.concatenate([summed.mean(axis=2), moves.mean(axis=2)], axis=2)
