"""k-means on CPU at equal inertia: `aya_jax.selection.kmeans` against faiss's Kmeans and scikit-learn's MiniBatchKMeans.

    python tools/bench/kmeans.py [--rows 200000] [--width 384] [--clusters 1024] [--threads 2] [--rounds 3]

Rows like embeddings: 2,000 Gaussian groups of unlike sizes and widths, one row in twenty of no group, scaled to length 1.
Each peer runs as its documentation recommends (faiss: 25 iterations, here on all rows, since it takes 256 for each centre;
scikit-learn: its defaults), and faiss with 10 iterations as well. Ours runs by its defaults, and with at most 1 and 2 passes
over the same rows. Every run is a process of its own with so many threads; all take turns in each round.

Seconds are those from the vectors in memory to the label of every row: training and one assignment of all rows, and for ours
the compilation too; imports are not counted. The inertia of each is computed here in one way, from its centres and all rows.
Printed are medians of seconds, of the processor's seconds (which say most where the machine does other things too) and of
inertias; then, for each setting of a peer, how much quicker our quickest setting was among those whose inertia is no larger.
faiss is `pip install faiss-cpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SEED = 1
OURS = {"ours, 1 pass": 1, "ours, 2 passes": 2, "ours": None}
PEERS = ("faiss, 10", "faiss, 25", "scikit-learn")


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=1_024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(*arguments.worker, arguments.clusters, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        np.save(file, embeddings(arguments.rows, arguments.width))
        found: dict[str, list[list[float]]] = {name: [] for name in (*PEERS, *OURS)}
        for turn in range(arguments.rounds):
            for name, runs in found.items():
                runs.append(run(name, file, arguments.clusters, arguments.threads))
                print(f"  round {turn + 1}, {name}: {', '.join(f'{x:.1f}' for x in runs[-1])}", file=sys.stderr)
    print(f"{arguments.rows:,} x {arguments.width}, {arguments.clusters:,} clusters, {arguments.threads} threads")
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    for name, (wall, busy, inertia) in medians.items():
        print(f"  {name:<15} {wall:6.1f} s, {busy:6.1f} s of processor, inertia {inertia:,.0f}")
    for peer in PEERS:
        reaching = [name for name in OURS if medians[name][2] <= medians[peer][2]]
        if not reaching:
            print(f"  none of ours reaches the inertia of {peer}")
            continue
        own = min(reaching, key=lambda name: medians[name][0])
        ratios = [theirs[0] / ours[0] for theirs, ours in zip(found[peer], found[own], strict=True)]
        busy = medians[peer][1] / medians[own][1]
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  {own} against {peer}: {shown} x as quick in the rounds, {busy:.2f} x by processor")


def embeddings(rows: int, width: int, groups: int = 2_000) -> np.ndarray:
    """Vectors [rows, width] in groups, of length 1."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((groups, width), np.float32)
    shares = rng.lognormal(0, 1, groups)
    own = rng.choice(groups, rows, p=shares / shares.sum())
    spreads = rng.uniform(0.4, 1.2, groups).astype(np.float32)
    vectors = rng.standard_normal((rows, width), np.float32) * spreads[own, None] + middles[own]
    alone = rng.random(rows) < 0.05
    vectors[alone] = rng.standard_normal((int(alone.sum()), width), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def run(name: str, file: Path, clusters: int, threads: int) -> list[float]:
    """Seconds, the processor's, and the inertia, of a process."""
    command = [
        sys.executable,
        __file__,
        "--clusters",
        str(clusters),
        "--threads",
        str(threads),
        "--worker",
        name,
        str(file),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def serve(name: str, file: str, clusters: int, threads: int) -> None:
    """One run of one side."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    vectors = np.load(file)
    call = prepare(name, clusters, threads)
    begin, busy = time.perf_counter(), time.process_time()
    centres = call(vectors)
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy
    print(json.dumps([seconds, busy, inertia_of(vectors, centres)]))


def prepare(name: str, clusters: int, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A side's function from vectors to centres, which labels all rows too; imports its library."""
    if name == "scikit-learn":
        from sklearn.cluster import MiniBatchKMeans

        return lambda vectors: MiniBatchKMeans(clusters, random_state=SEED).fit(vectors).cluster_centers_
    if name in OURS:
        from aya_jax.selection.kmeans import kmeans

        limit = {} if OURS[name] is None else {"iterations": OURS[name]}
        return lambda vectors: kmeans(vectors, clusters, seed=SEED, **limit).centres
    import faiss

    faiss.omp_set_num_threads(threads)

    def train(vectors: np.ndarray) -> np.ndarray:
        peer = faiss.Kmeans(vectors.shape[1], clusters, niter=int(name.split()[-1]), seed=SEED)
        peer.train(vectors)
        peer.index.search(vectors, 1)
        return peer.centroids

    return train


def inertia_of(vectors: np.ndarray, centres: np.ndarray) -> float:
    """The sum of squares of all rows' distances to their nearest centres."""
    total, norms = 0.0, np.sum(centres * centres, axis=1)
    for start in range(0, len(vectors), 4_096):
        rows = vectors[start : start + 4_096]
        nearest = centres[np.argmax(2 * rows @ centres.T - norms, axis=1)]
        total += float(np.square(rows - nearest).sum(dtype=np.float64))
    return total


if __name__ == "__main__":
    main()
