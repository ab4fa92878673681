"""Intervals by drawing prompts, not games, with replacement, and a prompt together with its translations.

Two games of one prompt say nearly the same, and so do its games in 23 languages: drawn apart they would count as
independent and intervals come out too narrow (arena-hard-auto draws rows). Here the unit is the prompt's id. Languages
that share ids are drawn together (a paired bootstrap, Efron & Tibshirani 1993, ch. 8), and those that share none are
drawn apart, each with its own number of prompts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri

FEWEST_UNITS = 5  # resampling fewer says next to nothing, and one prompt would seem to be certain
_BLOCK = 2_000_000  # counts that are held at a time


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
        return divide(self.numerator.sum(1), self.denominator.sum(1))


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


def draws_of_units(present: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each unit is drawn, [r, U] at a time, `resamples` rows in all.

    Groups that share a unit, directly or through others, are drawn together: as many units as they have between them.

    Args:
      present: which units each group has, bool [G, U]; every unit is in some group.
      resamples: draws.
      seed: the same units, draws and seed give the same counts.
    """
    if not present.size:
        yield np.zeros((resamples, present.shape[1]))
        return
    rng = np.random.default_rng(seed)
    shared = csr_array(present.astype(np.int64) @ present.T.astype(np.int64))
    number, label = connected_components(shared, directed=False)
    owner = label[present.argmax(0)]  # of each unit: the component of some group that has it
    rows = max(1, _BLOCK // present.shape[1])
    for start in range(0, resamples, rows):
        counts = np.zeros((min(rows, resamples - start), present.shape[1]))
        for component in range(number):
            if len(mine := np.flatnonzero(owner == component)):
                counts[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1.0 / len(mine)), size=len(counts))
        yield counts


def ratio_draws(table: Sums, resamples: int, seed: int) -> np.ndarray:
    """Each group's ratio under each draw, [R, G]; NaN where a draw leaves its denominator 0."""
    parts = [
        divide(counts @ table.numerator.T, counts @ table.denominator.T)
        for counts in draws_of_units(table.present, resamples, seed)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(table.groups)))


def estimates(table: Sums, *, resamples: int, confidence: float, seed: int) -> tuple[dict[str, Estimate], Estimate]:
    """Each group's ratio in per cent, and the plain mean over groups, with intervals from the same draws.

    The mean is NaN where a group has no ratio: a mean over the others would pass for the whole.

    Args:
      table: whose ratios are from 0 to 100.
      resamples, confidence, seed: of the bootstrap.
    """
    ratios, draws = table.ratios, ratio_draws(table, resamples, seed)
    units = (table.present & (table.denominator != 0)).sum(1)
    by_group = {
        name: estimate(ratios[k], draws[:, k], int(units[k]), confidence, percent=True)
        for k, name in enumerate(table.groups)
    }
    least = int(units.min(initial=len(table.units)))
    return by_group, mean_estimate(list(by_group.values()), draws, least, confidence, percent=True)


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
    tail = (1.0 - confidence) / 2.0
    if np.ptp(draws) > 1e-9 * max(1.0, abs(value)):
        low, high = np.quantile(draws, [tail, 1.0 - tail])
        return Estimate(float(value), float(low), float(high))
    return _wilson(float(value), units, float(ndtri(1.0 - tail))) if percent else Estimate(float(value))


def _wilson(percent: float, units: int, z: float) -> Estimate:
    share, spread = percent / 100.0, z * z / units
    middle = (share + spread / 2.0) / (1.0 + spread)
    half = math.sqrt(max(0.0, share * (1.0 - share)) * spread + spread**2 / 4.0) / (1.0 + spread)
    return Estimate(percent, 100.0 * max(0.0, middle - half), 100.0 * min(1.0, middle + half))


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the divisor is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), math.nan), where=np.asarray(below) != 0)
