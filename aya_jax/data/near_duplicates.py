"""Near-duplicate texts in any script: MinHash signatures (Broder 1997), candidates by bands, verified, joined into groups.

A text is its set of shingles: every run of a few characters after `normalize`. Characters and not words, so that Chinese or
Thai, which put no space between words, need no segmenter and mixed text no choice; a changed word costs a text in a spaced
script about as much as a changed word of two characters costs a Chinese one.

Own code: numpy on code points takes a third of the time of rensa, the quickest library, which takes shingles as Python strings.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from aya_jax.config import UserError

_BATCH = 1 << 16  # characters whose shingles are worked on at once: they stay in the processor's cache
_PAIRS = 1 << 13  # whose signatures are compared at once
_FOUND = 0.99  # of the pairs that are just as similar as asked for, the share that bands must find
_PADDING = "\U0010ffff"  # no character, so no text has it
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, near 2^64 over the golden ratio
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))  # MurmurHash3's finalizer


def near_duplicates(
    texts: Iterable[str], *, threshold: float = 0.8, permutations: int = 128, shingle: int = 5, seed: int = 0
) -> np.ndarray:
    """Which earlier text each one nearly repeats, int64 [N]: the number of the first of its group, which may be its own.

    Two texts are joined where their estimated Jaccard similarity reaches the threshold, and a group is what is connected by
    joins: its ends may be less alike. The estimate's standard deviation is sqrt(J (1 - J) / permutations), 0.035 at 0.8 with
    128. A pair at the threshold is compared at all with a probability of 99 % or more, a more similar one with a higher one;
    equal texts always are. Texts without any character but whitespace are equal. Order matters only for who is a group's first.

    Texts are read once and not kept: memory is 4 * permutations bytes a text, twice. Time is linear in the text, and quadratic
    in texts that are about as alike as the threshold without reaching it, such as thousands of fillings of one long template.

    Args:
      texts: any number.
      threshold: Jaccard similarity of sets of shingles, above 0, at most 1.
      permutations: values of a signature.
      shingle: characters of one; a shorter text is compared whole.
      seed: of the permutations.

    Raises:
      UserError: a number is out of its range.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"threshold = {threshold}: give a similarity above 0 and at most 1, such as 0.8")
    found, numbers = _unique_rows(signatures(texts, permutations=permutations, shingle=shingle, seed=seed))
    group = np.arange(len(found))
    least = np.ceil(threshold * permutations - 1e-9)  # values that agree
    count, rows = bands(threshold, permutations)
    for band in range(count):
        group = _join_band(found, _keys(found[:, band * rows : (band + 1) * rows]), group, least)
    return _firsts(group[numbers])


def normalize(text: str) -> str:
    """What is compared of a text: compatibility forms (NFKC) without case, runs of whitespace as one space, none at an end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(how many bands, values of each) that find a pair at the threshold with a probability of 99 %, the longest ones.

    Two texts of similarity s agree in one of b bands of r values at least with the probability 1 - (1 - s^r)^b (Leskovec,
    Rajaraman and Ullman, Mining of Massive Datasets, 3.4). Longer bands bring fewer pairs that are not similar enough. Where no
    bands find so many, for want of permutations, they are single values.
    """
    for rows in range(permutations, 1, -1):
        if 1 - (1 - threshold**rows) ** (permutations // rows) >= _FOUND:
            return permutations // rows, rows
    return permutations, 1


def signatures(texts: Iterable[str], *, permutations: int = 128, shingle: int = 5, seed: int = 0) -> np.ndarray:
    """MinHash values, uint32 [N, permutations]: two texts agree in each with the probability of their Jaccard similarity.

    A permutation orders hashes h by a h + b modulo 2^32, a odd. For hashes that are as good as random, estimates scatter
    as those from random permutations do.

    Raises:
      UserError: no permutations, or no character in a shingle.
    """
    for name, value in (("permutations", permutations), ("shingle", shingle)):
        if value < 1:
            raise UserError(f"{name} = {value}: give 1 or more")
    random = np.random.default_rng(seed)
    odd = random.integers(0, 1 << 32, permutations, np.uint32) | np.uint32(1)
    shift = random.integers(0, 1 << 32, permutations, np.uint32)
    made = [np.empty((0, permutations), np.uint32)]
    for batch in _batches(texts, shingle):
        hashes, starts = _shingles(batch, shingle)
        values, found = np.empty_like(hashes), np.empty((permutations, len(batch)), np.uint32)
        for number in range(permutations):
            np.multiply(hashes, odd[number], out=values)
            values += shift[number]
            np.minimum.reduceat(values, starts, out=found[number])
        made.append(np.ascontiguousarray(found.T))
    return np.concatenate(made)


def _batches(texts: Iterable[str], shingle: int) -> Iterator[list[str]]:
    """Normalized texts, short ones padded to a shingle."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(normalize(text).ljust(shingle, _PADDING))
        size += len(batch[-1])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _shingles(texts: list[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """(hashes of all shingles, uint32; where each text's begin)."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    lengths = np.array([len(text) for text in texts])
    windows = len(points) - size + 1
    hashes = np.zeros(windows, np.uint64)
    for place in range(size):
        hashes *= _BASE
        hashes += points[place : place + windows]
    for factor in _MIX:
        hashes ^= hashes >> np.uint64(33)
        hashes *= factor
    within = np.arange(windows) + size <= np.repeat(np.cumsum(lengths), lengths)[:windows]
    counts = lengths - size + 1
    return (hashes >> np.uint64(32)).astype(np.uint32)[within], np.cumsum(counts) - counts


def _unique_rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows that differ, the number among them of each row)."""
    whole = np.ascontiguousarray(values).view(np.dtype((np.void, values.shape[1] * values.itemsize)))[:, 0]
    _, first, numbers = np.unique(whole, return_index=True, return_inverse=True)
    return values[first], numbers


def _keys(band: np.ndarray) -> np.ndarray:
    """A hash of each row, uint64 [N]; rows that agree by chance are told apart when their pair is verified."""
    keys = np.zeros(len(band), np.uint64)
    for column in band.T:
        keys = (keys ^ column) * _BASE
        keys ^= keys >> np.uint64(29)
    return keys


def _join_band(found: np.ndarray, keys: np.ndarray, group: np.ndarray, least: float) -> np.ndarray:
    """Joins groups by the pairs of equal keys that are similar enough: in order of keys, neighbours first, then next but one...

    Memory is that of as many pairs as there are rows. Pairs within a group are not compared. Groups are joined whenever the
    distance has doubled, and then buckets of one group are left: a bucket of a thousand copies takes a few passes.
    """
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(np.diff(keys[order])) + 1
    starts = np.concatenate([[0], ends])
    sizes = np.diff(np.concatenate([starts, [len(order)]]))
    bucket, last = np.repeat(np.arange(len(starts)), sizes), np.repeat(starts + sizes, sizes)
    at, distance, similar = np.arange(len(order)), 0, [np.empty((2, 0), np.int64)]
    while at.size:
        distance += 1
        at = at[at + distance < last[at]]
        left, right = order[at], order[at + distance]
        apart = group[left] != group[right]
        pairs = np.stack([left[apart], right[apart]])
        similar.append(pairs[:, _agreeing(found, pairs) >= least])
        if distance & (distance - 1) == 0 or not at.size:
            group = _join(group, np.concatenate(similar, axis=1))
            similar = [np.empty((2, 0), np.int64)]
            of_row = group[order]
            settled = np.minimum.reduceat(of_row, starts) == np.maximum.reduceat(of_row, starts)
            at = at[~settled[bucket[at]]]
    return group


def _agreeing(found: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """In how many values the rows of each pair agree, [pairs]."""
    parts = [pairs[:, start : start + _PAIRS] for start in range(0, pairs.shape[1], _PAIRS)]
    counts = [np.count_nonzero(found[left] == found[right], axis=1) for left, right in parts]
    return np.concatenate([np.empty(0, np.int64), *counts])


def _join(group: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Groups with those that pairs connect made one; a group's number is its first row."""
    if not pairs.size:
        return group
    ends = np.concatenate([pairs, np.stack([np.arange(len(group)), group])], axis=1)
    graph = coo_array((np.ones(ends.shape[1], bool), ends), shape=(len(group),) * 2)
    return _firsts(connected_components(graph, directed=False)[1])


def _firsts(labels: np.ndarray) -> np.ndarray:
    """The number of the first row with the same label, int64 [N]."""
    _, first, numbers = np.unique(labels, return_index=True, return_inverse=True)
    return first[numbers].astype(np.int64)
