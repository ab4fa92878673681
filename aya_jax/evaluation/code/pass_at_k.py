"""pass@k: how often at least one of k samples solves a problem, from n >= k samples of each.

The estimator is unbiased (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1): of all
ways to choose k of the n samples, the share that holds at least one of the c right ones, 1 - C(n-c, k) / C(n, k).
Taking 1 - (1 - c/n)^k instead is biased downwards, as the paper's appendix A shows. The mean over problems comes with
an interval that says how much it would move with other problems of the same kind; how much it would move with other
samples is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.statistics import column_means

_RESAMPLES = 10_000
_INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class PassAtK:
    """pass@k of a benchmark.

    Attributes:
      k: how many tries.
      mean: over the problems.
      low: the lower end of the 95 % interval of the mean.
      high: its upper end.
      per_problem: each problem's, in the order given.
    """

    k: int
    mean: float
    low: float
    high: float
    per_problem: tuple[float, ...]


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """One problem's pass@k.

    As a product of `correct` or of k factors, whichever is fewer, none above 1: binomial coefficients of a few hundred samples
    do not fit a float. 1 - C(n-c, k) / C(n, k) = 1 - prod over i in n-c+1..n of (1 - k/i), and c and k may change places.

    Args:
      samples: how many there are, n.
      correct: how many of them are right, c.
      k: how many are chosen.

    Raises:
      UserError: k is not within 1..n, or c not within 0..n.
    """
    if not 1 <= k <= samples:
        raise UserError(
            f"pass@{k} of {samples} samples: k is at least 1 and at most the number of samples of each problem"
        )
    if not 0 <= correct <= samples:
        raise UserError(f"{correct} of {samples} samples are correct: at least 0 and at most all of them")
    if samples - correct < k:  # every choice holds a right one
        return 1.0
    fewer, other = sorted((correct, k))
    among = np.arange(samples - fewer + 1, samples + 1, dtype=np.float64)
    return float(1.0 - np.prod((among - other) / among))


def summarize(counts: Sequence[tuple[int, int]], k: int, seed: int = 0) -> PassAtK:
    """Mean pass@k over problems, with a bootstrap interval.

    Problems are drawn with replacement, as many as there are, 10,000 times; the interval holds the middle 95 % of their means
    (Efron & Tibshirani 1993, section 13.3).

    Args:
      counts: (samples, correct) of each problem; problems may differ in how many samples they have.
      k: how many tries.
      seed: of the draws.

    Raises:
      UserError: no problems, or a problem with fewer than k samples.
    """
    if not counts:
        raise UserError(f"pass@{k}: there are no problems to take the mean of")
    values = np.array([pass_at_k(samples, correct, k) for samples, correct in counts])
    _, means = column_means(values[:, None], _RESAMPLES, seed)
    low, high = np.percentile(means, _INTERVAL)
    return PassAtK(k=k, mean=float(values.mean()), low=float(low), high=float(high), per_problem=tuple(values.tolist()))
