"""Embeddings that need no model: n-grams of characters, weighted by how rare they are, hashed into a few hundred dims.

Signed feature hashing keeps inner products in expectation (Weinberger et al. 2009). Characters and not words, so that a
language without spaces is a language like others; case and width of characters do not count.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

_BUCKETS = 1 << 18  # in which n-grams are counted, to see which ones are rare
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LONGEST = 8192  # characters of a text that are looked at


def ngram_hashes(text: str, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint64, counts int64) of a text's different n-grams, one space before and after it."""
    text = " " + " ".join(unicodedata.normalize("NFKC", text[:_LONGEST]).casefold().split()) + " "
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    found = []
    for size in sizes:
        if len(points) >= size:
            hashes = np.full(len(points) - size + 1, np.uint64(size))
            for at in range(size):
                hashes = _mixed(hashes ^ points[at : at + len(hashes)])
            found.append(hashes)
    if not found:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return np.unique(np.concatenate(found), return_counts=True)


def document_frequencies(texts: Iterable[str], sizes: Sequence[int]) -> np.ndarray:
    """In how many texts an n-gram of each bucket occurs, int64 [buckets]."""
    counts = np.zeros(_BUCKETS, np.int64)
    for text in texts:
        hashes, _ = ngram_hashes(text, sizes)
        counts[np.unique(hashes & np.uint64(_BUCKETS - 1)).astype(np.int64)] += 1
    return counts


def embed(texts: Sequence[str], sizes: Sequence[int], dims: int, frequencies: np.ndarray, total: int) -> np.ndarray:
    """Unit vectors, float32 [N, dims]; a text without n-grams is zero.

    Args:
      texts: what.
      sizes: of n-grams, in characters.
      dims: a hash picks one of these, and a sign.
      frequencies: from `document_frequencies`.
      total: texts that were counted there.
    """
    vectors = np.zeros((len(texts), dims), np.float32)
    rarity = np.log((1 + total) / (1 + frequencies)) + 1  # scikit-learn's smooth idf
    for row, text in enumerate(texts):
        hashes, counts = ngram_hashes(text, sizes)
        weights = (1 + np.log(counts)) * rarity[(hashes & np.uint64(_BUCKETS - 1)).astype(np.int64)]
        hashes = _mixed(hashes)
        signed = np.where(hashes >> np.uint64(63), weights, -weights)
        vectors[row] = np.bincount((hashes % np.uint64(dims)).astype(np.int64), weights=signed, minlength=dims)
    return unit(vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [N, D] of length 1; those of length 0 stay so."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Each bit spread over all (the finalizer of MurmurHash3)."""
    hashes = hashes * _PRIME
    hashes ^= hashes >> np.uint64(33)
    hashes = hashes * np.uint64(0xFF51AFD7ED558CCD)
    return hashes ^ (hashes >> np.uint64(33))
