"""Intervals: over seeds where there are several, over validation documents where there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Method = Literal["seeds", "documents", "none"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
      estimate: the mean over seeds, or the one run's value.
      low, high: the interval's ends; NaN where none can be given.
      method: "seeds" (Student's t over seeds), "documents" (bootstrap over validation documents) or "none".
      count: seeds behind the estimate.
    """

    estimate: float
    low: float
    high: float
    method: Method
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero; False where there is none."""
        return self.low > 0.0 or self.high < 0.0


def over_seeds(values: Sequence[float], confidence: float) -> Interval:
    """Student's t interval of the mean: mean ± t(n-1) · s/√n, s with n - 1 in the denominator (Student, 1908).

    Args:
      values: one value per seed; at least two, else the interval is NaN.
      confidence: coverage, such as 0.95.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, math.nan, math.nan, "none", count)
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1) * np.std(values, ddof=1) / math.sqrt(count))
    return Interval(mean, mean - half, mean + half, "seeds", count)


@dataclass(frozen=True)
class Documents:
    """The held-out documents of one task under one model, or under two that are compared.

    Attributes:
      nll: nats summed over each document, float64 [N]; for a comparison, this model's.
      reference_nll: the other model's on the same documents, [N]; zeros for one model alone.
      num_bytes: UTF-8 bytes of each document, [N].
    """

    nll: np.ndarray
    reference_nll: np.ndarray
    num_bytes: np.ndarray


def over_documents(tasks: Sequence[Documents], confidence: float, resamples: int, seed: int = 0) -> Interval:
    """Percentile bootstrap, over documents, of the mean over tasks of bits per byte, or of its paired difference.

    Documents are drawn with replacement within each task; both models of a comparison see the same draw (the paired
    bootstrap of Koehn, 2004). Per task the statistic is (Σ nll - Σ reference nll) / Σ bytes / ln 2.

    Args:
      tasks: the documents of each task.
      confidence: coverage, such as 0.95.
      resamples: draws.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    estimate = float(np.mean([_bits_per_byte(task, np.ones((1, len(task.nll))))[0] for task in tasks]))
    draws = np.zeros(resamples)
    for task in tasks:
        draws += _resampled(task, resamples, rng) / len(tasks)
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(estimate, float(low), float(high), "documents", 1)


def _resampled(task: Documents, resamples: int, rng: np.random.Generator, block: int = 4_000_000) -> np.ndarray:
    """The statistic of every draw, in blocks that keep the table of counts small."""
    size = len(task.nll)
    rows = max(1, block // size)
    parts = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        parts.append(_bits_per_byte(task, rng.multinomial(size, np.full(size, 1.0 / size), size=count)))
    return np.concatenate(parts)


def _bits_per_byte(task: Documents, counts: np.ndarray) -> np.ndarray:
    """The statistic under the given numbers of copies of each document, counts [R, N] → [R]."""
    return counts @ (task.nll - task.reference_nll) / (counts @ task.num_bytes) / math.log(2)
