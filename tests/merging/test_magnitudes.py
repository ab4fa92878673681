"""The k largest entries, against NumPy's stable sort."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.merging import magnitudes
from aya_jax.merging.magnitudes import count_at_least, find_cuts, magnitude_bits, ranks


def pieces_of(array, rows, columns):
    """[R, C] each, zeros after the end."""
    size = rows * columns
    padded = np.concatenate([array, np.zeros(-len(array) % size, np.float32)])
    return [jnp.asarray(part.reshape(rows, columns)) for part in np.split(padded, len(padded) // size)]


def held(array, ks, last, rows, columns):
    """Masks of the k largest entries, and the cuts."""
    pieces = pieces_of(array, rows, columns)
    cuts = find_cuts(lambda number: magnitude_bits(pieces[number]), len(pieces), len(array), ks, last=last)
    masks = [
        np.concatenate([np.asarray(cut.at(number).holds(piece)).reshape(-1) for number, piece in enumerate(pieces)])
        for cut in cuts
    ]
    return [mask[: len(array)] for mask in masks], cuts


def by_sorting(array, k, last):
    order = np.argsort(np.abs(array), kind="stable")[::-1] if last else np.argsort(-np.abs(array), kind="stable")
    mask = np.zeros(len(array), bool)
    mask[order[:k]] = True
    return mask


ENTRIES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 3e38]), st.floats(-1000, 1000, width=32, allow_subnormal=False)
)


@pytest.mark.parametrize(("few", "sample"), [(1 << 24, 1 << 14), (1 << 24, 16), (4, 16), (0, 1 << 14)])
@settings(deadline=None, max_examples=40)
@given(st.lists(ENTRIES, min_size=1, max_size=90), st.data())
def test_the_k_largest_are_those_of_a_stable_sort(few, sample, entries, data):
    """Kept at once, kept between a sample's bounds, or counted."""
    array = np.array(entries, np.float32)
    ks = data.draw(st.lists(st.integers(0, len(array)), min_size=1, max_size=3))
    last = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(magnitudes, "_FEW", few)
        patch.setattr(magnitudes, "_SAMPLE", sample)
        patch.setattr(magnitudes, "_DEVIATIONS", 0.5)  # so that samples are wrong at times
        masks, _ = held(array, ks, last, 4, 8)
    for k, mask in zip(ks, masks, strict=True):
        np.testing.assert_array_equal(mask, by_sorting(array, k, last))


@pytest.mark.parametrize("distinct", [2, 40, 1 << 20])
@pytest.mark.parametrize("last", [False, True])
def test_many_equals_over_many_pieces(distinct, last):
    rng = np.random.default_rng(distinct)
    array = (rng.integers(-distinct, distinct, 150_001) / distinct).astype(np.float32)
    ks = [1, 1500, 75_000, 150_001]
    masks, _ = held(array, ks, last, 16, 256)
    for k, mask in zip(ks, masks, strict=True):
        np.testing.assert_array_equal(mask, by_sorting(array, k, last))


def test_a_sample_that_misleads_costs_passes_and_no_entry():
    """The pieces that are sampled hold ones, and the others hundreds."""
    array = np.full(17 * 4096, 1.0, np.float32).reshape(17, 4096)
    sampled = np.unique(np.linspace(0, 16, 8).astype(int))
    others = [number for number in range(17) if number not in sampled]
    array[others] = np.random.default_rng(0).uniform(100, 200, (len(others), 4096))
    array = array.reshape(-1)
    masks, _ = held(array, [5000, 60_000], False, 16, 256)
    for k, mask in zip([5000, 60_000], masks, strict=True):
        np.testing.assert_array_equal(mask, by_sorting(array, k, False))


def test_an_ordinary_tensor_takes_a_sample_and_one_pass():
    array = np.random.default_rng(0).normal(size=20 * 4096).astype(np.float32)
    pieces = pieces_of(array, 16, 256)
    asked = []

    def piece(number):
        asked.append(number)
        return magnitude_bits(pieces[number])

    find_cuts(piece, len(pieces), len(array), [40_000])
    assert len(asked) == len(pieces) + 8


def test_a_cut_shares_its_equals_out_in_order():
    array = np.ones(12, np.float32)
    (first,) = held(array, [5], False, 1, 4)[1]
    (last,) = held(array, [5], True, 1, 4)[1]
    assert [first.quota(piece) for piece in range(3)] == [4, 1, 0]
    assert [last.quota(piece) for piece in range(3)] == [0, 1, 4]


def test_counts_are_numpys():
    array = np.random.default_rng(1).normal(size=(32, 64)).astype(np.float32)
    bits = np.abs(array).view(np.int32)
    steps = np.sort(np.random.default_rng(2).choice(bits.reshape(-1), 15))
    found = count_at_least(jnp.asarray(bits), jnp.asarray(steps))
    np.testing.assert_array_equal(found, [(bits >= step).sum() for step in steps])


@pytest.mark.parametrize("columns", [1, 7, 300])
def test_ranks_are_those_of_a_stable_sort_on_the_host_and_on_the_devices(columns):
    array = np.random.default_rng(columns).choice(np.array([0, 1, -1, 2.5, -2.5, 3], np.float32), (5, columns))
    expected = np.empty(array.shape, np.int32)
    for row, order in enumerate(np.argsort(np.abs(array), axis=1, kind="stable")):
        expected[row, order] = np.arange(columns)
    np.testing.assert_array_equal(ranks(jnp.asarray(array)), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(magnitudes, "_on_cpu", lambda array: False)
        np.testing.assert_array_equal(ranks(jnp.asarray(array)), expected)
