"""Attention to keys and values that were kept: writing them, and reading them for the tokens that come next.

A cache holds W positions for each sequence, in N blocks of T. Position p lies in place p mod W, so a cache as long as the
sequence is a plain array, and a shorter one a ring that keeps the last W positions, all that a sliding window asks for. A block
is what a product of a few queries reads fastest. On a CPU its keys lie with the positions last, [hd, T]. Elsewhere they lie as
values do, [T, hd]: so a TPU writes whole rows, and would turn all keys over before and after every block of tokens otherwise.

Softmax is taken tile by tile (Dao et al. 2022, FlashAttention, algorithm 1). A tile of which a sequence sees nothing changes
no bit of its result, so how far the others have got, which decides how many tiles are read, makes no difference to it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from aya_jax.kernels.attention.sharded import used_heads
from aya_jax.kernels.attention.tiles import MASKED, merge_heads, product, split_heads, wide
from aya_jax.parallel.config import LogicalAxes, as_tuple
from aya_jax.parallel.mesh import platform
from aya_jax.parallel.sharding import partition_spec

_ROUND, _WHOLE, TILE = 128, 1024, 256

CACHE_DIMS = ("batch", "kv_heads", None, None, None)
"""The logical names of the dims of kept keys [B, KV, N, hd, T] or [B, KV, N, T, hd], and values [B, KV, N, T, hd]."""


def cache_size(needed: int) -> int:
    """Places of a cache that holds at least `needed` positions."""
    step = _ROUND if needed <= _WHOLE else TILE
    return -(-needed // step) * step


def empty(rows: int, kv_heads: int, head_dim: int, size: int, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Keys and values of nothing, for `rows` sequences of `size` places."""
    block = block_size(size)
    shape = rows, kv_heads, size // block
    key = (head_dim, block) if positions_last() else (block, head_dim)
    return jnp.zeros((*shape, *key), dtype), jnp.zeros((*shape, block, head_dim), dtype)


def positions_last() -> bool:
    """Whether keys lie [hd, T] in a block."""
    return platform() == "cpu"


def block_size(size: int) -> int:
    """T for a cache of `size` places."""
    # 64 is up to twice as fast on CPUs as 128, which is how many numbers a TPU has side by side.
    return math.gcd(size, 64 if platform() == "cpu" else 128)


def tile_size(size: int, queries: int) -> int:
    """Places of a cache of `size` that are read at a time for so many queries to a row.

    For one, a small cache is read whole: cutting a part out copies it.
    """
    if size > _WHOLE:
        return TILE
    return size if queries == 1 else math.gcd(size, _ROUND)


def ring_positions(length: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """Which position of its sequence each place holds; negative: none yet.

    Args:
      length: int32, positions written so far: 0 to length - 1, the last `size` of which are there.
      places: int32, places of the cache, below `size`; broadcast against length.
      size: W.
    """
    last = length - 1
    place = last % size
    return last - place + places - jnp.where(places > place, size, 0)


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
      keys: [B, KV, N, hd, T] or [B, KV, N, T, hd] (`positions_last`), those that are kept.
      values: [B, KV, N, T, hd].
      rows: int32 [R], the sequences of the cache that the new ones belong to.
      positions: int32 [R, Q], of the new tokens.
      valid: bool [R, Q]; what is not is not written. At most W of a row are.
      key, value: [R, Q, KV, hd], the new ones.
    """
    blocks, width = values.shape[2:4]
    place = positions % (blocks * width)
    block, place = jnp.where(valid, place // width, blocks), place % width  # out of bounds: dropped
    # Heads are counted out: a TPU would lay the cache with those of a position side by side otherwise, for this alone.
    where = rows[:, None, None], jnp.arange(keys.shape[1]), block[..., None]
    place = place[..., None]
    at = keys.at[*where, :, place] if positions_last() else keys.at[*where, place]
    keys = at.set(key.astype(keys.dtype), mode="drop")
    return keys, values.at[*where, place].set(value.astype(values.dtype), mode="drop")


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
      keys: [R, KV, N, hd, T] or [R, KV, N, T, hd] (`positions_last`).
      values: [R, KV, N, T, hd].
      positions: int32 [R, Q], the queries' own.
      lengths: int32 [R], positions that have been written to each sequence.
      window: a query sees the `window` keys up to itself, itself included.
      scale: factor on the scores.
      span: places to read, at least what the longest sequence fills; None: found when it runs, which costs a loop on a
        CPU nothing.

    Returns:
      [R, Q, H, hd] in the query's dtype.
    """
    blocks, block = values.shape[2:4]
    size, dtype = blocks * block, wide(query.dtype)
    width = tile_size(size, query.shape[1])
    of_tile = width // block
    stacked = split_heads(query.astype(keys.dtype), query.shape[2] // keys.shape[1])[:, :, None]  # [R, KV, 1, G, Q, hd]
    by_block = jnp.broadcast_to(stacked, (*stacked.shape[:2], of_tile, *stacked.shape[3:]))
    positions = positions[:, None, :, None]  # [R, 1, Q, 1]
    scoring = "bkngqd,bkndt->bkngqt" if positions_last() else "bkngqd,bkntd->bkngqt"

    def part(index, peak):
        """A tile's values by their weights, the weights' sum, and the highest score so far, which the weights are less."""
        key, value = (jax.lax.dynamic_slice_in_dim(c, index * of_tile, of_tile, axis=2) for c in (keys, values))
        places = index * width + jnp.arange(width, dtype=jnp.int32).reshape(of_tile, 1, block)
        there = ring_positions(lengths[:, None, None, None], places, size)  # [R, n, 1, T]
        allowed = (there >= 0) & (there <= positions)  # [R, n, Q, T]
        if window is not None:
            allowed &= there > positions - window
        allowed = allowed[:, None, :, None]
        scores = jnp.where(allowed, product(scoring, by_block, key) * scale, MASKED)
        peak = jnp.maximum(peak, jnp.max(scores, axis=(2, 5), keepdims=True))
        weights = jnp.where(allowed, jnp.exp(scores - peak), 0)
        seen = jnp.sum(product("bkngqt,bkntd->bkngqd", weights.astype(values.dtype), value), axis=2, keepdims=True)
        return seen, jnp.sum(weights, axis=(2, 5), keepdims=True), peak

    def step(index, carry):
        output, total, peak = carry
        seen, more, new_peak = part(index, peak)
        shrink = jnp.exp(peak - new_peak)
        return output * shrink + seen, total * shrink + more, new_peak

    column = (*stacked.shape[:-1], 1)
    lowest = jnp.full(column, MASKED, dtype)
    if width == size:
        output, total, _ = part(0, lowest)
    else:
        needed = (
            (jnp.minimum(jnp.max(lengths), size) + width - 1) // width if span is None else -(-min(span, size) // width)
        )
        start = (jnp.zeros(stacked.shape, dtype), jnp.zeros(column, dtype), lowest)
        output, total, _ = jax.lax.fori_loop(0, needed, step, start)
    return merge_heads((output / jnp.maximum(total, jnp.finfo(dtype).tiny))[:, :, 0]).astype(query.dtype)


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
      query: [R, Q, H, hd], or [R, 1, H, hd] of each row's last valid token alone.
      key, value: [R, Q, KV, hd], of the tokens.
      cache: keys and values as `empty` gives them; in a ring at least window - 1 + Q
        places.
      rows: int32 [R], the sequences of the cache that the tokens belong to, none twice; None: all, in order. Over a mesh that
        divides the batch, rows are divided like it, and each counts within its device's part of the cache.
      positions: int32 [R, Q], of the tokens, ascending by one.
      valid: bool [R, Q]: the rest is padding, behind the tokens; it is not written, and its output means nothing.
      rules: which mesh axes split batch, heads and kv_heads.
      window: as in `read`.
      span: as in `read`.

    Returns:
      As many as the query has, in its dtype, and the cache.
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
        asked = positions if query.shape[1] == positions.shape[1] else lengths[:, None] - 1
        return read(query, *chosen, asked, lengths, window=window, scale=scale, span=span), keys, values

    arrays = [query, key, value, *cache, positions, valid, *(() if rows is None else (rows,))]
    if alone:
        output, *cache = local(*arrays)
        return output, tuple(cache)
    batch = partition_spec(rules, ("batch",))
    query_spec, key_spec = (
        partition_spec(rules, ("batch", None, heads, "head_dim")) for heads in ("heads", "kv_heads")
    )
    cache_specs = (partition_spec(rules, CACHE_DIMS),) * 2
    specs = [query_spec, key_spec, key_spec, *cache_specs, *(PartitionSpec(*batch, None),) * 2]
    specs += [] if rows is None else [batch]
    output, *cache = jax.shard_map(local, in_specs=tuple(specs), out_specs=(query_spec, *cache_specs), check_vma=False)(
        *arrays
    )
    return output, tuple(cache)
