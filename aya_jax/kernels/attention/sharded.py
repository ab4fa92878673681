"""Attention over a mesh: each device runs a back-end on its rows, heads and, with context parallelism, its positions.

Context parallelism splits a sequence over n devices. Keys and values are gathered (with grouped-query attention they are
small beside the queries; Llama Team 2024, The Llama 3 Herd of Models, section 3.3.2), queries stay. Causality gives late
positions more work than early ones, so the sequence is cut into 2n chunks and device i holds chunks i and 2n - 1 - i: the
work of each device is the same (Brandon et al. 2023, Striped Attention, has another such order). `to_shards` puts
positions into that order before the model, `from_shards` back after it; between, only attention minds the order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, PartitionSpec

from aya_jax.config.errors import UserError
from aya_jax.kernels.attention.dispatch import attention, interval_attention
from aya_jax.kernels.attention.intervals import intervals
from aya_jax.parallel.config import LogicalAxes, as_tuple
from aya_jax.parallel.sharding import partition_spec


def sharded_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    rules: LogicalAxes,
    segment_ids: jax.Array | None = None,
    causal: bool = True,
    window: int | None = None,
    bounds: tuple[jax.Array, jax.Array] | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """`attention` under the mesh in context; without one, or over one device, exactly that.

    Args:
      query: [B, S, H, hd], positions in the order of `to_shards`.
      key: [B, S, KV, hd].
      value: [B, S, KV, hd].
      rules: which mesh axes split batch, sequence, heads and kv_heads. Where heads are split and kv_heads are not, each
        device takes the key heads that its query heads use.
      segment_ids: int32 [B, S], in the same order.
      bounds: the first and the last key that each query sees, int32 [B, S] each, of a row in its own order, in place of all
        that segments, causality and window say; the queries are in the order of `to_shards`.
      causal, window, scale, implementation: as in `attention`.

    Returns:
      [B, S, H, hd] in the query's dtype.

    Raises:
      UserError: if the rows or heads do not divide over the mesh, or no back-end can honour the mask.
    """
    options = {"scale": scale, "implementation": implementation}
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        if bounds is not None:
            return interval_attention(query, key, value, *bounds, **options)
        return attention(query, key, value, segment_ids=segment_ids, causal=causal, window=window, **options)
    specs = [partition_spec(rules, ("batch", "sequence", heads, None)) for heads in ("heads", "kv_heads", "kv_heads")]
    _check_divides(mesh, specs[0], query.shape, ("rows of a batch", "positions", "query heads"))
    _check_divides(mesh, specs[1], key.shape, ("rows of a batch", "positions", "key heads"))
    arrays, groups = [query, key, value], query.shape[2] // key.shape[2]
    more = bounds if bounds is not None else () if segment_ids is None else (segment_ids,)
    arrays += more
    specs += len(more) * [partition_spec(rules, ("batch", "sequence"))]

    def local(query: jax.Array, key: jax.Array, value: jax.Array, *more: jax.Array) -> jax.Array:
        if as_tuple(rules.heads) != as_tuple(rules.kv_heads):
            key, value = (used_heads(array, query.shape[2], groups, mesh, rules) for array in (key, value))
        if bounds is not None:
            if sequence_parts(rules) > 1:
                key, value = (_gather(array, rules) for array in (key, value))
            return interval_attention(query, key, value, *more, **options)
        segments = more[0] if more else None
        if sequence_parts(rules) == 1:
            return attention(query, key, value, segment_ids=segments, causal=causal, window=window, **options)
        key, value, segments = (_gather(array, rules) for array in (key, value, segments))
        index = _local_positions(query.shape[1], rules)
        first, last = intervals(segments, index, causal=causal, window=window, length=key.shape[1])
        first, last = (jnp.broadcast_to(bound, query.shape[:2]) for bound in (first, last))
        return interval_attention(query, key, value, first, last, **options)

    # The jit within: without it jaxlib 0.11.2 crashes when it compiles the gradient (in Shardy, over an input not used).
    return jax.shard_map(jax.jit(local), in_specs=tuple(specs), out_specs=specs[0], check_vma=False)(*arrays)


# The order of positions ----------------------------------------------------------------------------------------------


def sequence_parts(rules: LogicalAxes) -> int:
    """Over how many devices the mesh in context splits a sequence."""
    return _size(jax.sharding.get_abstract_mesh(), rules.sequence)


def to_shards(array: jax.Array, rules: LogicalAxes) -> jax.Array:
    """Brings [B, S, ...] into the order in which contiguous parts are the devices' shares; the identity for one part.

    Raises:
      UserError: if S is no multiple of twice the number of parts.
    """
    parts = sequence_parts(rules)
    return array if parts == 1 else _reorder(array, chunk_order(parts))


def from_shards(array: jax.Array, rules: LogicalAxes) -> jax.Array:
    """The inverse of `to_shards`."""
    parts = sequence_parts(rules)
    return array if parts == 1 else _reorder(array, np.argsort(chunk_order(parts)))


def chunk_order(parts: int) -> np.ndarray:
    """Which of the 2n chunks of a sequence lies where: 0, 2n - 1, 1, 2n - 2, ...; int [2n]."""
    return np.stack([np.arange(parts), 2 * parts - 1 - np.arange(parts)], axis=1).reshape(-1)


def _reorder(array: jax.Array, order: np.ndarray) -> jax.Array:
    batch, length = array.shape[:2]
    if length % len(order):
        raise UserError(
            f"a sequence of {length} tokens does not divide into {len(order)} chunks, two for each of the {len(order) // 2} "
            "devices that share it: choose another SEQUENCE_LENGTH or MeshConfig.context"
        )
    chunks = array.reshape(batch, len(order), length // len(order), *array.shape[2:])
    return chunks[:, order].reshape(array.shape)


def _local_positions(length: int, rules: LogicalAxes) -> jax.Array:
    """The positions in the sequence that this device holds, int32 [length]."""
    chunks = jnp.asarray(chunk_order(sequence_parts(rules)), jnp.int32).reshape(-1, 2)
    own = chunks[jax.lax.axis_index(as_tuple(rules.sequence))]
    within = jnp.arange(length // 2, dtype=jnp.int32)
    return (own[:, None] * (length // 2) + within).reshape(-1)


def _gather(array: jax.Array | None, rules: LogicalAxes) -> jax.Array | None:
    """All positions of [B, S / n, ...], in their own order."""
    if array is None:
        return None
    return from_shards(jax.lax.all_gather(array, as_tuple(rules.sequence), axis=1, tiled=True), rules)


# Heads and sizes -----------------------------------------------------------------------------------------------------


def used_heads(
    array: jax.Array, query_heads: int, groups: int, mesh: AbstractMesh, rules: LogicalAxes, dim: int = 2
) -> jax.Array:
    """Of all key heads, those that this device's query heads use.

    Args:
      array: keys or values with all heads: [B, S, KV, hd], or another layout that has them in `dim`.
      query_heads: that this device has.
      groups: query heads to a key head.
      mesh: in context.
      rules: which mesh axes split the query heads.
      dim: of the heads.
    """
    count = max(1, query_heads // groups)
    if query_heads % groups and groups % query_heads:
        raise UserError(
            f"{_size(mesh, rules.heads)} devices share the query heads so that one has parts of several groups: choose a "
            "MeshConfig.tensor that divides the key heads, or is a multiple of them"
        )
    start = jax.lax.axis_index(as_tuple(rules.heads)) * query_heads // groups
    return jax.lax.dynamic_slice_in_dim(array, start, count, axis=dim)


def _size(mesh: AbstractMesh, axes: str | tuple[str, ...] | None) -> int:
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in as_tuple(axes))


def _check_divides(mesh: AbstractMesh, spec: PartitionSpec, shape: Sequence[int], names: Sequence[str]) -> None:
    for name, axes, size in zip(names, spec, shape, strict=False):
        parts = _size(mesh, axes)
        if size % parts:
            raise UserError(
                f"{size} {name} do not divide over {' x '.join(as_tuple(axes))} = {parts} devices: choose another mesh"
            )
