"""Silhouettes (Rousseeuw 1987): how much nearer rows are to their own cluster than to the next one, and what K that speaks for.

The silhouette of a row is (b - a) / max(a, b), where a is its mean distance to the others of its cluster and b the least of its
mean distances to other clusters; 0 in a cluster of one. It is of pairs of rows, so of large sets it is taken on a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.selection.kmeans import kmeans

_MIB = 64  # of distances that are held at a time


def silhouette(vectors: np.ndarray, labels: np.ndarray, *, sample: int = 10_000, seed: int = 0) -> float:
    """The mean silhouette of a sample of rows, their distances Euclidean and to rows of the sample alone.

    Args:
      vectors: [N, D].
      labels: [N], their clusters.
      sample: rows that are drawn, without repetition; all where there are no more.
      seed: of the draw.

    Raises:
      UserError: scikit-learn is missing, or the sample is all of one cluster, or has every row in a cluster of its own.
    """
    try:
        import sklearn
        from sklearn.metrics import silhouette_score
    except ImportError as error:
        raise UserError("silhouettes need scikit-learn: pip install 'aya_jax[eval]'") from error
    if sample < len(vectors):
        drawn = np.sort(np.random.default_rng(seed).choice(len(vectors), sample, replace=False))
        vectors, labels = vectors[drawn], labels[drawn]
    found = len(np.unique(labels))
    if not 2 <= found < len(labels):
        raise UserError(
            f"a silhouette compares 2 or more clusters that have several rows, and these {len(labels)} rows are of {found}: "
            "ask for another number of clusters, or a larger sample."
        )
    with sklearn.config_context(working_memory=_MIB):
        return float(silhouette_score(vectors, labels))


def choose_clusters(
    vectors: np.ndarray,
    candidates: Sequence[int],
    *,
    seed: int,
    sample: int = 10_000,
    iterations: int = 10,
    tolerance: float = 1e-3,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> tuple[int, dict[int, float]]:
    """The number of clusters whose k-means has the largest silhouette, the smallest of equals.

    Args:
      vectors: float32 [N, D].
      candidates: numbers of clusters, each 2 or more.
      seed: of every k-means, and of the rows that silhouettes are of: the same for all.
      sample: as `silhouette`.
      iterations, tolerance, mesh, chunk: as `kmeans`.

    Returns:
      (the best, the silhouette of each).

    Raises:
      UserError: as `kmeans` and `silhouette`, or there are no candidates, or one is less than 2.
    """
    if not candidates or min(candidates) < 2:
        raise UserError(
            f"numbers of clusters to choose from are {list(candidates)}: give one or more, each at least 2."
        )
    scores = {}
    for clusters in sorted(set(candidates)):
        found = kmeans(vectors, clusters, seed=seed, iterations=iterations, tolerance=tolerance, mesh=mesh, chunk=chunk)
        scores[clusters] = silhouette(vectors, found.labels, sample=sample, seed=seed)
    return max(scores, key=scores.__getitem__), scores
