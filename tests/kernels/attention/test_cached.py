"""Kept keys and values against NumPy in float64 over the whole sequence."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.kernels.attention import cached
from aya_jax.kernels.attention.cached import cache_size, cached_attention, read, ring_positions
from aya_jax.parallel.config import LogicalAxes

ROWS, HEADS, KV_HEADS, HEAD_DIM = 3, 4, 2, 8


@pytest.fixture(autouse=True, params=["positions last", "positions first"])
def _layout(request, monkeypatch):
    """Both ways in which keys lie: a CPU's, and other devices'."""
    monkeypatch.setattr(cached, "positions_last", lambda: request.param == "positions last")


def whole(query, key, value, window):
    """float64 causal attention [R, S, H, hd] over a whole sequence."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    key, value = (np.repeat(array, HEADS // KV_HEADS, axis=2) for array in (key, value))
    scores = np.einsum("rqhd,rkhd->rhqk", query, key) * HEAD_DIM**-0.5
    index = np.arange(query.shape[1])
    seen = index <= index[:, None]
    if window is not None:
        seen &= index > index[:, None] - window
    weights = np.exp(np.where(seen, scores, -np.inf) - np.max(np.where(seen, scores, -np.inf), axis=-1, keepdims=True))
    return np.einsum("rhqk,rkhd->rqhd", weights / weights.sum(-1, keepdims=True), value)


def arrays(length, seed=0):
    rng = np.random.default_rng(seed)
    return [
        jnp.asarray(rng.normal(size=(ROWS, length, heads, HEAD_DIM)), jnp.float32)
        for heads in (HEADS, KV_HEADS, KV_HEADS)
    ]


def empty(size, rows=ROWS):
    return cached.empty(rows, KV_HEADS, HEAD_DIM, size, jnp.float32)


def in_blocks(key, value, block=16):
    """A cache of keys and values [R, W, KV, hd]."""
    rows, size = key.shape[:2]
    key, value = (a.transpose(0, 2, 1, 3).reshape(rows, KV_HEADS, size // block, block, HEAD_DIM) for a in (key, value))
    return key.swapaxes(3, 4) if cached.positions_last() else key, value


def in_order(keys, values):
    """Keys and values [R, KV, W, hd] of a cache."""
    keys = np.asarray(keys).swapaxes(3, 4) if cached.positions_last() else np.asarray(keys)
    return (np.reshape(a, (*a.shape[:2], -1, HEAD_DIM)) for a in (keys, np.asarray(values)))


@pytest.mark.parametrize("window", [None, 5, 40])
@pytest.mark.parametrize("small_tiles", [False, True])
def test_chunks_and_single_tokens_equal_the_whole_sequence(window, small_tiles, monkeypatch):
    if small_tiles:  # several tiles to a cache, and a ring that goes round
        monkeypatch.setattr(cached, "tile_size", lambda size, queries: 32)
        monkeypatch.setattr(cached, "block_size", lambda size: 16)
    length, chunk = 150, 24
    query, key, value = arrays(length)
    size = 160 if window is None else -(-(window - 1 + chunk) // 32) * 32
    attend = jax.jit(functools.partial(cached_attention, rows=None, rules=LogicalAxes(), window=window))
    cache, outputs, at = empty(size), [], 0
    while at < length:
        count = chunk if at < 96 else 1
        part = slice(at, at + count)
        positions = jnp.broadcast_to(jnp.arange(at, at + count, dtype=jnp.int32), (ROWS, count))
        new = query[:, part], key[:, part], value[:, part]
        output, cache = attend(*new, cache, positions=positions, valid=jnp.ones((ROWS, count), bool))
        outputs.append(output)
        at += count
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), whole(query, key, value, window), atol=2e-6)


def test_rows_at_different_places_and_padding_do_not_meet():
    """Two sequences of a cache of four get tokens; the others, and what is padding, leave no trace."""
    query, key, value = arrays(12)
    before = tuple(array + 7 for array in empty(128, rows=4))
    positions = jnp.asarray([np.arange(12), np.arange(12)], jnp.int32)
    valid = jnp.asarray([[True] * 12, [True] * 5 + [False] * 7])
    output, (keys, values) = cached_attention(
        query[:2],
        key[:2],
        value[:2],
        before,
        rows=jnp.asarray([3, 1], jnp.int32),
        positions=positions,
        valid=valid,
        rules=LogicalAxes(),
        window=None,
    )
    expected = whole(query[:2], key[:2], value[:2], None)
    np.testing.assert_allclose(output[0], expected[0], atol=2e-6)
    np.testing.assert_allclose(output[1, :5], expected[1, :5], atol=2e-6)
    keys, values = in_order(keys, values)
    np.testing.assert_array_equal(values[3, :, :12], np.asarray(value[0]).swapaxes(0, 1))
    np.testing.assert_array_equal(keys[1, :, :5], np.asarray(key[1, :5]).swapaxes(0, 1))
    for untouched in (keys[0], keys[2], keys[1, :, 5:], values[0], values[2], values[1, :, 5:], values[3, :, 12:]):
        assert np.all(np.asarray(untouched) == 7)


def test_a_row_has_the_same_bits_however_long_its_neighbours_are(monkeypatch):
    monkeypatch.setattr(cached, "tile_size", lambda size, queries: 32)
    query, key, value = arrays(224)
    keys, values = in_blocks(key, value)

    # Lengths are an argument, as in the engine: of constants the compiler makes another program for each.
    @jax.jit
    def attend(lengths):
        return read(query[:, :1], keys, values, lengths[:, None] - 1, lengths, window=None, scale=0.3)

    def of_first_row(lengths):
        return np.asarray(attend(jnp.asarray(lengths, jnp.int32))[0])

    np.testing.assert_array_equal(of_first_row([30, 30, 30]), of_first_row([30, 200, 1]))
    assert not np.array_equal(of_first_row([30, 30, 30]), of_first_row([31, 30, 30]))


def test_a_span_reads_what_a_search_for_it_would(monkeypatch):
    monkeypatch.setattr(cached, "tile_size", lambda size, queries: 32)
    query, key, value = arrays(64)
    keys, values = in_blocks(key, value)
    lengths = jnp.asarray([40, 17, 1], jnp.int32)
    found, given_ = (
        read(query[:, :1], keys, values, lengths[:, None] - 1, lengths, window=None, scale=0.3, span=span)
        for span in (None, 64)
    )
    np.testing.assert_array_equal(found, given_)


def test_nothing_seen_gives_zero():
    query, key, value = arrays(8)
    keys, values = in_blocks(key, value, block=8)
    output = read(
        query[:, :1], keys, values, jnp.zeros((ROWS, 1), jnp.int32), jnp.zeros(ROWS, jnp.int32), window=None, scale=1.0
    )
    np.testing.assert_array_equal(output, np.zeros_like(output))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(1, 20))
def test_ring_positions_are_those_that_writing_in_order_leaves(length, size):
    ring = np.full(size, -1)
    for position in range(length):
        ring[position % size] = position
    found = np.asarray(ring_positions(jnp.int32(length), jnp.arange(size, dtype=jnp.int32), size))
    np.testing.assert_array_equal(np.where(found < 0, -1, found), ring)


@settings(deadline=None)
@given(st.integers(1, 20_000))
def test_a_cache_holds_what_is_needed_and_divides_into_tiles(needed):
    size = cache_size(needed)
    assert needed <= size < needed + 256
    block = cached.block_size(size)
    for queries in (1, 128):
        assert size % cached.tile_size(size, queries) == cached.tile_size(size, queries) % block == 0
