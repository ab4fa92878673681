"""Choosing rows: read, embed, cluster, score, take; each step is kept, so that what was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.selection import choosing, rounds
from aya_jax.selection.checks import sift
from aya_jax.selection.clusters import Clusters, cluster, shares_of
from aya_jax.selection.config import SelectConfig
from aya_jax.selection.embedding import embed
from aya_jax.selection.kept import Workplace
from aya_jax.selection.quality import score
from aya_jax.selection.results import Round, Selection
from aya_jax.selection.rows import read
from aya_jax.training.console import Track


def select(config: SelectConfig, mesh: Mesh, say: Callable[[str], None], track: Track) -> Selection:
    """Chooses, and keeps embeddings, clusters and qualities.

    Raises:
      UserError: rows are wrong, there are too few of them, or what they are to be chosen by is not to be had.
    """
    at = Workplace(Path(config.kept_dir or config.run_dir), mesh, config.mesh.logical_axes, say)
    rows, digest = read(config.rows)
    read_rows, left_out = len(rows), []
    if config.checks is not None:
        with track("checks", len(rows)) as advance:
            rows, left_out = sift(config.checks, rows, advance)
        digest = json.dumps([digest, dataclasses.astuple(config.checks)])
    vectors = clusters = quality = None
    if config.clustered or config.method == "k_center":
        with track("embedding", len(rows)) as advance:
            vectors, embedded = embed(config.embedding, rows, read_rows, digest, at, advance)
    if config.clustered:
        clusters = cluster(config, vectors, embedded, at.folder, mesh)
    if config.quality is not None and config.method in ("quality", "kmq"):
        with track("quality", len(rows)) as advance:
            quality = score(config.quality, rows, digest, at, advance)
    before = rounds.before(config, rows, clusters, at, track)
    free = before.taken == 0
    if quality is not None:
        free &= np.isfinite(quality)
    if config.budget > free.sum():
        without = int(np.sum(~np.isfinite(quality))) if quality is not None else 0
        raise UserError(
            f"SelectConfig.budget = {config.budget:,}: there are {free.sum():,} rows to take ({len(rows):,} in all, "
            f"{np.sum(before.taken > 0):,} taken before, {without:,} without a quality)"
        )
    try:
        drawn = take(config, vectors, clusters, quality, before, free)
    except ValueError as error:
        raise UserError(str(error)) from error
    return Selection(rows, drawn, before, vectors, clusters, quality, left_out)


def take(
    config: SelectConfig,
    vectors: np.ndarray | None,
    clusters: Clusters | None,
    quality: np.ndarray | None,
    before: Round,
    free: np.ndarray,
) -> np.ndarray:
    """How often each row is taken in this round, int64 [N]; `config.budget` in all.

    Raises:
      ValueError: a quality is no weight.
    """
    rng = np.random.default_rng([config.seed, before.number])
    drawn = np.zeros(len(free), np.int64)
    if clusters is not None:
        room = np.bincount(clusters.labels[free], minlength=clusters.count)
        shares = before.weights if config.refine is not None else shares_of(config, clusters)
        chances = choosing.log_chances(quality, len(free), config.weighing)
        if config.again:
            counts = choosing.allocate(shares, np.where(room > 0, config.budget, 0), config.budget)
            return choosing.draw_again(clusters.labels, counts, np.where(free, chances, -np.inf), rng)
        counts = choosing.allocate(shares, room, config.budget)
        keys = -clusters.distances if config.method == "kmeans_closest" else choosing.random_keys(chances, rng)
        drawn[choosing.draw(clusters.labels, counts, keys, free)] = 1
    elif config.method == "k_center":
        drawn[choosing.k_center(vectors, config.budget, first=int(rng.integers(len(free))))] = 1
    else:
        keys = quality if config.method == "quality" else rng.random(len(free))
        everything = np.zeros(len(free), np.int64)
        drawn[choosing.draw(everything, np.array([config.budget]), keys, free)] = 1
    return drawn
