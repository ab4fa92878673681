"""What surrounds cuDNN's attention: documents as lengths and offsets, and what happens when a row has too many.

cuDNN itself runs on a GPU only; there the last test holds it to the reference.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.kernels.attention import attention
from aya_jax.kernels.attention import cudnn as module
from aya_jax.kernels.attention.cudnn import cudnn, segment_layout
from aya_jax.kernels.attention.reference import reference_intervals
from tests.kernels.attention.oracle import arrays, float32, mask_of, oracle, packed_rows

LENGTH = 24


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=2, max_size=2),
    most=st.integers(2, 6),
)
def test_segment_layout(rows, most):
    """Against a walk over each row: the documents listed are the first `most`, and all are counted."""
    ids = np.concatenate([packed_rows(lengths, 80)[:, :LENGTH] for lengths in rows])
    layout = jax.jit(segment_layout, static_argnums=1)(ids, most)
    assert layout.lengths.shape == (2, most)
    assert layout.offsets.shape == (2, most + 1)
    for row, lengths, offsets, count in zip(ids, *(np.asarray(array) for array in layout), strict=True):
        starts = [index for index in range(LENGTH) if index == 0 or row[index] != row[index - 1]]
        ends = [*starts[1:], LENGTH]
        assert count == len(starts)
        kept = min(most, len(starts))
        assert list(offsets) == starts[:kept] + [-1] * (most + 1 - kept)
        assert list(lengths) == [e - s for s, e in zip(starts, ends, strict=True)][:kept] + [-1] * (most - kept)


def as_documented(query, key, value, mask, scale, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets):
    """What the documentation of JAX's function says of its lengths and offsets: each document sees itself."""
    np.testing.assert_equal(q_seqlen.shape[1] + 1, q_offsets.shape[1])
    index = jnp.arange(query.shape[1])
    starts, lengths = kv_offsets[:, None, :-1], kv_seqlen[:, None]
    own = (lengths > 0) & (q_offsets[:, None, :-1] <= index[:, None]) & (index[:, None] < starts + q_seqlen[:, None])
    first = jnp.sum(jnp.where(own, starts, 0), -1)
    last = jnp.sum(jnp.where(own, starts + lengths - 1, 0), -1)
    last = jnp.where(own.any(-1), jnp.minimum(last, index) if mask == "PADDING_CAUSAL" else last, -1)
    return reference_intervals(query, key, value, first, last, scale=scale, soft_cap=None)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("max_segments", [2, 4, 9])
def test_packed_rows_of_any_number_of_documents(monkeypatch, causal, max_segments):
    """Two rows of three and four documents (padding among them) under a bound below, at and above."""
    monkeypatch.setattr(module, "_call", as_documented)
    ids = np.concatenate([packed_rows([7, 9], LENGTH), packed_rows([3, 10, 4], LENGTH)])
    query, key, value, grad = arrays(0, 2, LENGTH, LENGTH, 4, 2, 8)

    @jax.jit
    def values(*args):
        forward = functools.partial(
            cudnn, segment_ids=ids, causal=causal, window=None, scale=8**-0.5, max_segments=max_segments
        )
        output, back = jax.vjp(forward, *args[:3])
        return output, *back(args[3])

    expected = oracle(query, key, value, mask_of(np.arange(LENGTH), LENGTH, ids, causal=causal), grad)
    for actual, wanted in zip(values(*float32(query, key, value, grad)), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_what_it_cannot_do_is_refused():
    query, key, value = (jnp.zeros((1, 8, 2, 16), jnp.bfloat16) for _ in range(3))
    ask = functools.partial(cudnn, query, key, value, segment_ids=None, causal=True, scale=1.0)
    with pytest.raises(UserError, match="no soft cap"):
        ask(window=None, soft_cap=2.0)
    if jax.default_backend() != "gpu":
        with pytest.raises(UserError, match=r"refused here.*choose another implementation"):
            ask(window=None)


def test_a_jax_without_the_function_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_KEYWORDS", {*module._KEYWORDS, "zigzag"})
    module._fused_attention.cache_clear()
    with pytest.raises(UserError, match=rf"JAX {jax.__version__} has not the cuDNN attention .*zigzag"):
        module._fused_attention()
    module._fused_attention.cache_clear()
    monkeypatch.undo()
    assert module._fused_attention()[1]["PADDING_CAUSAL"]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "options", [{}, {"causal": False}, {"window": 100}, {"packed": True}, {"packed": True, "causal": False}]
)
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_on_a_gpu(options, heads):
    options = dict(options)
    length, packed = 512, options.pop("packed", False)
    ids = np.concatenate([packed_rows([170, 30, 200], length), packed_rows([9, 503], length)]) if packed else None
    inputs = [jnp.asarray(array, jnp.bfloat16) for array in arrays(1, 2, length, length, *heads, 64)]
    output, back = jax.vjp(
        functools.partial(attention, segment_ids=ids, implementation="cudnn", **options), *inputs[:3]
    )
    exact = [np.asarray(array, np.float64) for array in inputs]
    wanted = oracle(*exact[:3], mask_of(np.arange(length), length, ids, **options), exact[3])
    for actual, expected in zip((output, *back(inputs[3])), wanted, strict=True):
        assert np.abs(np.asarray(actual, np.float64) - expected).max() < 0.02 * np.abs(expected).max()
