"""Attention over intervals of keys as Pallas kernels for NVIDIA GPUs, lowered by Triton.

Three kernels (Dao 2023, FlashAttention-2, algorithms 1 and 2). The forward one and the one of the queries' gradient hold
a tile of queries and run over the tiles of keys that some of it sees; the one of the keys' and values' gradients holds a
tile of keys and runs over the tiles of queries that see some of it, for each query head of the group. Every element has
one writer and one order of additions, so two runs give the same bits.

Triton wants powers of two: heads are padded to one, and rows to whole tiles, before the kernels and cut after.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from aya_jax.kernels.attention.intervals import clip
from aya_jax.kernels.attention.tiles import MASKED, pad_to, soften, through_soft_cap

# The kernels take exponentials of 2, which the hardware has.
_LOG2E = math.log2(math.e)


class Blocks(NamedTuple):
    """Sizes of tiles, powers of two from 16 up, and the warps that share one."""

    queries: int
    keys: int
    grad_queries: int
    grad_keys: int
    warps: int


class _Options(NamedTuple):
    scale: float
    soft_cap: float | None
    blocks: Blocks
    interpret: bool


def default_blocks(head_dim: int, itemsize: int) -> Blocks:
    """Tiles that fit the registers and the shared memory of a Hopper GPU (227 KiB) by their sizes; not yet measured."""
    if head_dim * itemsize > 256:
        return Blocks(64, 32, 32, 32, 8)
    return Blocks(128, 64, 64, 64, 4 if head_dim <= 64 else 8)


def pallas_gpu(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    first: jax.Array,
    last: jax.Array,
    *,
    scale: float,
    soft_cap: float | None,
    blocks: Blocks | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attention of query q of row b over the keys first[b, q] to last[b, q].

    Args:
      query: [B, Q, H, hd].
      key: [B, K, KV, hd]; H is a multiple of KV.
      value: [B, K, KV, hd].
      first: int32 [B, Q].
      last: int32 [B, Q]; before `first`: the query sees no key and its output is 0.
      scale: factor on the scores.
      soft_cap: scores s become cap * tanh(s / cap).
      blocks: sizes of the tiles; by default those of `default_blocks`.
      interpret: run the kernels step by step on any platform, for tests.

    Returns:
      [B, Q, H, hd] in the query's dtype.
    """
    count, length, width = query.shape[1], key.shape[1], query.shape[3]
    padded = max(16, pl.next_power_of_2(width))
    blocks = _no_longer_than(blocks or default_blocks(padded, query.dtype.itemsize), count, length)
    query_multiple, key_multiple = max(blocks.queries, blocks.grad_queries), max(blocks.keys, blocks.grad_keys)
    first, last = clip(first, last, length)
    first, last = pad_to(first, 1, query_multiple, length), pad_to(last, 1, query_multiple, -1)
    query = pad_to(pad_to(query, 1, query_multiple), 3, padded)
    key, value = (pad_to(pad_to(array, 1, key_multiple), 3, padded) for array in (key, value))
    return _attention(_Options(scale, soft_cap, blocks, interpret), query, key, value, first, last)[
        :, :count, :, :width
    ]


def _no_longer_than(blocks: Blocks, queries: int, keys: int) -> Blocks:
    most_queries, most_keys = (max(16, pl.next_power_of_2(length)) for length in (queries, keys))
    return Blocks(
        min(blocks.queries, most_queries),
        min(blocks.keys, most_keys),
        min(blocks.grad_queries, most_queries),
        min(blocks.grad_keys, most_keys),
        blocks.warps,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(options: _Options, query, key, value, first, last) -> jax.Array:
    return _forward(options, query, key, value, first, last)[0]


def _forward(options: _Options, query, key, value, first, last):
    batch, queries, heads, _ = query.shape
    size = options.blocks.queries
    specs = _specs(query, key, size)
    output, normaliser = pl.pallas_call(
        functools.partial(_forward_kernel, options),
        grid=(queries // size, heads, batch),
        in_specs=[specs.bound, specs.bound, specs.rows, specs.all_keys, specs.all_keys],
        out_specs=[specs.rows, specs.column],
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32),
        ],
        name="interval_attention_forward",
        **_how(options),
    )(first, last, query, key, value)
    return output, (query, key, value, first, last, output, normaliser)


def _backward(options: _Options, saved, grad):
    query, key, value, first, last, output, normaliser = saved
    batch, queries, heads, width = query.shape
    _, keys, kv_heads, _ = key.shape
    inner = jnp.einsum("bqhd,bqhd->bhq", grad, output, preferred_element_type=jnp.float32)
    rows, columns = options.blocks.grad_queries, options.blocks.grad_keys

    specs = _specs(query, key, rows)
    bounds_and_keys = [specs.bound, specs.bound, specs.rows, specs.all_keys, specs.all_keys]
    grad_query = pl.pallas_call(
        functools.partial(_grad_query_kernel, options),
        grid=(queries // rows, heads, batch),
        in_specs=[*bounds_and_keys, specs.rows, specs.column, specs.column],
        out_specs=specs.rows,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        name="interval_attention_grad_query",
        **_how(options),
    )(first, last, query, key, value, grad, normaliser, inner)

    groups = heads // kv_heads
    span = pl.BlockSpec((None, None), lambda i, h, b: (b, i))
    all_bounds = pl.BlockSpec((None, queries), lambda i, h, b: (b, 0))
    all_rows = pl.BlockSpec((None, queries, groups, width), lambda i, h, b: (b, 0, h, 0))
    all_columns = pl.BlockSpec((None, groups, queries), lambda i, h, b: (b, h, 0))
    tile = pl.BlockSpec((None, columns, None, width), lambda i, h, b: (b, i, h, 0))
    grad_key, grad_value = pl.pallas_call(
        functools.partial(_grad_key_kernel, options),
        grid=(keys // columns, kv_heads, batch),
        in_specs=[span, span, all_bounds, all_bounds, all_rows, tile, tile, all_rows, all_columns, all_columns],
        out_specs=[tile, tile],
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (key, value)],
        name="interval_attention_grad_key",
        **_how(options),
    )(*query_spans(first, last, rows, columns, keys), first, last, query, key, value, grad, normaliser, inner)
    return grad_query, grad_key, grad_value, None, None


_attention.defvjp(_forward, _backward)


def query_spans(
    first: jax.Array, last: jax.Array, query_tile: int, key_tile: int, keys: int
) -> tuple[jax.Array, jax.Array]:
    """For each tile of keys, the tiles of queries from the first that sees some of it up to after the last.

    Args:
      first: int32 [B, Q], clipped; Q is a multiple of query_tile.
      last: int32 [B, Q].
      query_tile: queries in a tile.
      key_tile: keys in a tile.
      keys: how many keys there are, a multiple of key_tile.

    Returns:
      Two int32 [B, keys / key_tile]; equal where nothing sees a tile.
    """
    count = first.shape[1] // query_tile
    lowest = first.reshape(-1, count, query_tile).min(-1) // key_tile
    highest = last.reshape(-1, count, query_tile).max(-1) // key_tile
    tiles = jnp.arange(keys // key_tile, dtype=jnp.int32)[:, None]
    sees = (lowest[:, None] <= tiles) & (tiles <= highest[:, None])
    index = jnp.arange(count, dtype=jnp.int32)
    start = jnp.min(jnp.where(sees, index, count), axis=-1)
    stop = jnp.max(jnp.where(sees, index + 1, 0), axis=-1)
    return jnp.minimum(start, stop), stop


# The kernels -----------------------------------------------------------------------------------------------------------


def _forward_kernel(options: _Options, first_ref, last_ref, query_ref, key_ref, value_ref, output_ref, normaliser_ref):
    first, last, query = first_ref[...], last_ref[...], query_ref[...]
    size = options.blocks.keys

    def step(index, carry):
        output, peak, total = carry
        keys = pl.ds(index * size, size)
        scores, allowed = _scores(options, query, key_ref[keys, :], first, last, index * size)
        new_peak = jnp.maximum(peak, jnp.max(jnp.where(allowed, scores, MASKED), axis=1))
        weights = jnp.where(allowed, jnp.exp2((scores - new_peak[:, None]) * _LOG2E), 0.0)
        shrink = jnp.exp2((peak - new_peak) * _LOG2E)
        value = value_ref[keys, :]
        output = output * shrink[:, None] + _dot(weights.astype(value.dtype), value, 1, 0)
        return output, new_peak, total * shrink + jnp.sum(weights, axis=1)

    rows = query.shape[0]
    start = (
        jnp.zeros(query.shape, jnp.float32),
        jnp.full((rows,), MASKED, jnp.float32),
        jnp.zeros((rows,), jnp.float32),
    )
    output, peak, total = jax.lax.fori_loop(*_span(first, last, size), step, start)
    empty = total == 0.0
    total = jnp.where(empty, 1.0, total)
    output_ref[...] = (output / total[:, None]).astype(output_ref.dtype)
    normaliser_ref[...] = jnp.where(empty, 0.0, peak + jnp.log2(total) / _LOG2E)


def _grad_query_kernel(
    options: _Options,
    first_ref,
    last_ref,
    query_ref,
    key_ref,
    value_ref,
    grad_ref,
    normaliser_ref,
    inner_ref,
    grad_query_ref,
):
    first, last, query, grad = first_ref[...], last_ref[...], query_ref[...], grad_ref[...]
    normaliser, inner = normaliser_ref[...], inner_ref[...]
    size = options.blocks.grad_keys

    def step(index, grad_query):
        keys = pl.ds(index * size, size)
        key = key_ref[keys, :]
        _, grad_scores = _weights_and_grad(
            options, query, key, value_ref[keys, :], grad, first, last, index * size, normaliser, inner
        )
        return grad_query + _dot(grad_scores.astype(key.dtype), key, 1, 0)

    start = jnp.zeros(query.shape, jnp.float32)
    grad_query = jax.lax.fori_loop(*_span(first, last, size), step, start)
    grad_query_ref[...] = grad_query.astype(grad_query_ref.dtype)


def _grad_key_kernel(
    options: _Options,
    start_ref,
    stop_ref,
    first_ref,
    last_ref,
    query_ref,
    key_ref,
    value_ref,
    grad_ref,
    normaliser_ref,
    inner_ref,
    grad_key_ref,
    grad_value_ref,
):
    key, value = key_ref[...], value_ref[...]
    size, offset = options.blocks.grad_queries, pl.program_id(0) * options.blocks.grad_keys
    start, stop = start_ref[...], stop_ref[...]

    def of_head(head, carry):
        def step(index, carry):
            grad_key, grad_value = carry
            rows = pl.ds(index * size, size)
            query, grad = query_ref[rows, head, :], grad_ref[rows, head, :]
            columns = (normaliser_ref[head, rows], inner_ref[head, rows])
            weights, grad_scores = _weights_and_grad(
                options, query, key, value, grad, first_ref[rows], last_ref[rows], offset, *columns
            )
            grad_key += _dot(grad_scores.astype(query.dtype), query, 0, 0)
            return grad_key, grad_value + _dot(weights.astype(grad.dtype), grad, 0, 0)

        return jax.lax.fori_loop(start, stop, step, carry)

    zeros = jnp.zeros(key.shape, jnp.float32)
    grad_key, grad_value = jax.lax.fori_loop(0, query_ref.shape[1], of_head, (zeros, zeros))
    grad_key_ref[...] = grad_key.astype(grad_key_ref.dtype)
    grad_value_ref[...] = grad_value.astype(grad_value_ref.dtype)


def _weights_and_grad(options: _Options, query, key, value, grad, first, last, offset, normaliser, inner):
    """The probabilities of one tile [Q, K] and the gradient of its products of query and key."""
    scores, allowed = _scores(options, query, key, first, last, offset)
    weights = jnp.where(allowed, jnp.exp2((scores - normaliser[:, None]) * _LOG2E), 0.0)
    grad_scores = weights * (_dot(grad, value, 1, 1) - inner[:, None])
    return weights, through_soft_cap(grad_scores, scores, options.soft_cap) * options.scale


def _scores(options: _Options, query, key, first, last, offset):
    """Scores of one tile [Q, K], whose first key is `offset`, and which of them count."""
    scores = soften(_dot(query, key, 1, 1) * options.scale, options.soft_cap)
    column = offset + jnp.arange(key.shape[0], dtype=jnp.int32)
    return scores, (first[:, None] <= column[None, :]) & (column[None, :] <= last[:, None])


def _span(first, last, size: int):
    """The tiles of keys, from one up to another, that some query of a tile sees; bounds are not negative, so div floors."""
    return jax.lax.div(jnp.min(first), size), jax.lax.div(jnp.max(last) + size, size)


def _dot(left, right, left_dim: int, right_dim: int):
    """A product that sums over one dim of each; float32 inputs are not rounded to TF32."""
    return jax.lax.dot_general(
        left,
        right,
        (((left_dim,), (right_dim,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


# How they are called ---------------------------------------------------------------------------------------------------


class _Specs(NamedTuple):
    """Blocks of the kernels that hold a tile of queries; the grid is tile, query head, row of the batch."""

    bound: pl.BlockSpec
    rows: pl.BlockSpec
    column: pl.BlockSpec
    all_keys: pl.BlockSpec


def _specs(query: jax.Array, key: jax.Array, size: int) -> _Specs:
    width, groups = query.shape[3], query.shape[2] // key.shape[2]
    return _Specs(
        bound=pl.BlockSpec((None, size), lambda i, h, b: (b, i)),
        rows=pl.BlockSpec((None, size, None, width), lambda i, h, b: (b, i, h, 0)),
        column=pl.BlockSpec((None, None, size), lambda i, h, b: (b, h, i)),
        all_keys=pl.BlockSpec((None, key.shape[1], None, width), lambda i, h, b: (b, 0, h // groups, 0)),
    )


def _how(options: _Options) -> dict:
    """The class of compiler_params is what picks Triton."""
    params = plgpu.CompilerParams(num_warps=options.blocks.warps, num_stages=2)
    return {"compiler_params": params, "interpret": options.interpret}
