"""Attention over intervals of keys, as loops of matrix products, for every platform.

For each tile of queries a loop runs over the tiles of keys between the first key and the last that any of them sees. The
bounds of the loop are computed when it runs, so what no query sees costs nothing, whatever the mask and the order of the
queries, and on each device of a mesh for itself. Softmax is taken as the tiles come (Dao et al. 2022, FlashAttention,
algorithm 1); the backward pass makes the probabilities again from the log-sum-exp of each query (algorithm 4).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aya_jax.kernels.attention.intervals import clip
from aya_jax.kernels.attention.tiles import (
    MASKED,
    merge_heads,
    pad_to,
    product,
    soften,
    split_heads,
    through_soft_cap,
    wide,
)


class _Options(NamedTuple):
    """What is known before the arrays are."""

    scale: float
    soft_cap: float | None
    query_tile: int
    key_tile: int


def xla_intervals(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    first: jax.Array,
    last: jax.Array,
    *,
    scale: float,
    soft_cap: float | None,
    query_tile: int = 256,
    key_tile: int = 256,
) -> jax.Array:
    """Attention of query q of row b over the keys first[b, q] to last[b, q].

    Scores and their softmax are float32 (float64 where the inputs are); products run in the inputs' dtype.

    Args:
      query: [B, Q, H, hd].
      key: [B, K, KV, hd]; H is a multiple of KV.
      value: [B, K, KV, hd].
      first: int32 [B, Q], the first key that each query sees.
      last: int32 [B, Q], the last one; before `first`: the query sees none and its output is 0.
      scale: factor on the scores.
      soft_cap: scores s become cap * tanh(s / cap).
      query_tile: queries in a tile.
      key_tile: keys in a tile.

    Returns:
      [B, Q, H, hd] in the query's dtype.
    """
    count, groups = query.shape[1], query.shape[2] // key.shape[2]
    options = _Options(scale, soft_cap, min(query_tile, count), min(key_tile, key.shape[1]))
    first, last = clip(first, last, key.shape[1])
    rows = [pad_to(bound, 1, options.query_tile, empty) for bound, empty in ((first, key.shape[1]), (last, -1))]
    rows = [_cut(bound, 1, options.query_tile) for bound in rows]
    query = _cut(split_heads(pad_to(query, 1, options.query_tile), groups), 3, options.query_tile)
    key, value = (split_heads(pad_to(array, 1, options.key_tile), 1)[:, :, 0] for array in (key, value))
    return merge_heads(_join(_attention(options, query, key, value, *rows), 3))[:, :count]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(options: _Options, query, key, value, first, last) -> jax.Array:
    """[N, B, KV, G, T, hd] tiles of queries, [B, KV, K, hd] keys and values, [N, B, T] bounds -> as the queries."""
    return _forward(options, query, key, value, first, last)[0]


def _forward(options: _Options, query, key, value, first, last):
    def tile(operands):
        query, first, last = operands

        def step(index, carry):
            output, peak, total = carry
            keys, values = _slice(key, index, options), _slice(value, index, options)
            scores, allowed = _scores(options, index, query, keys, first, last)
            new_peak = jnp.maximum(peak, jnp.max(jnp.where(allowed, scores, MASKED), axis=-1, keepdims=True))
            weights = jnp.where(allowed, jnp.exp(scores - new_peak), 0)
            shrink = jnp.exp(peak - new_peak)
            output = output * shrink + product("bkgqs,bksd->bkgqd", weights.astype(value.dtype), values)
            return output, new_peak, total * shrink + jnp.sum(weights, axis=-1, keepdims=True)

        dtype = wide(query.dtype)
        column = (*query.shape[:-1], 1)
        start = (jnp.zeros(query.shape, dtype), jnp.full(column, MASKED, dtype), jnp.zeros(column, dtype))
        output, peak, total = jax.lax.fori_loop(*_span(options, first, last), step, start)
        empty = total == 0
        total = jnp.where(empty, 1, total)
        return (output / total).astype(query.dtype), jnp.where(empty, 0, peak + jnp.log(total))

    output, normaliser = jax.lax.map(tile, (query, first, last))
    return output, (query, key, value, first, last, output, normaliser)


def _backward(options: _Options, saved, grad):
    query, key, value, first, last, output, normaliser = saved
    dtype = wide(query.dtype)
    inner = jnp.sum(grad.astype(dtype) * output.astype(dtype), axis=-1, keepdims=True)

    def tile(carry, operands):
        query, first, last, grad, normaliser, inner = operands

        def step(index, carry):
            grad_query, grad_key, grad_value = carry
            keys, values = _slice(key, index, options), _slice(value, index, options)
            scores, allowed = _scores(options, index, query, keys, first, last)
            weights = jnp.where(allowed, jnp.exp(scores - normaliser), 0)
            grad_scores = weights * (product("bkgqd,bksd->bkgqs", grad, values) - inner)
            grad_scores = through_soft_cap(grad_scores, scores, options.soft_cap)
            grad_scores = (grad_scores * options.scale).astype(query.dtype)
            weights = weights.astype(value.dtype)
            grad_query += product("bkgqs,bksd->bkgqd", grad_scores, keys)
            grad_key = _add(grad_key, product("bkgqs,bkgqd->bksd", grad_scores, query), index, options)
            grad_value = _add(grad_value, product("bkgqs,bkgqd->bksd", weights, grad), index, options)
            return grad_query, grad_key, grad_value

        start = (jnp.zeros(query.shape, dtype), *carry)
        grad_query, *carry = jax.lax.fori_loop(*_span(options, first, last), step, start)
        return tuple(carry), grad_query.astype(query.dtype)

    start = tuple(jnp.zeros(array.shape, dtype) for array in (key, value))
    (grad_key, grad_value), grad_query = jax.lax.scan(tile, start, (query, first, last, grad, normaliser, inner))
    return grad_query, grad_key.astype(key.dtype), grad_value.astype(value.dtype), None, None


_attention.defvjp(_forward, _backward)


def _span(options: _Options, first: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The tiles of keys, from one up to another, that some query of a tile sees."""
    return jnp.min(first) // options.key_tile, jnp.max(last) // options.key_tile + 1


def _scores(options: _Options, index, query, keys, first, last) -> tuple[jax.Array, jax.Array]:
    """Scores of one tile [B, KV, G, T, S], and bool [B, 1, 1, T, S]: which of them count."""
    scores = soften(product("bkgqd,bksd->bkgqs", query, keys) * options.scale, options.soft_cap)
    column = index * options.key_tile + jnp.arange(options.key_tile, dtype=jnp.int32)
    allowed = (first[..., None] <= column) & (column <= last[..., None])
    return scores, allowed[:, None, None]


def _slice(array: jax.Array, index: jax.Array, options: _Options) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(array, index * options.key_tile, options.key_tile, axis=2)


def _add(array: jax.Array, tile: jax.Array, index: jax.Array, options: _Options) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(
        array, _slice(array, index, options) + tile, index * options.key_tile, axis=2
    )


def _cut(array: jax.Array, dim: int, size: int) -> jax.Array:
    """[..., N * size, ...] -> [N, ..., size, ...]."""
    shape = (*array.shape[:dim], array.shape[dim] // size, size, *array.shape[dim + 1 :])
    return jnp.moveaxis(array.reshape(shape), dim, 0)


def _join(array: jax.Array, dim: int) -> jax.Array:
    """The inverse of `_cut`."""
    array = jnp.moveaxis(array, 0, dim)
    return array.reshape(*array.shape[:dim], -1, *array.shape[dim + 2 :])
