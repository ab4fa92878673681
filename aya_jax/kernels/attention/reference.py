"""Attention in plain jnp with a dense mask: what every back-end is held to."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dense_mask(
    query_index: jax.Array, key_index: jax.Array, *, causal: bool, window: int | None, first_key: jax.Array | None
) -> jax.Array:
    """Which keys each query may see.

    Args:
      query_index: [Q], positions of the queries in their row.
      key_index: [K], positions of the keys.
      causal: a query sees no key after it.
      window: a query sees at most this many keys up to itself, itself included.
      first_key: [B, Q], the first key of the query's document, or None where a row is one document.

    Returns:
      bool [Q, K], or [B, Q, K] with `first_key`.
    """
    query, key = query_index[:, None], key_index[None, :]
    mask = jnp.ones((query_index.shape[0], key_index.shape[0]), bool)
    if causal:
        mask &= key <= query
    if window is not None:
        mask &= key > query - window
        if not causal:
            mask &= key < query + window
    if first_key is not None:
        mask = mask[None] & (key[None] >= first_key[..., None])
    return mask


def reference(
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
    """softmax(scale * q k^T + mask) v, in float32, or in float64 where the inputs are.

    Args:
      query: [B, S, H, hd].
      key: [B, S, KV, hd]; H is a multiple of KV.
      value: [B, S, KV, hd].
      segment_ids: int32 [B, S]; a query sees the keys of its own segment only.
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself.
      scale: factor on the scores.
      soft_cap: scores s become cap * tanh(s / cap).

    Returns:
      [B, S, H, hd] in the query's dtype.
    """
    index = jnp.arange(query.shape[1])
    mask = dense_mask(index, index, causal=causal, window=window, first_key=None)[None]
    if segment_ids is not None:
        mask = mask & (segment_ids[:, :, None] == segment_ids[:, None, :])
    return _masked(query, key, value, mask, scale, soft_cap)


def reference_intervals(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    first: jax.Array,
    last: jax.Array,
    *,
    scale: float,
    soft_cap: float | None,
) -> jax.Array:
    """The same where query q of row b sees the keys first[b, q] to last[b, q]; 0 where there are none.

    Args:
      query: [B, Q, H, hd].
      key: [B, K, KV, hd].
      value: [B, K, KV, hd].
      first: int32 [B, Q].
      last: int32 [B, Q].
      scale: factor on the scores.
      soft_cap: scores s become cap * tanh(s / cap).

    Returns:
      [B, Q, H, hd] in the query's dtype.
    """
    index = jnp.arange(key.shape[1])
    mask = (first[..., None] <= index) & (index <= last[..., None])
    return _masked(query, key, value, mask, scale, soft_cap)


def _masked(query, key, value, mask, scale: float, soft_cap: float | None) -> jax.Array:
    """Under a mask [B or 1, Q, K], or 0 where it leaves a query nothing."""
    groups = query.shape[2] // key.shape[2]
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    key, value = (jnp.repeat(array, groups, axis=2).astype(dtype) for array in (key, value))
    scores = jnp.einsum("bqhd,bkhd->bhqk", query.astype(dtype) * scale, key)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    weights = jax.nn.softmax(scores, axis=-1, where=mask[:, None])
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).astype(query.dtype)
