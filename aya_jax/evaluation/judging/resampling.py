"""Ratios of sums with intervals, by drawing prompts, not games, with replacement, and a prompt together with its translations.

Two games of one prompt say nearly the same, and so do its games in 23 languages: drawn apart they would count as
independent and intervals come out too narrow (arena-hard-auto draws rows). Here the unit is the prompt's id.

It stands beside `evaluation.statistics` because its numbers are no means of one score for each question: a score is a sum over
another sum (games by their weights, wins over wins and losses, labels over what could be read), what counts below the line is
drawn with what counts above it, and may be nothing. Draws are those of `statistics.resample_counts`, all units at once, and
the interval of what does not vary is `statistics.wilson_interval`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aya_jax.evaluation.analyses.resampling import ratio
from aya_jax.evaluation.statistics import percentiles, resample_counts, wilson_interval

FEWEST_UNITS = 5  # resampling fewer says next to nothing, and one prompt would seem to be certain


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
      value: NaN where there is nothing to compute it from: it is never 0 for want of data.
      low, high: ends of the interval; NaN where none can be given.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Sums:
    """What a ratio is made of, by group (a language) and unit (a prompt's id).

    Attributes:
      groups: sorted, [G].
      units: sorted, [U].
      numerator, denominator: float64 [G, U].
      present: bool [G, U]; a unit may be present and add nothing, such as a prompt whose verdicts cannot be read.
    """

    groups: tuple[str, ...]
    units: tuple[Hashable, ...]
    numerator: np.ndarray
    denominator: np.ndarray
    present: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """Sum over sum of each group, [G]; NaN where the denominator is 0."""
        return ratio(self.numerator.sum(1), self.denominator.sum(1))


def sums(items: Iterable[tuple[str, Hashable, float, float]]) -> Sums:
    """Adds up (group, unit, numerator, denominator); what is said of a unit several times is added."""
    items = list(items)
    groups = {name: k for k, name in enumerate(sorted({item[0] for item in items}))}
    units = {name: k for k, name in enumerate(sorted({item[1] for item in items}))}
    shape = len(groups), len(units)
    numerator, denominator, present = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for group, unit, above, below in items:
        at = groups[group], units[unit]
        numerator[at] += above
        denominator[at] += below
        present[at] = True
    return Sums(tuple(groups), tuple(units), numerator, denominator, present)


def ratio_draws(table: Sums, resamples: int, seed: int) -> np.ndarray:
    """Each group's ratio under each draw, [R, G]; NaN where a draw leaves its denominator 0."""
    parts = [
        ratio(counts @ table.numerator.T, counts @ table.denominator.T)
        for counts in resample_counts(len(table.units), resamples, seed)
    ]
    return np.concatenate(parts)


def estimates(
    table: Sums, *, resamples: int, confidence: float = 0.95, seed: int, percent: bool = True
) -> tuple[dict[str, Estimate], Estimate]:
    """Each group's ratio, and the plain mean over groups, with intervals from the same draws.

    The mean is NaN where a group has no ratio: a mean over the others would pass for the whole.

    Args:
      table: what the ratios are of.
      resamples, confidence, seed: of the bootstrap.
      percent: ratios are from 0 to 100, as `estimate`.
    """
    ratios, draws = table.ratios, ratio_draws(table, resamples, seed)
    units = (table.present & (table.denominator != 0)).sum(1)
    by_group = {
        name: estimate(ratios[k], draws[:, k], int(units[k]), confidence, percent=percent)
        for k, name in enumerate(table.groups)
    }
    least = int(units.min(initial=len(table.units)))
    return by_group, mean_estimate(list(by_group.values()), draws, least, confidence, percent=percent)


def mean_estimate(
    parts: Sequence[Estimate], draws: np.ndarray, units: int, confidence: float, *, percent: bool = False
) -> Estimate:
    """The mean of estimates, its interval from their joint draws [R, G]; none where one of them has none.

    Args:
      parts: what the mean is of.
      draws: a column for each.
      units: that the smallest of them is of.
      confidence, percent: as `estimate`.
    """
    if not parts:
        return Estimate(math.nan)
    value = float(np.mean([part.value for part in parts]))
    if any(math.isnan(part.low) for part in parts):
        return Estimate(value)
    return estimate(value, draws.mean(1), units, confidence, percent=percent)


def estimate(value: float, draws: np.ndarray, units: int, confidence: float, *, percent: bool = False) -> Estimate:
    """The value with the percentile interval of its draws; draws in which it does not exist are left out.

    Where all draws agree, nothing varied and an interval of no width would be a lie. Of a mean in per cent it is then
    Wilson's (1927) for so many right or wrong answers, which vary most among scores from 0 to 100; else there is none.

    Args:
      value: the number itself.
      draws: [R].
      units: that it is of; there is no interval for fewer than `FEWEST_UNITS`.
      confidence: coverage, such as 0.95.
      percent: it is a mean of scores from 0 to 100.
    """
    draws = draws[np.isfinite(draws)]
    if math.isnan(value) or units < FEWEST_UNITS or not len(draws):
        return Estimate(float(value))
    if np.ptp(draws) > 1e-9 * max(1.0, abs(value)):
        low, high = percentiles(draws, confidence)
        return Estimate(float(value), float(low), float(high))
    if not percent:
        return Estimate(float(value))
    low, high = wilson_interval(float(value) / 100.0, units, confidence)
    return Estimate(float(value), 100.0 * low, 100.0 * high)
