"""Intervals from masks, and attention over them: queries in any order, fewer than the keys, and some that see nothing."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.kernels.attention import BACKENDS, interval_attention
from aya_jax.kernels.attention.intervals import document_bounds, intervals
from aya_jax.kernels.attention.xla_intervals import xla_intervals
from tests.kernels.attention.oracle import arrays, float32, mask_of, oracle, packed_rows

LENGTH = 40
# Small tiles, so that a row has several, and none of them divides it.
TILED = functools.partial(xla_intervals, query_tile=7, key_tile=6)


def check(function, inputs, first, last, mask, atol=5e-6, **options):
    """Output and gradients against the oracle; inputs are query, key, value and the output's gradient."""
    expected = oracle(*inputs[:3], mask, inputs[3], **options)

    @jax.jit
    def run(query, key, value, grad):
        output, back = jax.vjp(lambda *args: function(*args, first, last, **options), query, key, value)
        return output, *back(grad)

    for actual, wanted in zip(run(*float32(*inputs)), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=atol)


def test_document_bounds():
    first, last = document_bounds(jnp.array([[1, 1, 2, 2, 2, 0, 0]]))
    np.testing.assert_array_equal(first, [[0, 0, 2, 2, 2, 5, 5]])
    np.testing.assert_array_equal(last, [[1, 1, 4, 4, 4, 6, 6]])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    packed=st.booleans(),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_intervals_say_what_the_mask_says(lengths, packed, causal, window, seed):
    rows = np.random.default_rng(seed).permutation(LENGTH)[:17].astype(np.int32)
    segments = packed_rows(lengths, LENGTH) if packed else None
    first, last = intervals(segments, jnp.asarray(rows), causal=causal, window=window, length=LENGTH)
    keys = np.arange(LENGTH)
    seen = (np.asarray(first)[..., None] <= keys) & (keys <= np.asarray(last)[..., None])
    expected = mask_of(rows, LENGTH, segments, causal=causal, window=window)
    np.testing.assert_array_equal(seen.reshape(expected.shape), expected)


@pytest.mark.parametrize("function", [TILED, xla_intervals], ids=["tiled", "one tile"])
@pytest.mark.parametrize("options", [{}, {"window": 9}, {"causal": False}, {"causal": False, "window": 5}])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_permuted_queries_fewer_than_the_keys(function, options, heads):
    """What a device of a context-parallel mesh computes: some queries of a row, out of order, against all its keys."""
    inputs = arrays(0, 2, 23, LENGTH, *heads, 8)
    rows = np.random.default_rng(1).permutation(LENGTH)[:23].astype(np.int32)
    segments = np.concatenate([packed_rows([13, 9, 11], LENGTH), packed_rows([4, 30], LENGTH)])
    bounds = intervals(segments, jnp.asarray(rows), **{"causal": True, "window": None, "length": LENGTH, **options})
    check(
        functools.partial(function, scale=8**-0.5, soft_cap=None),
        inputs,
        *bounds,
        mask_of(rows, LENGTH, segments, **options),
    )


@pytest.mark.parametrize("name", [b.name for b in BACKENDS if b.over_intervals and "cpu" in b.platforms])
def test_any_interval_and_none(name):
    """Intervals of no mask: empty ones, of one key, past the ends; each row its own."""
    inputs = arrays(2, 3, 19, 31, 4, 2, 8)
    rng = np.random.default_rng(3)
    first, last = rng.integers(-5, 31, (3, 19)), rng.integers(-2, 40, (3, 19))
    assert (last < first).sum() > 5
    keys = np.arange(31)
    mask = (first[..., None] <= keys) & (keys <= last[..., None])
    assert (mask.sum(-1) == 0).any()
    first, last = (jnp.asarray(bound, jnp.int32) for bound in (first, last))
    check(functools.partial(interval_attention, implementation=name), inputs, first, last, mask)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_scale_and_soft_cap(soft_cap):
    inputs = arrays(4, 2, 17, 29, 4, 2, 8)
    first = jnp.broadcast_to(jnp.arange(17, dtype=jnp.int32) // 2, (2, 17))
    last = first + 11
    keys = np.arange(29)
    mask = (np.asarray(first)[..., None] <= keys) & (keys <= np.asarray(last)[..., None])
    check(TILED, inputs, first, last, mask, scale=1.7, soft_cap=soft_cap, atol=2e-5)


def test_tiles_outside_the_intervals_are_never_read():
    """NaN in keys that no query of a tile sees would spread, through 0 * NaN, if their tile were read."""
    query, key, value, grad = float32(*arrays(5, 1, 14, 36, 2, 1, 8))
    seen = jnp.arange(36) // 6
    hole = ((seen == 1) | (seen == 2) | (seen == 5))[None, :, None, None]
    key, value = (jnp.where(hole, jnp.nan, array) for array in (key, value))
    first = jnp.repeat(jnp.array([0, 18], jnp.int32), 7)[None]
    output, back = jax.vjp(
        lambda *args: TILED(*args, first, first + 5 + (first > 0) * 6, scale=1.0, soft_cap=None), query, key, value
    )
    assert jnp.isfinite(output).all()
    assert all(jnp.isfinite(array).all() for array in back(grad))


def test_bfloat16_stays_near_float64_and_keeps_its_type():
    inputs = [jnp.asarray(array, jnp.bfloat16) for array in arrays(6, 1, 32, 64, 4, 2, 16)]
    rows = jnp.arange(32, 64, dtype=jnp.int32)
    first, last = intervals(None, rows, causal=True, window=None, length=64)
    output, back = jax.vjp(lambda *args: interval_attention(*args, first[None], last[None]), *inputs[:3])
    exact = [np.asarray(array, np.float64) for array in inputs]
    wanted = oracle(*exact[:3], mask_of(rows, 64), exact[3])
    for actual, expected in zip((output, *back(inputs[3])), wanted, strict=True):
        assert actual.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(actual, np.float64), expected, atol=0.03)


def test_a_back_end_without_intervals_is_refused_by_name():
    query, key, value, _ = float32(*arrays(8, 1, 4, 4, 2, 1, 8))
    bound = jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(UserError, match=r"xla: does not honour intervals; choose one of interval, reference"):
        interval_attention(query, key, value, bound, bound, implementation="xla")
