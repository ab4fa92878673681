"""Near-duplicates of 100,000 invented rows of about 500 characters in six scripts, beside datasketch on a part of them.

    python tools/bench/near_duplicates.py [--rows 100000] [--sample 4000] [--rounds 3] [--threshold 0.8]

A tenth of the rows are copies of others with a span of words replaced, so that their Jaccard similarities, counted by Python
sets, lie between about 0.5 and 1. Both sides make 128 values for the same sets of characters; datasketch's
candidates are verified by the same estimate as ours. Prints seconds (medians; the peer's and ours on the sample in turn),
rows per second, their ratio, the process's peak memory, and which planted pairs are found by similarity. datasketch is no
dependency of the project: without it, ours are measured alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import resource
from collections.abc import Sequence
from statistics import median

import numpy as np
from turns import seconds

from aya_jax.data.near_duplicates import near_duplicates, normalize

_PERMUTATIONS = 128
_SHINGLE = 5
_LENGTH = 500  # characters of a row
# (first letter, how many, characters of a word, what stands between words)
_SCRIPTS = (
    ("a", 26, 6, " "),
    ("а", 32, 7, " "),
    ("ا", 36, 5, " "),
    ("क", 30, 4, " "),
    ("一", 3000, 2, ""),
    ("ก", 40, 4, ""),
)
_VOCABULARY = 20_000  # words of a script, used as often as Zipf has it
_EDGES = (0.0, 0.7, 0.75, 0.8, 0.85, 0.9, 1.01)


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=4_000, help="rows that datasketch reads")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threshold", type=float, default=0.8)
    arguments = parser.parse_args()
    rows, planted = invented(arguments.rows)
    similar = np.array([jaccard(rows[copy], rows[of]) for copy, of in planted])
    length = sum(map(len, rows)) / len(rows)
    print(
        f"{len(rows):,} rows of {length:.0f} characters, {len(planted):,} of them copies; threshold {arguments.threshold}"
    )

    groups: list[np.ndarray] = []
    whole = median(seconds(lambda: groups.append(ours(rows, arguments.threshold))) for _ in range(arguments.rounds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"ours, all rows: {whole:.2f} s, {len(rows) / whole:,.0f} rows/s, peak {peak:,.0f} MiB with the rows")
    found(groups[0], rows, planted, similar, arguments.threshold)

    if importlib.util.find_spec("datasketch") is None:
        print("datasketch is not installed here: no comparison")
        return
    sample = rows[: arguments.sample]
    times: dict[str, list[float]] = {"ours": [], "datasketch": []}
    pairs: list[set[tuple[int, int]]] = []
    for _ in range(arguments.rounds):
        times["ours"].append(seconds(lambda: ours(sample, arguments.threshold)))
        times["datasketch"].append(seconds(lambda: pairs.append(theirs(sample, arguments.threshold))))
    own, peer = median(times["ours"]), median(times["datasketch"])
    print(f"{len(sample):,} rows: ours {own:.2f} s, datasketch {peer:.2f} s ({len(sample) / peer:,.0f} rows/s)")
    print("  datasketch / ours: " + ", ".join(f"{b / a:.0f}" for a, b in zip(*times.values(), strict=True)))
    print(f"  datasketch on {len(rows):,} rows, if its time is linear: {peer * len(rows) / len(sample):,.0f} s")
    inside = [
        n for n, (copy, of) in enumerate(planted) if max(copy, of) < len(sample) and similar[n] >= arguments.threshold
    ]
    of_peer = sum(tuple(sorted(planted[n])) in pairs[0] for n in inside)
    of_ours = sum(groups[0][planted[n][0]] == groups[0][planted[n][1]] for n in inside)
    print(f"  of {len(inside)} planted pairs at the threshold or above: ours {of_ours}, datasketch {of_peer}")


def ours(rows: Sequence[str], threshold: float) -> np.ndarray:
    """What is measured."""
    return near_duplicates(rows, threshold=threshold, permutations=_PERMUTATIONS, shingle=_SHINGLE)


def theirs(rows: Sequence[str], threshold: float) -> set[tuple[int, int]]:
    """The pairs that datasketch finds, by its defaults for bands, and whose estimate reaches the threshold."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)
    sets = ([shingle.encode() for shingle in shingles(row)] for row in rows)
    made = list(MinHash.generator(sets, num_perm=_PERMUTATIONS))
    pairs = set()
    for number, minhash in enumerate(made):
        near = (other for other in index.query(minhash) if minhash.jaccard(made[other]) >= threshold)
        pairs |= {(other, number) for other in near}
        index.insert(number, minhash)
    return pairs


def found(
    group: np.ndarray, rows: Sequence[str], planted: Sequence[tuple[int, int]], similar: np.ndarray, threshold: float
) -> None:
    """Prints the share of planted pairs that are joined, by their similarity, and of joined rows that are similar enough."""
    joined = np.array([group[copy] == group[of] for copy, of in planted])
    for low, high in itertools.pairwise(_EDGES):
        inside = (similar >= low) & (similar < high)
        share = f"{joined[inside].mean():.1%}" if inside.any() else "none"
        print(f"  planted at {low:.2f} to {min(high, 1):.2f}: {inside.sum():,} pairs, joined {share}")
    copies = np.flatnonzero(group != np.arange(len(group)))
    exact = np.array([jaccard(rows[row], rows[group[row]]) for row in copies])
    above = similar >= threshold
    print(f"  recall {joined[above].mean():.2%}, precision {np.mean(exact >= threshold):.2%}")
    print(
        f"  precision at 0.05 less: {np.mean(exact >= threshold - 0.05):.2%}; least similar joined row {exact.min():.3f}"
    )


def invented(count: int, seed: int = 0) -> tuple[list[str], list[tuple[int, int]]]:
    """(rows in turn in each script, (copy, original) of those that are copies)."""
    random = np.random.default_rng(seed)
    words = [vocabulary(random, *script[:3]) for script in _SCRIPTS]
    weights = 1 / np.arange(1, _VOCABULARY + 1)
    weights /= weights.sum()
    rows, planted, made = [], [], []
    for number in range(count):
        script = number % len(_SCRIPTS)
        _, _, size, between = _SCRIPTS[script]
        length = _LENGTH // (size + len(between))
        if number % 10 == 9 and number >= 2 * len(_SCRIPTS):
            of = number - len(_SCRIPTS)
            ids = made[of].copy()
            span = int(length * random.uniform(0.0, 0.3))
            start = random.integers(0, length - span + 1)
            ids[start : start + span] = random.choice(_VOCABULARY, span, p=weights)
            planted.append((number, of))
        else:
            ids = random.choice(_VOCABULARY, length, p=weights)
        made.append(ids)
        rows.append(between.join(words[script][id_] for id_ in ids))
    return rows, planted


def vocabulary(random: np.random.Generator, first: str, letters: int, size: int) -> list[str]:
    """Invented words of a script."""
    points = ord(first) + random.integers(0, letters, (_VOCABULARY, size))
    return ["".join(map(chr, word)) for word in points]


def jaccard(left: str, right: str) -> float:
    """Similarity of two rows, exactly."""
    sets = shingles(left), shingles(right)
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def shingles(row: str) -> set[str]:
    """What is compared."""
    text = normalize(row)
    return {text[start : start + _SHINGLE] for start in range(max(1, len(text) - _SHINGLE + 1))}


if __name__ == "__main__":
    main()
