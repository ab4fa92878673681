"""Attention as matrix products over tiles of queries, for every platform, with its own backward pass.

A tile of queries meets only the keys that causality and the window leave it, so the work above the diagonal is not
done, and no more than one tile of scores lives at a time. Query heads that share a key head are stacked into one matrix
product. The forward pass keeps the output and one log-sum-exp per query; the backward pass makes the probabilities
again from them (Dao et al. 2022, FlashAttention, section 3.1 and algorithm 4).

Documents are packed one after the other, so a segment mask is one integer per query: the first key of its document.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aya_jax.kernels.attention.intervals import document_bounds
from aya_jax.kernels.attention.reference import dense_mask
from aya_jax.kernels.attention.tiles import MASKED, merge_heads, product, soften, split_heads, through_soft_cap, wide

_MIN_TILE = 64
_MAX_TILES = 16


class _Mask(NamedTuple):
    """The static part of the mask, and the soft limit of the scores under it."""

    causal: bool
    window: int | None
    soft_cap: float | None


def xla(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None,
    causal: bool,
    window: int | None,
    scale: float,
    soft_cap: float | None = None,
) -> jax.Array:
    """Tiled attention; shapes and masks as in `reference`. Segments must come in runs, and need `causal`.

    Scores and their softmax are float32; products run in the inputs' dtype and accumulate in float32.
    """
    groups = query.shape[2] // key.shape[2]
    query = split_heads(query * jnp.asarray(scale, query.dtype), groups)
    key, value = (split_heads(array, 1)[:, :, 0] for array in (key, value))
    starts = None if segment_ids is None else document_bounds(segment_ids)[0]
    return merge_heads(_attention(_Mask(causal, window, soft_cap), query, key, value, starts))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(mask: _Mask, query: jax.Array, key: jax.Array, value: jax.Array, starts: jax.Array | None) -> jax.Array:
    """[B, KV, G, S, hd] queries, [B, KV, S, hd] keys and values -> [B, KV, G, S, hd]."""
    return _forward(mask, query, key, value, starts)[0]


def _forward(mask: _Mask, query, key, value, starts):
    outputs, normalisers = [], []
    for tile in _tiles(mask, query.shape[3]):
        scores = _scores(mask, tile, query, key, starts)
        peak = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - peak)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        outputs.append(_weigh(weights.astype(value.dtype), value[:, :, tile.keys]) / total)
        normalisers.append(peak + jnp.log(total))
    output = jnp.concatenate(outputs, axis=3).astype(query.dtype)
    return output, (query, key, value, starts, output, jnp.concatenate(normalisers, axis=3))


def _backward(mask: _Mask, saved, grad):
    query, key, value, starts, output, normaliser = saved
    dtype = wide(query.dtype)
    inner = jnp.sum(grad.astype(dtype) * output.astype(dtype), axis=-1, keepdims=True)
    grad_query = []
    grad_key, grad_value = (jnp.zeros(array.shape, dtype) for array in (key, value))
    for tile in _tiles(mask, query.shape[3]):
        rows, columns = tile.queries, tile.keys
        scores = _scores(mask, tile, query, key, starts)
        weights = jnp.exp(scores - normaliser[:, :, :, rows])
        grad_rows = grad[:, :, :, rows]
        grad_weights = product("bkgqd,bksd->bkgqs", grad_rows, value[:, :, columns])
        grad_scores = weights * (grad_weights - inner[:, :, :, rows])
        grad_scores = through_soft_cap(grad_scores, scores, mask.soft_cap).astype(query.dtype)
        weights = weights.astype(value.dtype)
        grad_value = grad_value.at[:, :, columns].add(product("bkgqs,bkgqd->bksd", weights, grad_rows))
        grad_key = grad_key.at[:, :, columns].add(product("bkgqs,bkgqd->bksd", grad_scores, query[:, :, :, rows]))
        grad_query.append(product("bkgqs,bksd->bkgqd", grad_scores, key[:, :, columns]))
    grad_query = jnp.concatenate(grad_query, axis=3).astype(query.dtype)
    return grad_query, grad_key.astype(key.dtype), grad_value.astype(value.dtype), None


_attention.defvjp(_forward, _backward)


class _Tile(NamedTuple):
    queries: slice
    keys: slice


def _tiles(mask: _Mask, length: int) -> Iterator[_Tile]:
    """Cuts the queries, and gives each tile the span of keys that its queries can see between them."""
    count = min(_MAX_TILES, max(1, length // _MIN_TILE))
    size = -(-length // count)
    for start in range(0, length, size):
        stop = min(start + size, length)
        first = 0 if mask.window is None else max(0, start - mask.window + 1)
        if mask.causal:
            last = stop
        else:
            last = length if mask.window is None else min(length, stop + mask.window - 1)
        yield _Tile(slice(start, stop), slice(first, last))


def _scores(mask: _Mask, tile: _Tile, query, key, starts) -> jax.Array:
    """Masked scores of one tile, float32 [B, KV, G, Q, K]."""
    scores = soften(product("bkgqd,bksd->bkgqs", query[:, :, :, tile.queries], key[:, :, tile.keys]), mask.soft_cap)
    rows = jnp.arange(tile.queries.start, tile.queries.stop, dtype=jnp.int32)
    columns = jnp.arange(tile.keys.start, tile.keys.stop, dtype=jnp.int32)
    first = None if starts is None else starts[:, tile.queries]
    allowed = dense_mask(rows, columns, causal=mask.causal, window=mask.window, first_key=first)
    return jnp.where(allowed if first is None else allowed[:, None, None], scores, MASKED)


def _weigh(weights: jax.Array, value: jax.Array) -> jax.Array:
    return product("bkgqs,bksd->bkgqd", weights, value)
