"""Masks as intervals: each query sees the keys from a first to a last one, and no mask need be kept.

Causality, a window, packed documents and any mix of them leave a query one run of keys, so two integers per query say
everything that a mask of queries times keys would. They are ordinary arrays: with context parallelism a device computes
them for the queries that it holds, in whatever order it holds them, and a back-end skips the keys that none of a tile of
queries sees.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def document_bounds(segment_ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each token's document starts and ends (both inclusive).

    Args:
      segment_ids: [B, S]; the tokens of a document lie side by side.

    Returns:
      Two int32 [B, S].
    """
    index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)
    differs = segment_ids[:, 1:] != segment_ids[:, :-1]
    edge = jnp.ones_like(segment_ids[:, :1], bool)
    starts = jnp.concatenate([edge, differs], axis=1)
    ends = jnp.concatenate([differs, edge], axis=1)
    first = jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
    last = jax.lax.cummin(jnp.where(ends, index, segment_ids.shape[1] - 1), axis=1, reverse=True)
    return first, last


def intervals(
    segment_ids: jax.Array | None, query_index: jax.Array, *, causal: bool, window: int | None, length: int
) -> tuple[jax.Array, jax.Array]:
    """The first and the last key that each query sees.

    Args:
      segment_ids: int32 [B, length], the documents of a whole row, one after the other; None where a row is one document.
      query_index: int32 [Q] or [B, Q], where the queries stand in their row, in any order.
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself, itself included; without causality as many after it too.
      length: how many keys a row has.

    Returns:
      Two int32 arrays: [B, Q] with segment_ids, else of query_index's shape.
    """
    first, last = jnp.zeros_like(query_index), jnp.full_like(query_index, length - 1)
    if causal:
        last = query_index
    if window is not None:
        first = jnp.maximum(first, query_index - window + 1)
        last = jnp.minimum(last, query_index + window - 1)
    if segment_ids is not None:
        rows = jnp.broadcast_to(query_index, (segment_ids.shape[0], query_index.shape[-1]))
        starts, ends = (jnp.take_along_axis(bound, rows, axis=1) for bound in document_bounds(segment_ids))
        first, last = jnp.maximum(first, starts), jnp.minimum(last, ends)
    return first.astype(jnp.int32), last.astype(jnp.int32)


def clip(first: jax.Array, last: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """The same intervals within 0 to length - 1; an empty one becomes (length, -1), which widens no minimum or maximum."""
    first, last = jnp.maximum(first, 0), jnp.minimum(last, length - 1)
    empty = last < first
    return jnp.where(empty, length, first), jnp.where(empty, -1, last)
