"""Iterative refinement: clusters from which the model still has something to learn get more of the next round's budget.

"Diversify and Conquer", section 3 (arXiv 2409.11378): a row's gain is the score of its answer less that of the model's own
answer after the round; a cluster's is the mean over its rows that were trained on.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Update = Literal["ratio", "exponential", "released"]


def cluster_gains(gains: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Mean gain of each cluster, float64 [K]; of one without rows the mean of the others, so that it neither gains nor loses.

    Args:
      gains: float [M], of the rows that were trained on.
      labels: int [M], their clusters.
      clusters: K.
    """
    counts = np.bincount(labels, minlength=clusters)
    sums = np.bincount(labels, weights=gains, minlength=clusters)
    found = counts > 0
    means = np.divide(sums, counts, out=np.zeros(clusters), where=found)
    means[~found] = means[found].mean() if found.any() else 0.0
    return means


def new_weights(weights: np.ndarray, gains: np.ndarray, update: Update) -> np.ndarray:
    """Weights of the clusters for the next round, float64 [K], which sum to one.

    * "ratio", the paper's: w_j <- s_j / (sum of s) * w_j. A cluster whose answers the model has passed (s_j <= 0) gets nothing
      more; where all are, weights stay.
    * "exponential": w_j <- exp(s_j) * w_j, which takes gains of any sign.
    * "released", what the published code does: w_j <- exp(s_j), whatever the weight was before.

    Args:
      weights: float [K], of the round before.
      gains: float [K], from `cluster_gains`.
      update: which.
    """
    weights, gains = np.asarray(weights, np.float64), np.asarray(gains, np.float64)
    if update == "ratio":
        factors = np.maximum(gains, 0.0)
        if not np.any(factors * weights > 0):
            return weights / weights.sum()
    else:
        factors = np.exp(gains - gains.max())
    found = factors if update == "released" else factors * weights
    return found / found.sum()
