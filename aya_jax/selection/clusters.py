"""The clusters of rows, computed once and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.selection.config import SelectConfig
from aya_jax.selection.kmeans import kmeans
from aya_jax.selection.silhouette import choose_clusters


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Where rows lie.

    Attributes:
      labels: int32 [N].
      distances: float32 [N], squared, to their centres.
      count: K.
      silhouettes: by number of clusters, where one was picked.
    """

    labels: np.ndarray
    distances: np.ndarray
    count: int
    silhouettes: dict[int, float] = dataclasses.field(default_factory=dict)


def cluster(config: SelectConfig, vectors: np.ndarray, embedded: str, folder: Path, mesh: Mesh) -> Clusters:
    """The clusters of rows, from the run directory where they are there.

    Raises:
      UserError: there are fewer different rows than clusters, or the silhouette's package is missing.
    """
    about = json.dumps([embedded, config.clusters, config.seed, config.silhouette_rows])
    file = folder / f"clusters-{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
    if file.is_file():
        try:
            with np.load(file, allow_pickle=False) as kept:
                scores = dict(zip(kept["candidates"].tolist(), kept["silhouettes"].tolist(), strict=True))
                return Clusters(kept["labels"], kept["distances"], len(kept["centres"]), scores)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file}: damaged ({error}); remove it, and it is computed again") from error
    scores: dict[int, float] = {}
    count = config.clusters
    if not isinstance(count, int):
        count, scores = choose_clusters(vectors, count, seed=config.seed, sample=config.silhouette_rows, mesh=mesh)
    found = kmeans(vectors, count, seed=config.seed, mesh=mesh)
    content = io.BytesIO()
    arrays = {"centres": found.centres, "labels": found.labels, "distances": found.distances}
    np.savez(content, candidates=list(scores), silhouettes=list(scores.values()), **arrays)
    write_atomic(file, content.getvalue())
    return Clusters(found.labels, found.distances, count, scores)


def shares_of(config: SelectConfig, clusters: Clusters) -> np.ndarray:
    """What each cluster gives, float64 [K], up to a factor."""
    if config.sizes == "equal":
        return np.ones(clusters.count)
    return np.bincount(clusters.labels, minlength=clusters.count).astype(np.float64)
