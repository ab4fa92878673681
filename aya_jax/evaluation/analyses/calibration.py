"""Calibration of multiple-choice answers: whether a model that says 70 % is right 70 % of the time.

Option scores become probabilities by softmax; the confidence is the largest of them. Answers, in order of confidence, are
cut into bins of equal mass, and the expected calibration error is Σ_b (n_b/N) · |accuracy_b - confidence_b|: of LLM See, LLM
Do (2407.01490) with 10 bins and with 1 (papers.md section 8). The Brier score is the mean over answers of
Σ_k (p_k - [k is right])² (Brier, 1950), 0 to 2.

Noise within bins makes the error of even a perfect predictor positive, up to about 0.4 · √(bins/N), and a resample is noisier
than the sample: an interval leans upward. Compare models on the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.records import ChoiceRecord
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate


class Bin(NamedTuple):
    """One row of the reliability table.

    Attributes:
      count: answers in it.
      lowest, highest: confidence of its first and last answer.
      confidence: mean over its answers.
      accuracy: share of them that are right.
    """

    count: int
    lowest: float
    highest: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How well confidence matches accuracy.

    Attributes:
      count: answers.
      ece: expected calibration error.
      ece_one_bin: with one bin, whose error is |accuracy - confidence|.
      brier: Brier score over all choices.
      accuracy: share of answers whose likeliest choice is right.
      confidence: mean probability of the likeliest choice.
      bins: the reliability table, from the least confident.
    """

    count: int
    ece: Estimate
    ece_one_bin: Estimate
    brier: Estimate
    accuracy: Estimate
    confidence: Estimate
    bins: tuple[Bin, ...]


def calibration(
    records: Sequence[ChoiceRecord], bins: int = 10, bootstrap: Bootstrap | None = None, file: str = "records"
) -> Calibration:
    """Calibration of answers that have scores and a label.

    Args:
      records: at least one for each bin; the numbers of choices may differ.
      bins: of equal mass, up to one answer.
      bootstrap: how intervals are made; bins are cut anew in each resample.
      file: what errors name.

    Raises:
      UserError: a record lacks scores or label, or there are fewer records than bins.
    """
    bootstrap = bootstrap or Bootstrap()
    confidence, correct, brier = scored(records, file)
    if bins < 1 or len(records) < bins:
        raise UserError(f"{file}: {len(records)} answers do not fill {bins} bins")
    order = np.argsort(confidence, kind="stable")
    confidence, correct, brier = confidence[order], correct[order], brier[order]

    def statistic(counts: np.ndarray) -> np.ndarray:
        errors = np.array([equal_mass_error(row, confidence, correct, bins) for row in counts])
        means = counts @ np.stack([brier, correct, confidence], axis=1) / len(confidence)
        return np.column_stack([errors, np.abs(means[:, 1] - means[:, 2]), means])

    found = estimate(statistic, len(records), bootstrap)
    table = reliability(confidence, correct, bins)
    return Calibration(len(records), *(found.at(number) for number in range(5)), table)


def scored(records: Sequence[ChoiceRecord], file: str = "records") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether it is right (0 or 1) and Brier score of each record; float64 [N] each.

    Of equally likely choices the first counts as the answer, as in lm-evaluation-harness.

    Raises:
      UserError: a record lacks scores or label.
    """
    for number, record in enumerate(records, 1):
        if record.label is None or not 0 <= record.label < len(record.scores):
            raise UserError(
                f"{file}:{number}: label {record.label} with {len(record.scores)} scores; "
                "calibration needs 'label' and a score for each choice"
            )
        if max(record.scores) == -np.inf:
            raise UserError(f"{file}:{number}: field 'scores': no choice is possible")
    # -inf fills up to the longest list of choices: its probability is 0, and it is never the label.
    scores = np.full((len(records), max((len(record.scores) for record in records), default=1)), -np.inf)
    for row, record in zip(scores, records, strict=True):
        row[: len(record.scores)] = record.scores
    labels = np.array([record.label for record in records], np.int64)
    probabilities = softmax(scores, axis=1)
    right = np.arange(scores.shape[1]) == labels[:, None]
    brier = np.sum((probabilities - right) ** 2, axis=1)
    # argmax of the scores, not of the probabilities: rounding in softmax may make two of them equal
    return probabilities.max(axis=1), (scores.argmax(axis=1) == labels).astype(np.float64), brier


def equal_mass_error(counts: np.ndarray, confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    """Expected calibration error of answers in order of confidence, with `counts` copies of each.

    Args:
      counts: float64 [N], whole numbers.
      confidence: [N], rising.
      correct: 0 or 1, [N].
      bins: of equal mass, up to one copy.
    """
    ends = np.cumsum(counts)
    gaps = np.concatenate([[0.0], np.cumsum(counts * (correct - confidence))])
    # Within one answer's copies the sum grows by a straight line, so a cut between copies is an exact interpolation.
    at = np.interp(_cuts(int(ends[-1]), bins), np.concatenate([[0.0], ends]), gaps)
    return float(np.abs(np.diff(at)).sum() / ends[-1])


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int) -> tuple[Bin, ...]:
    """The reliability table of answers in order of confidence; [N], [N]."""
    return tuple(
        Bin(
            count=end - start,
            lowest=float(confidence[start]),
            highest=float(confidence[end - 1]),
            confidence=float(confidence[start:end].mean()),
            accuracy=float(correct[start:end].mean()),
        )
        for start, end in pairwise(_cuts(len(confidence), bins).tolist())
    )


def _cuts(total: int, bins: int) -> np.ndarray:
    """Where bins begin, and the last ends, in `total` answers: as `np.array_split` does it; int64 [bins + 1]."""
    size, larger = divmod(total, bins)
    return np.arange(bins + 1) * size + np.minimum(np.arange(bins + 1), larger)
