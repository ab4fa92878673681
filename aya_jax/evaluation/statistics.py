"""Honest statistics of benchmarks: intervals of every mean, and differences of models on the questions they share.

Scores are a matrix of questions and languages. Where a benchmark asks the same questions in every language, a row of the matrix
is one question, and resampling rows keeps what its languages have in common: a hard question is hard in all of them, and the
languages' mean is less certain than it would be if each were a sample of its own. Where languages have questions of their own,
rows have one entry each, and the same resampling treats languages as independent, as they are.

That is a bootstrap over questions (Efron and Tibshirani 1993, chapter 13: percentile intervals), with one seed, so that the
same records give the same intervals. Where all questions scored alike there is nothing to resample, and an interval of no width
would be a lie: of right and wrong answers it is then Wilson's (1927), and of differences between them Agresti and Min's (2005).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.special import ndtri

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK = 2**24  # entries of resampling counts that are held at a time


@dataclasses.dataclass(frozen=True)
class Scores:
    """What questions scored.

    Attributes:
      items: the questions' names.
      languages: their names.
      values: float64 [items, languages], not a number where a question was not asked in a language.
    """

    items: tuple[str, ...]
    languages: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of(cls, values: Mapping[tuple[str, str], float]) -> Scores:
        """From scores by (question, language)."""
        items = {name: row for row, name in enumerate(dict.fromkeys(item for item, _ in values))}
        languages = {name: column for column, name in enumerate(sorted({language for _, language in values}))}
        matrix = np.full((len(items), len(languages)), np.nan)
        rows = np.fromiter((items[item] for item, _ in values), np.int64, len(values))
        columns = np.fromiter((languages[language] for _, language in values), np.int64, len(values))
        matrix[rows, columns] = np.fromiter(values.values(), np.float64, len(values))
        return cls(tuple(items), tuple(languages), matrix)


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty.

    Attributes:
      estimate: the number itself.
      low, high: 95 % of resamples lie between.
      error: standard deviation over resamples.
    """

    estimate: float
    low: float
    high: float
    error: float

    def record(self) -> dict[str, float]:
        """For a JSON file."""
        return {"mean": self.estimate, "low": self.low, "high": self.high}


@dataclasses.dataclass(frozen=True)
class Means:
    """Of one model.

    Attributes:
      languages: of each language.
      macro: of the languages' means.
    """

    languages: tuple[Interval, ...]
    macro: Interval


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of two models on the same questions: the second less the first.

    Attributes:
      interval: of the difference.
      p: two-sided, for no difference (twice the share of resamples on the other side of 0, one more counted).
      adjusted: p among all languages compared at once (Holm 1979); the macro mean's is p itself.
      detectable: the smallest true difference that a comparison as large as this one would find in 4 of 5 cases, at 5 %
        two-sided: 2.8 standard errors.
      shared: questions compared.
    """

    interval: Interval
    p: float
    adjusted: float
    detectable: float
    shared: int


@dataclasses.dataclass(frozen=True)
class Differences:
    """Of two models.

    Attributes:
      languages: their names.
      by_language: of each.
      macro: of the mean over them.
    """

    languages: tuple[str, ...]
    by_language: tuple[Difference, ...]
    macro: Difference


def intervals(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Means:
    """Means with their intervals.

    Args:
      scores: with at least one score in each language.
      resamples: how many.
      seed: what they derive from.
    """
    means, drawn = column_means(scores.values, resamples, seed)
    counts, binary = _counts(scores.values), _is_binary(scores.values)
    of_languages = [_interval(means[k], drawn[:, k]) for k in range(len(means))]
    macro = _interval(float(np.mean(means)), np.nanmean(drawn, axis=1))
    if binary:
        of_languages = [_wilson(found, int(n)) for found, n in zip(of_languages, counts, strict=True)]
        macro = _wilson(macro, len(scores.values))
    return Means(tuple(of_languages), macro)


def differences(first: Scores, second: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Differences:
    """How much better the second is, on what both were asked: questions that only one was asked are left out.

    Raises:
      ValueError: they share no question.
    """
    left, right, languages = _shared(first, second)
    gaps, binary = right - left, _is_binary(left) and _is_binary(right)
    means, drawn = column_means(gaps, resamples, seed)
    return differences_of(languages, means, drawn, _counts(gaps), items=len(gaps) if binary else None)


def differences_of(
    languages: Sequence[str],
    estimates: np.ndarray,
    drawn: np.ndarray,
    counts: np.ndarray,
    *,
    items: int | None = None,
) -> Differences:
    """Differences by language and of the languages' mean, from what resamples of shared questions gave.

    Args:
      languages: their names.
      estimates: the differences, float64 [languages].
      drawn: of each resample, float64 [resamples, languages].
      counts: questions of each language, [languages].
      items: where answers are right or wrong, how many different questions there are.
    """
    by_language = [
        _difference(estimates[k], drawn[:, k], int(counts[k]), None if items is None else int(counts[k]))
        for k in range(len(estimates))
    ]
    adjusted = holm([found.p for found in by_language])
    macro = _difference(float(np.mean(estimates)), np.nanmean(drawn, axis=1), int(np.sum(counts)), items)
    return Differences(
        tuple(languages),
        tuple(dataclasses.replace(found, adjusted=p) for found, p in zip(by_language, adjusted, strict=True)),
        macro,
    )


def means_of(estimates: np.ndarray, drawn: np.ndarray) -> Means:
    """Scores of languages [languages], and their mean, with the intervals of resamples [resamples, languages]."""
    macro = _interval(float(np.mean(estimates)), np.nanmean(drawn, axis=1))
    return Means(tuple(_interval(estimates[k], drawn[:, k]) for k in range(len(estimates))), macro)


def column_means(values: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of columns [languages], and of resampled rows [resamples, languages].

    A row is drawn for all columns at once. A resample without any score in a column leaves it out (not a number).

    Args:
      values: float64 [items, languages], with at least one number in each column.
      resamples: how many.
      seed: what they derive from.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    drawn = np.empty((resamples, values.shape[1]))
    start = 0
    for counts in resample_counts(len(values), resamples, seed):
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn[start : start + len(counts)] = (counts @ filled) / (counts @ known.astype(np.float64))
        start += len(counts)
    return filled.sum(axis=0) / known.sum(axis=0), drawn


def resample_counts(items: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each item is drawn in each resample: float64 [some resamples, items], `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    step = max(1, min(resamples, _CHUNK // max(items, 1)))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        places = rng.integers(0, items, (size, items), np.int32)
        places += (np.arange(size, dtype=np.int32) * items)[:, None]
        yield np.bincount(places.ravel(), minlength=size * items).reshape(size, items).astype(np.float64)


def percentiles(drawn: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the middle `level` of resamples, of those that are numbers; [resamples, ...] -> two of [...].

    Where there is no number at all, there is no end (not a number).
    """
    tails = (1 - level) / 2, (1 + level) / 2
    flat = drawn.reshape(len(drawn), -1)
    ends = np.full((2, flat.shape[1]), np.nan)
    whole = ~np.isnan(flat).any(axis=0)
    ends[:, whole] = np.quantile(flat[:, whole], tails, axis=0)  # many times as quick as `nanquantile`
    for column in np.flatnonzero(~whole & ~np.isnan(flat).all(axis=0)):
        ends[:, column] = np.nanquantile(flat[:, column], tails)
    low, high = ends.reshape(2, *drawn.shape[1:])
    return low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that the chance of any false finding stays (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * float(p_values[place])))
        adjusted[place] = largest
    return adjusted


def detectable(error: float, *, power: float = 0.8) -> float:
    """The smallest difference that is found with this power at 5 % two-sided, by its standard error (Cohen 1988, chapter 2)."""
    return float(ndtri((1 + LEVEL) / 2) + ndtri(power)) * error


def _interval(estimate: float, drawn: np.ndarray) -> Interval:
    low, high = percentiles(drawn)
    return Interval(float(estimate), float(low), float(high), float(np.nanstd(drawn, ddof=1)))


def _counts(values: np.ndarray) -> np.ndarray:
    return np.sum(~np.isnan(values), axis=0)


def _is_binary(values: np.ndarray) -> bool:
    return bool(np.all(np.isnan(values) | (values == 0) | (values == 1)))


def _wilson(found: Interval, items: int) -> Interval:
    """Wilson's interval of a share in place of one without width."""
    if found.error > 0:
        return found
    low, high = wilson_interval(found.estimate, items)
    return Interval(found.estimate, low, high, (high - low) / (2 * ndtri((1 + LEVEL) / 2)))


def wilson_interval(share: float, items: int, confidence: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share of so many items (Wilson 1927); the share may be of half points."""
    z = float(ndtri((1.0 + confidence) / 2.0))
    spread = z * z / items
    middle = (share + spread / 2.0) / (1.0 + spread)
    half = math.sqrt(max(0.0, share * (1.0 - share)) * spread + spread**2 / 4.0) / (1.0 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _difference(estimate: float, drawn: np.ndarray, shared: int, binary_items: int | None) -> Difference:
    interval = _interval(estimate, drawn)
    if binary_items is not None and interval.error == 0:
        # Agresti and Min's standard error with half a pair more in each of the four cells, where none disagree.
        error = 1 / (binary_items + 2)
        width = float(ndtri((1 + LEVEL) / 2)) * error
        interval = Interval(estimate, max(-1.0, estimate - width), min(1.0, estimate + width), error)
    beyond = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p = min(1.0, 2 * (int(beyond) + 1) / (len(drawn) + 1))
    return Difference(interval, p, p, detectable(interval.error), shared)


def _shared(first: Scores, second: Scores) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Both models' scores of the questions and languages that both have."""
    rows = {name: row for row, name in enumerate(second.items)}
    columns = {name: column for column, name in enumerate(second.languages)}
    items = [name for name in first.items if name in rows]
    languages = [name for name in first.languages if name in columns]
    if not items or not languages:
        raise ValueError("the two share no question")
    places = {name: row for row, name in enumerate(first.items)}, {n: c for c, n in enumerate(first.languages)}
    left = first.values[np.ix_([places[0][n] for n in items], [places[1][n] for n in languages])]
    right = second.values[np.ix_([rows[n] for n in items], [columns[n] for n in languages])]
    both = ~np.isnan(left) & ~np.isnan(right)
    kept = both.any(axis=0)
    if not kept.any():
        raise ValueError("the two share no question")
    left, right = (np.where(both, part, np.nan)[:, kept] for part in (left, right))
    return left, right, tuple(name for name, keep in zip(languages, kept, strict=True) if keep)


def is_finding(difference: Difference) -> bool:
    """Whether zero lies outside the interval, and outside it too once all languages are counted."""
    return difference.adjusted <= 1 - LEVEL and not (difference.interval.low <= 0 <= difference.interval.high)


def percent(value: float) -> str:
    """A share in percent, for people."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
