"""Hashed n-grams against counted ones."""

from __future__ import annotations

from collections import Counter

import numpy as np

from aya_jax.selection.hashed_ngrams import document_frequencies, embed, ngram_hashes

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "The quick brown fox jumped over a lazy dog!",
    "Paris est la capitale de la France.",
    "東京は日本の首都です。",
    "東京は日本で一番大きい都市です。",
    "القاهرة عاصمة مصر",
    "",
]


def ngrams(text, sizes):
    text = " " + " ".join(text.casefold().split()) + " "
    return Counter(text[at : at + size] for size in sizes for at in range(len(text) - size + 1))


def test_counts_are_those_of_the_ngrams():
    for text in TEXTS[:-1]:
        _, counts = ngram_hashes(text, (2, 3))
        assert sorted(counts.tolist()) == sorted(ngrams(text, (2, 3)).values())


def test_case_width_and_spaces_do_not_count():
    hashes = ngram_hashes("Ｆｕｌｌ   width", (2,))[0]
    assert np.array_equal(hashes, ngram_hashes("full width", (2,))[0])
    assert not np.array_equal(hashes, ngram_hashes("fullwidth", (2,))[0])


def test_inner_products_are_those_of_exact_tf_idf_vectors():
    sizes, dims = (2, 3, 4), 4096
    counted = [ngrams(text, sizes) for text in TEXTS]
    documents = Counter(ngram for one in counted for ngram in one)
    rarity = {ngram: np.log((1 + len(TEXTS)) / (1 + count)) + 1 for ngram, count in documents.items()}
    names = list(documents)
    exact = np.array([[(1 + np.log(c[n])) * rarity[n] if c[n] else 0.0 for n in names] for c in counted])
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    exact = np.divide(exact, norms, out=exact, where=norms > 0)
    vectors = embed(TEXTS, sizes, dims, document_frequencies(TEXTS, sizes), len(TEXTS))
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), dims)
    # Hashing keeps inner products up to noise of about one over the root of the number of dims.
    np.testing.assert_allclose(vectors @ vectors.T, exact @ exact.T, atol=5 / np.sqrt(dims))
