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

from aya_jax.kernels.attention.reference import dense_mask

_MIN_TILE = 64
_MAX_TILES = 16
# Finite: a row of -inf alone would give NaN where XLA evaluates both sides of a `where`.
_MASKED = -1e30


class _Mask(NamedTuple):
    """The static part of the mask."""

    causal: bool
    window: int | None


def first_keys(segment_ids: jax.Array) -> jax.Array:
    """The index at which each token's document starts; int32 [B, S] from segment ids [B, S] that come in runs."""
    index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    starts = jnp.concatenate(
        [jnp.ones_like(segment_ids[:, :1], bool), segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1
    )
    return jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def xla(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None,
    causal: bool,
    window: int | None,
    scale: float,
) -> jax.Array:
    """Tiled attention; shapes and masks as in `reference`. Segments must come in runs, and need `causal`.

    Scores and their softmax are float32; products run in the inputs' dtype and accumulate in float32.
    """
    groups = query.shape[2] // key.shape[2]
    query = _split_heads(query * jnp.asarray(scale, query.dtype), groups)
    key, value = (_split_heads(array, 1)[:, :, 0] for array in (key, value))
    starts = None if segment_ids is None else first_keys(segment_ids)
    return _merge_heads(_attention(_Mask(causal, window), query, key, value, starts))


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
    inner = jnp.sum(grad.astype(jnp.float32) * output.astype(jnp.float32), axis=-1, keepdims=True)
    grad_query = []
    grad_key, grad_value = (jnp.zeros(array.shape, jnp.float32) for array in (key, value))
    for tile in _tiles(mask, query.shape[3]):
        rows, columns = tile.queries, tile.keys
        weights = jnp.exp(_scores(mask, tile, query, key, starts) - normaliser[:, :, :, rows])
        grad_rows = grad[:, :, :, rows]
        grad_weights = _product("bkgqd,bksd->bkgqs", grad_rows, value[:, :, columns])
        grad_scores = (weights * (grad_weights - inner[:, :, :, rows])).astype(query.dtype)
        weights = weights.astype(value.dtype)
        grad_value = grad_value.at[:, :, columns].add(_product("bkgqs,bkgqd->bksd", weights, grad_rows))
        grad_key = grad_key.at[:, :, columns].add(_product("bkgqs,bkgqd->bksd", grad_scores, query[:, :, :, rows]))
        grad_query.append(_product("bkgqs,bksd->bkgqd", grad_scores, key[:, :, columns]))
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
    scores = _product("bkgqd,bksd->bkgqs", query[:, :, :, tile.queries], key[:, :, tile.keys])
    rows = jnp.arange(tile.queries.start, tile.queries.stop, dtype=jnp.int32)
    columns = jnp.arange(tile.keys.start, tile.keys.stop, dtype=jnp.int32)
    first = None if starts is None else starts[:, tile.queries]
    allowed = dense_mask(rows, columns, causal=mask.causal, window=mask.window, first_key=first)
    return jnp.where(allowed if first is None else allowed[:, None, None], scores, _MASKED)


def _weigh(weights: jax.Array, value: jax.Array) -> jax.Array:
    return _product("bkgqs,bksd->bkgqd", weights, value)


def _product(spec: str, left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.einsum(spec, left, right, preferred_element_type=jnp.float32)


def _split_heads(array: jax.Array, groups: int) -> jax.Array:
    """[B, S, KV * G, hd] -> [B, KV, G, S, hd]."""
    batch, length, heads, width = array.shape
    return array.reshape(batch, length, heads // groups, groups, width).transpose(0, 2, 3, 1, 4)


def _merge_heads(array: jax.Array) -> jax.Array:
    """[B, KV, G, S, hd] -> [B, S, KV * G, hd]."""
    batch, kv_heads, groups, length, width = array.shape
    return array.transpose(0, 3, 1, 2, 4).reshape(batch, length, kv_heads * groups, width)
