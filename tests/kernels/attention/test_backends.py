"""Every attention back-end that this machine can run, against NumPy in float64: values, gradients, packing and leaks.

A back-end that has no test here must run nowhere but on its device: it is named in ON_DEVICE_ONLY, and tested there.
"""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.kernels.attention import BACKENDS
from aya_jax.kernels.attention.dispatch import needed_features
from tests.kernels.attention.oracle import arrays, float32, mask_of, oracle, packed_rows

# What interpret mode cannot run, and where its tests are.
ON_DEVICE_ONLY = {"cudnn": "test_cudnn.py"}
BY_NAME = {backend.name: backend for backend in BACKENDS}
HERE = jax.default_backend()
INTERPRETED = [
    backend.name
    for backend in BACKENDS
    if HERE not in backend.platforms
    and "interpret" in inspect.signature(backend.over_intervals or backend.function).parameters
]
RUNNABLE = [
    backend.name for backend in BACKENDS if HERE in backend.platforms and backend.name not in ON_DEVICE_ONLY
] + INTERPRETED
# Lengths that every back-end's blocks divide.
LENGTH = 256


def run(name, query, key, value, *, segment_ids=None, causal=True, window=None, soft_cap=None):
    """A back-end by name; in interpret mode where its platform is not this one."""
    options = {"interpret": True} if name in INTERPRETED else {}
    return BY_NAME[name].function(
        query,
        key,
        value,
        segment_ids=segment_ids,
        causal=causal,
        window=window,
        scale=query.shape[-1] ** -0.5,
        soft_cap=soft_cap,
        **options,
    )


def test_no_backend_escapes():
    assert set(BY_NAME) == set(RUNNABLE) | set(ON_DEVICE_ONLY)


MASKS = {
    "causal, a key head for each": {"kv_heads": 2},
    "full": {"causal": False},
    "window": {"window": 50},
    "window, full": {"window": 50, "causal": False},
    "packed": {"packed": True},
    "packed, window": {"packed": True, "window": 50},
    "packed, full": {"packed": True, "causal": False},
    "soft cap": {"packed": True, "soft_cap": 1.5},
}


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("mask", MASKS)
def test_values_and_gradients(name, mask):
    options = dict(MASKS[mask])
    packed, soft_cap, kv_heads = options.pop("packed", False), options.pop("soft_cap", None), options.pop("kv_heads", 1)
    needed = needed_features(
        segments=packed,
        causal=options.get("causal", True),
        window=options.get("window"),
        gqa=kv_heads != 2,
        soft_cap=soft_cap,
    )
    if missing := needed - BY_NAME[name].features:
        pytest.skip(f"{name} says that it does not honour {', '.join(sorted(missing))}")
    query, key, value, grad = arrays(0, 2, LENGTH, LENGTH, 2, kv_heads, 16)
    segments = np.concatenate([packed_rows([70, 111, 40], LENGTH), packed_rows([9, 247], LENGTH)]) if packed else None

    @jax.jit
    def values(query, key, value, grad):
        forward = functools.partial(run, name, segment_ids=segments, soft_cap=soft_cap, **options)
        output, back = jax.vjp(forward, query, key, value)
        return output, *back(grad)

    expected = oracle(
        query, key, value, mask_of(np.arange(LENGTH), LENGTH, segments, **options), grad, soft_cap=soft_cap
    )
    for actual, wanted in zip(values(*float32(query, key, value, grad)), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=2e-5)


@functools.cache
def compiled(name, packed):
    """Output and gradients of one row of packed documents, or of one document per row."""

    @jax.jit
    def both(weight, segment_ids, *args):
        forward = functools.partial(run, name, segment_ids=segment_ids if packed else None)
        output, back = jax.vjp(forward, *args)
        return output, back(weight)

    return both


@pytest.mark.parametrize("name", RUNNABLE)
@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=4, max_size=4), seed=st.integers(0, 2**16))
def test_packed_equals_unpacked_forward_and_gradient(name, lengths, seed):
    ends = np.cumsum(lengths)
    used, starts = ends[-1], ends - lengths
    query, key, value, weight = float32(*arrays(seed, 1, LENGTH, LENGTH, 2, 1, 16))
    weight = weight.at[:, used:].set(0)

    def rows(array):
        """[1, S, ...] -> [4, S, ...]: a document per row, from its start; what follows it is of no weight."""
        out = np.zeros((4, *array.shape[1:]), np.float32)
        for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            out[index, :length] = array[0, start : start + length]
        return jnp.asarray(out)

    def row(array):
        """The inverse of `rows`."""
        return np.concatenate([array[index, :length] for index, length in enumerate(lengths)])

    output, grads = compiled(name, True)(weight, packed_rows(lengths, LENGTH), query, key, value)
    expected, expected_grads = compiled("reference", False)(rows(weight), None, *map(rows, (query, key, value)))
    np.testing.assert_allclose(output[0, :used], row(expected), atol=5e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad[0, :used], row(expected_grad), atol=1e-5)
        assert not np.any(grad[0, used:])


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_document_does_not_leak_into_another(name):
    """Everything of document A changes; not one bit of the outputs and gradients of B and of the padding does."""
    query, key, value, weight = float32(*arrays(5, 1, LENGTH, LENGTH, 2, 1, 16))
    ids = packed_rows([60, 140, 40], LENGTH)
    document = slice(60, 200)
    results = [compiled(name, True)(weight, ids, query, key, value)]
    changed = [array.at[:, document].multiply(-3.0) for array in (weight, query, key, value)]
    results.append(compiled(name, True)(changed[0], ids, *changed[1:]))
    (before, grads_before), (after, grads_after) = results
    for old, new in zip((before, *grads_before), (after, *grads_after), strict=True):
        old, new = np.asarray(old), np.asarray(new)
        np.testing.assert_array_equal(old[:, :60], new[:, :60])
        np.testing.assert_array_equal(old[:, 200:], new[:, 200:])
        assert np.abs(old[:, document] - new[:, document]).max() > 0.1


@pytest.mark.parametrize("name", [name for name in RUNNABLE if name != "reference"])
def test_bfloat16_stays_near_float64(name):
    inputs = [jnp.asarray(array, jnp.bfloat16) for array in arrays(6, 1, LENGTH, LENGTH, 2, 1, 16)]

    @jax.jit
    def values(query, key, value, grad):
        output, back = jax.vjp(functools.partial(run, name), query, key, value)
        return output, *back(grad)

    exact = [np.asarray(array, np.float64) for array in inputs]
    wanted = oracle(*exact[:3], mask_of(np.arange(LENGTH), LENGTH), exact[3])
    for actual, expected in zip(values(*inputs), wanted, strict=True):
        assert actual.dtype == jnp.bfloat16
        error = np.abs(np.asarray(actual, np.float64) - expected).max()
        assert error < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("name", [name for name in RUNNABLE if name not in INTERPRETED])
@pytest.mark.parametrize("length", [1, 270])
def test_any_length(name, length):
    """What runs everywhere takes rows that no tile divides."""
    query, key, value, grad = arrays(7, 1, length, length, 2, 1, 8)

    @jax.jit
    def values(query, key, value, grad):
        output, back = jax.vjp(functools.partial(run, name, window=100), query, key, value)
        return output, *back(grad)

    expected = oracle(query, key, value, mask_of(np.arange(length), length, window=100), grad)
    for actual, wanted in zip(values(*float32(query, key, value, grad)), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)
