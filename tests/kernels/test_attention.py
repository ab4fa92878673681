"""Every attention back-end against NumPy in float64: values, gradients, packing, leaks and refusals."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.kernels.attention import BACKENDS, attention, choose
from aya_jax.kernels.attention.dispatch import Backend
from aya_jax.kernels.attention.xla import first_keys

RUNNABLE = [backend.name for backend in BACKENDS if jax.default_backend() in backend.platforms]


def oracle(query, key, value, segments, causal, window):
    """Loops over rows and heads, in float64."""
    batch, length, heads, width = query.shape
    groups = heads // key.shape[2]
    output = np.zeros(query.shape)
    for b in range(batch):
        for h in range(heads):
            for q in range(length):
                keys = [
                    k
                    for k in range(length)
                    if (k <= q or not causal)
                    and (window is None or abs(q - k) < window)
                    and (segments is None or segments[b, k] == segments[b, q])
                ]
                scores = key[b, keys, h // groups] @ query[b, q, h] / np.sqrt(width)
                weights = np.exp(scores - scores.max())
                output[b, q, h] = weights / weights.sum() @ value[b, keys, h // groups]
    return output


def arrays(seed, batch, length, heads, kv_heads, width):
    rng = np.random.default_rng(seed)
    shapes = ((heads,), (kv_heads,), (kv_heads,))
    return [rng.normal(size=(batch, length, *shape, width)) for shape in shapes]


def float32(*values):
    return [jnp.asarray(value, jnp.float32) for value in values]


def packed_rows(lengths, total):
    """Segment ids int32 [1, total]: documents 1, 2... of the given lengths, then padding 0."""
    ids = np.concatenate([np.full(length, index + 1) for index, length in enumerate(lengths)])
    return np.pad(ids, (0, total - len(ids)))[None].astype(np.int32)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_values_equal_float64_loops(name, window, segments, heads):
    query, key, value = arrays(0, 2, 19, *heads, 8)
    ids = np.repeat(packed_rows([7, 4, 5], 19), 2, axis=0) if segments else None
    expected = oracle(query, key, value, ids, True, window)
    actual = attention(*float32(query, key, value), segment_ids=ids, window=window, implementation=name)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("window", [None, 6])
def test_attention_to_both_sides(name, window):
    query, key, value = arrays(1, 1, 17, 4, 2, 8)
    expected = oracle(query, key, value, None, False, window)
    actual = attention(*float32(query, key, value), causal=False, window=window, implementation=name)
    np.testing.assert_allclose(actual, expected, atol=2e-6)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("window", [None, 150])
def test_several_tiles_with_gradients(name, window):
    """Longer than a tile of queries; the gradients' oracle is central differences in float64."""
    length = 270
    query, key, value = arrays(2, 1, length, 2, 1, 4)
    ids = packed_rows([90, 130, 30], length)
    rng = np.random.default_rng(3)
    cotangent = rng.normal(size=query.shape)

    def loss(*args):
        output = attention(*args, segment_ids=ids, window=window, implementation=name)
        return jnp.sum(output * jnp.asarray(cotangent, jnp.float32))

    np.testing.assert_allclose(
        attention(*float32(query, key, value), segment_ids=ids, window=window, implementation=name),
        oracle(query, key, value, ids, True, window),
        atol=3e-6,
    )
    grads = jax.grad(loss, argnums=(0, 1, 2))(*float32(query, key, value))
    for index, grad in enumerate(grads):
        direction = rng.normal(size=grad.shape)
        shifted = []
        for sign in (1, -1):
            inputs = [query, key, value]
            inputs[index] = inputs[index] + sign * 1e-5 * direction
            shifted.append(np.sum(oracle(*inputs, ids, True, window) * cotangent))
        expected = (shifted[0] - shifted[1]) / 2e-5
        np.testing.assert_allclose(np.sum(np.asarray(grad, np.float64) * direction), expected, rtol=2e-5, atol=1e-4)


@functools.cache
def compiled(name, packed):
    """(loss, outputs) and gradients of one row of packed documents, or of one document per row."""

    @jax.jit
    def run(weight, segment_ids, *args):
        def loss(*args):
            output = attention(*args, segment_ids=segment_ids if packed else None, implementation=name)
            return jnp.sum(output * weight), output

        return jax.grad(loss, (0, 1, 2), has_aux=True)(*args)

    return run


@pytest.mark.parametrize("name", RUNNABLE)
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=4, max_size=4), seed=st.integers(0, 2**16))
def test_packed_equals_unpacked_forward_and_gradient(name, lengths, seed):
    ends = np.cumsum(lengths)
    used, starts = ends[-1], ends - lengths
    query, key, value = float32(*arrays(seed, 1, 40, 4, 2, 8))
    weight = jnp.asarray(np.random.default_rng(seed).normal(size=query.shape), jnp.float32).at[:, used:].set(0)

    def rows(array):
        """[1, 40, ...] -> [4, 40, ...]: a document per row, from its start; what follows it is of no weight."""
        out = np.zeros((4, *array.shape[1:]), np.float32)
        for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            out[index, :length] = array[0, start : start + length]
        return jnp.asarray(out)

    def row(array):
        """The inverse of `rows`."""
        return np.concatenate([array[index, :length] for index, length in enumerate(lengths)])

    grads, output = compiled(name, True)(weight, packed_rows(lengths, 40), query, key, value)
    expected_grads, expected = compiled("reference", False)(rows(weight), None, *map(rows, (query, key, value)))
    np.testing.assert_allclose(output[0, :used], row(expected), atol=2e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad[0, :used], row(expected_grad), atol=5e-6)
        assert not np.any(grad[0, used:])


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_document_does_not_leak_into_the_next(name):
    """Everything of document A changes; not one bit of B's and of the padding's outputs does."""
    query, key, value = float32(*arrays(5, 1, 200, 4, 2, 8))
    ids = packed_rows([140, 40], 200)
    before = attention(query, key, value, segment_ids=ids, implementation=name)
    changed = [array.at[:, :140].multiply(-3.0) for array in (query, key, value)]
    after = attention(*changed, segment_ids=ids, implementation=name)
    np.testing.assert_array_equal(before[:, 140:], after[:, 140:])
    assert jnp.abs(before[:, :140] - after[:, :140]).max() > 0.1


def test_bfloat16_stays_near_float64():
    query, key, value = arrays(6, 1, 64, 4, 2, 16)
    inputs = [jnp.asarray(array, jnp.bfloat16) for array in (query, key, value)]
    actual = attention(*inputs, implementation="xla")
    assert actual.dtype == jnp.bfloat16
    expected = oracle(*(np.asarray(array, np.float64) for array in inputs), None, True, None)
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, atol=0.03)


def test_first_keys():
    np.testing.assert_array_equal(first_keys(jnp.array([[1, 1, 2, 2, 2, 0, 0]])), [[0, 0, 2, 2, 2, 5, 5]])


def test_a_backend_that_lacks_a_feature_is_never_picked():
    fast = Backend("fast", lambda *_: None, frozenset({"causal", "gqa"}), frozenset({"cpu"}))
    everything = Backend(
        "slow", lambda *_: None, frozenset({"causal", "full", "gqa", "window", "segments"}), frozenset({"cpu", "tpu"})
    )
    backends = (fast, everything)

    def pick(**kwargs):
        return choose(platform="cpu", backends=backends, **kwargs)

    assert pick(segments=False) == "fast"
    assert pick(segments=True) == "slow"
    assert pick(segments=False, window=4) == "slow"
    assert pick(segments=False, causal=False) == "slow"
    assert choose(platform="tpu", backends=backends, segments=False) == "slow"
    with pytest.raises(UserError, match=r"fast.*segments"):
        pick(segments=True, implementation="fast")
    with pytest.raises(UserError, match="window"):
        choose(platform="gpu", backends=backends, window=3)
    with pytest.raises(UserError, match=r"no attention back-end 'flash'; there are fast, slow"):
        pick(implementation="flash")


def test_segments_without_causality_go_to_the_reference():
    assert choose(segments=True, causal=False) == "reference"
    with pytest.raises(UserError, match="segments_full"):
        choose(segments=True, causal=False, implementation="xla")
