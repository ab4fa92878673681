"""kMQ over a million rows whose embeddings and clusters are given: budgets, chances and the draw.

    python tools/bench/kmq.py [--rows 1000000] [--clusters 1024] [--rounds 5]

Beside it, in turn, what a reader of the paper would write first: a loop over clusters with numpy's weighted choice without
replacement. Prints medians of seconds and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from aya_jax.selection.choosing import allocate, draw, log_chances, random_keys


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    labels = rng.zipf(1.5, arguments.rows) % arguments.clusters  # clusters of very different sizes
    quality, budget = rng.random(arguments.rows), arguments.rows // 20
    times: dict[Callable, list[float]] = {ours: [], loop: []}
    for _ in range(arguments.rounds):
        for function, seconds in times.items():
            begin = time.perf_counter()
            chosen = function(labels, quality, arguments.clusters, budget)
            seconds.append(time.perf_counter() - begin)
            assert len(np.unique(chosen)) == budget
    mine, theirs = (statistics.median(seconds) for seconds in times.values())
    print(
        f"{budget:,} of {arguments.rows:,} rows in {arguments.clusters:,} clusters: {mine:.2f} s, a loop over clusters with "
        f"numpy's choice {theirs:.2f} s, ratio {theirs / mine:.1f}"
    )


def ours(labels: np.ndarray, quality: np.ndarray, clusters: int, budget: int) -> np.ndarray:
    """As `aya select` does it."""
    sizes = np.bincount(labels, minlength=clusters)
    keys = random_keys(log_chances(quality, len(labels), "linear"), np.random.default_rng(0))
    return draw(labels, allocate(sizes, sizes, budget), keys)


def loop(labels: np.ndarray, quality: np.ndarray, clusters: int, budget: int) -> np.ndarray:
    """Cluster by cluster."""
    sizes, rng = np.bincount(labels, minlength=clusters), np.random.default_rng(0)
    counts = allocate(sizes, sizes, budget)
    chosen = []
    for cluster in range(clusters):
        own = np.flatnonzero(labels == cluster)
        if counts[cluster]:
            chosen.append(rng.choice(own, counts[cluster], replace=False, p=quality[own] / quality[own].sum()))
    return np.concatenate(chosen)


if __name__ == "__main__":
    main()
