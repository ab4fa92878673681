"""Attention to keys and values that were kept: writing them, and reading them for the tokens that come next.

A cache holds W positions for each sequence. Position p lies in place p mod W, so a cache as long as the sequence is a plain
array, and a shorter one a ring that keeps the last W positions, which is all that a sliding window asks for.

Softmax is taken tile by tile (Dao et al. 2022, FlashAttention, algorithm 1). A tile of which a sequence sees nothing changes
no bit of its result, so how far the others have got, which decides how many tiles are read, makes no difference to it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from aya_jax.kernels.attention.sharded import used_heads
from aya_jax.kernels.attention.tiles import MASKED, merge_heads, product, split_heads, wide
from aya_jax.parallel.config import LogicalAxes, as_tuple
from aya_jax.parallel.sharding import partition_spec

_ROUND, _WHOLE, TILE = 128, 1024, 256


def cache_size(needed: int) -> int:
    """Places of a cache that holds at least `needed` positions."""
    step = _ROUND if needed <= _WHOLE else TILE
    return -(-needed // step) * step


def tile_size(size: int) -> int:
    """Places of a cache of `size` that are read at a time: a small one whole, since cutting a part out copies it."""
    return size if size <= _WHOLE else TILE


KEY_DIMS = ("batch", "kv_heads", "head_dim", None)
"""The logical names of the dims of kept keys [B, KV, hd, W]: the way round in which a few queries read them fastest."""

VALUE_DIMS = ("batch", "kv_heads", None, "head_dim")
"""The logical names of the dims of kept values [B, KV, W, hd]."""


def ring_positions(length: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """Which position of its sequence each place holds; negative: none yet.

    Args:
      length: int32, positions written so far: 0 to length - 1, the last `size` of which are there.
      places: int32, places of the cache, below `size`; broadcast against length.
      size: W.
    """
    last = length - 1
    return last - (last - places) % size


def write(
    keys: jax.Array,
    values: jax.Array,
    rows: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    key: jax.Array,
    value: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Puts new keys and values into their places.

    Args:
      keys: [B, KV, hd, W], those that are kept.
      values: [B, KV, W, hd].
      rows: int32 [R], the sequences of the cache that the new ones belong to.
      positions: int32 [R, Q], of the new tokens.
      valid: bool [R, Q]; what is not is not written. At most W of a row are.
      key, value: [R, Q, KV, hd], the new ones.
    """
    size = values.shape[2]
    places = jnp.where(valid, positions % size, size)  # out of bounds: dropped
    keys = keys.at[rows[:, None], :, :, places].set(key.astype(keys.dtype), mode="drop")
    return keys, values.at[rows[:, None], :, places].set(value.astype(values.dtype), mode="drop")


def read(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    positions: jax.Array,
    lengths: jax.Array,
    *,
    window: int | None,
    scale: float,
    span: int | None = None,
) -> jax.Array:
    """Attention of each query to the positions up to its own that the cache holds.

    Scores and softmax are float32 (float64 where the inputs are); products run in the cache's dtype.

    Args:
      query: [R, Q, H, hd].
      keys: [R, KV, hd, W].
      values: [R, KV, W, hd].
      positions: int32 [R, Q], the queries' own.
      lengths: int32 [R], positions that have been written to each sequence.
      window: a query sees the `window` keys up to itself, itself included.
      scale: factor on the scores.
      span: places to read, at least what the longest sequence fills; None: found when it runs, which costs a loop on a
        CPU nothing.

    Returns:
      [R, Q, H, hd] in the query's dtype.
    """
    size, dtype = values.shape[2], wide(query.dtype)
    stacked = split_heads(query.astype(keys.dtype), query.shape[2] // keys.shape[1])  # [R, KV, G, Q, hd]
    width = tile_size(size)

    def step(index, carry):
        output, peak, total = carry
        start = index * width
        key = jax.lax.dynamic_slice_in_dim(keys, start, width, axis=3)
        value = jax.lax.dynamic_slice_in_dim(values, start, width, axis=2)
        there = ring_positions(lengths[:, None], start + jnp.arange(width, dtype=jnp.int32), size)[:, None]  # [R, 1, T]
        allowed = (there >= 0) & (there <= positions[..., None])  # [R, Q, T]
        if window is not None:
            allowed &= there > positions[..., None] - window
        allowed = allowed[:, None, None]
        scores = jnp.where(allowed, product("bkgqd,bkds->bkgqs", stacked, key) * scale, MASKED)
        new_peak = jnp.maximum(peak, jnp.max(scores, axis=-1, keepdims=True))
        weights = jnp.where(allowed, jnp.exp(scores - new_peak), 0)
        shrink = jnp.exp(peak - new_peak)
        output = output * shrink + product("bkgqs,bksd->bkgqd", weights.astype(values.dtype), value)
        return output, new_peak, total * shrink + jnp.sum(weights, axis=-1, keepdims=True)

    column = (*stacked.shape[:-1], 1)
    start = (jnp.zeros(stacked.shape, dtype), jnp.full(column, MASKED, dtype), jnp.zeros(column, dtype))
    if width == size:
        output, _, total = step(0, start)
    else:
        needed = (
            (jnp.minimum(jnp.max(lengths), size) + width - 1) // width if span is None else -(-min(span, size) // width)
        )
        output, _, total = jax.lax.fori_loop(0, needed, step, start)
    return merge_heads(output / jnp.maximum(total, jnp.finfo(dtype).tiny)).astype(query.dtype)


def cached_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cache: tuple[jax.Array, jax.Array],
    *,
    rows: jax.Array | None,
    positions: jax.Array,
    valid: jax.Array,
    rules: LogicalAxes,
    window: int | None,
    span: int | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Writes the new keys and values, and attends to all that are then there; under the mesh in context.

    Args:
      query: [R, Q, H, hd].
      key, value: [R, Q, KV, hd], of the same tokens.
      cache: keys [B, KV, hd, W] and values [B, KV, W, hd], W from `cache_size`; in a ring at least window - 1 + Q.
      rows: int32 [R], the sequences of the cache that the tokens belong to, none twice; None: all, in order. Over a mesh that
        divides the batch, rows are divided like it, and each counts within its device's part of the cache.
      positions: int32 [R, Q], of the tokens, ascending by one.
      valid: bool [R, Q]: the rest is padding, behind the tokens; it is not written, and its output means nothing.
      rules: which mesh axes split batch, heads and kv_heads.
      window: as in `read`.
      span: as in `read`.

    Returns:
      [R, Q, H, hd] in the query's dtype, and the cache.
    """
    scale, groups = query.shape[-1] ** -0.5, query.shape[2] // key.shape[2]
    mesh = jax.sharding.get_abstract_mesh()
    alone = mesh.empty or mesh.size == 1

    def local(query, key, value, keys, values, positions, valid, *rows):
        index = rows[0] if rows else jnp.arange(len(query), dtype=jnp.int32)
        keys, values = write(keys, values, index, positions, valid, key, value)
        chosen = [c[index] if rows else c for c in (keys, values)]
        if not alone and as_tuple(rules.heads) != as_tuple(rules.kv_heads):
            chosen = [used_heads(c, query.shape[2], groups, mesh, rules, dim=1) for c in chosen]
        lengths = jnp.max(jnp.where(valid, positions + 1, 0), axis=1)
        return read(query, *chosen, positions, lengths, window=window, scale=scale, span=span), keys, values

    arrays = [query, key, value, *cache, positions, valid, *(() if rows is None else (rows,))]
    if alone:
        output, *cache = local(*arrays)
        return output, tuple(cache)
    batch = partition_spec(rules, ("batch",))
    query_spec, key_spec = (
        partition_spec(rules, ("batch", None, heads, "head_dim")) for heads in ("heads", "kv_heads")
    )
    cache_specs = partition_spec(rules, KEY_DIMS), partition_spec(rules, VALUE_DIMS)
    specs = [query_spec, key_spec, key_spec, *cache_specs, *(PartitionSpec(*batch, None),) * 2]
    specs += [] if rows is None else [batch]
    output, *cache = jax.shard_map(local, in_specs=tuple(specs), out_specs=(query_spec, *cache_specs), check_vma=False)(
        *arrays
    )
    return output, tuple(cache)
