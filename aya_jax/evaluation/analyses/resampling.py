"""The bootstrap of whatever is no mean of scores: ratios, deviations, calibration errors, ranks.

`evaluation/statistics.py` has the bootstrap of means and of their differences, for which one product of matrices does. Draws,
the number of them, the level and the percentiles are that file's; what is here is only that a result may be any function of
the sample, may be undefined in a resample, and is one of many at once.

A statistic is written once, as a function of how many copies of each question there are: counts [R, N] in, one result for
each of the R rows out. With one copy of everything it gives the estimate; with counts drawn as N draws with replacement
it gives the bootstrap distribution (Efron, 1979), whose quantiles are the interval's ends. Whatever is computed from the
same counts is resampled jointly: two models that answer the same prompts, one question in 42 languages.

Samples are resampled as if independent. Where a statistic is not a smooth mean (a calibration error, a count of changed
ranks) resampling adds noise of its own, and an interval can lie above its estimate; those functions say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aya_jax.evaluation.statistics import LEVEL, RESAMPLES, percentiles, resample_counts

Statistic = Callable[[np.ndarray], np.ndarray]
"""Copies of each sample, float64 [R, N] → results [R, ...]; NaN where a resample leaves the result undefined."""


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
      resamples: how many draws; 0 gives no intervals.
      confidence: coverage, such as 0.95.
      seed: of the draws.
    """

    resamples: int = RESAMPLES
    confidence: float = LEVEL
    seed: int = 0


class Estimate(NamedTuple):
    """A result with its interval.

    Attributes:
      value: the result; None where it is undefined.
      low, high: the interval's ends; None where there are none.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Estimates:
    """An array of results with their intervals.

    Attributes:
      value, low, high: float64 [...]; NaN where undefined.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def at(self, *index: int) -> Estimate:
        """The result at an index."""
        return Estimate(*(_number(array[index]) for array in (self.value, self.low, self.high)))


def estimate(statistic: Statistic, size: int, bootstrap: Bootstrap) -> Estimates:
    """A statistic of all samples, with percentile intervals.

    Resamples that leave a result undefined are left out of its interval.

    Args:
      statistic: see `Statistic`.
      size: how many samples there are, N.
      bootstrap: how intervals are made.
    """
    value = np.asarray(statistic(np.ones((1, size))), np.float64)[0]
    if bootstrap.resamples == 0 or size == 0:
        return Estimates(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    counts = resample_counts(size, bootstrap.resamples, bootstrap.seed)
    drawn = np.concatenate([statistic(of_some) for of_some in counts])
    return Estimates(value, *percentiles(drawn, bootstrap.confidence))


def estimate_sums(statistic: Statistic, columns: np.ndarray, bootstrap: Bootstrap) -> Estimates:
    """A statistic of sums over samples that are of few kinds, such as right, wrong and unread answers.

    N draws from samples of K kinds are one multinomial draw over the kinds: the same distribution as that of `estimate`, at a
    cost that does not grow with N.

    Args:
      statistic: column sums, float64 [R, C] → results [R, ...]; NaN where a resample leaves the result undefined.
      columns: what is summed, numbers or bool [N, C].
      bootstrap: how intervals are made.
    """
    kinds, numbers = np.unique(columns.astype(np.float64), axis=0, return_counts=True)
    value = np.asarray(statistic(columns.astype(np.float64).sum(axis=0)[None]), np.float64)[0]
    if bootstrap.resamples == 0 or not len(columns):
        return Estimates(value, np.full_like(value, np.nan), np.full_like(value, np.nan))
    rng = np.random.default_rng(bootstrap.seed)
    drawn = rng.multinomial(len(columns), numbers / len(columns), size=bootstrap.resamples)
    return Estimates(value, *percentiles(statistic(drawn @ kinds), bootstrap.confidence))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element by element; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
