"""Splash attention, the block-sparse kernel that ships with JAX for TPUs, behind this project's signature.

Its mask is fixed when it is compiled (causality and the window), so the blocks that it hides are never visited; documents
are told apart inside a block by their segment ids. It takes one key head at a time and is mapped over rows and key heads.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

# Largest first; each a multiple of the 128 lanes of a TPU's vector unit.
_BLOCKS = (512, 256, 128)


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None,
    causal: bool,
    window: int | None,
    scale: float,
    soft_cap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Attention as in `reference`, for rows that are a multiple of 128 positions.

    Args:
      query: [B, S, H, hd].
      key: [B, S, KV, hd]; H is a multiple of KV.
      value: [B, S, KV, hd].
      segment_ids: int32 [B, S].
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself; without causality as many after it too.
      scale: factor on the scores.
      soft_cap: scores s become cap * tanh(s / cap).
      interpret: run the kernels step by step on any platform, for tests.

    Returns:
      [B, S, H, hd] in the query's dtype.
    """
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    kernel = kernels.make_splash_mqa_single_device(
        masks.MultiHeadMask([_mask(length, causal, window)] * (heads // kv_heads)),
        block_sizes=_block_sizes(length),
        attn_logits_soft_cap=soft_cap,
        interpret=interpret,
    )
    # The kernel has no scale of its own. [B, S, KV * G, hd] -> [B, KV, G, S, hd].
    query = (query * jnp.asarray(scale, query.dtype)).reshape(batch, length, kv_heads, -1, width)
    query = query.transpose(0, 2, 3, 1, 4)
    key, value = (array.transpose(0, 2, 1, 3) for array in (key, value))
    over_heads = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    if segment_ids is None:
        output = jax.vmap(lambda *row: over_heads(*row, None))(query, key, value)
    else:
        segments = kernels.SegmentIds(segment_ids, segment_ids)
        output = jax.vmap(over_heads)(query, key, value, segments)
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def block_size(length: int) -> int | None:
    """The largest block that divides a row of `length` positions; None: no block does."""
    return next((size for size in _BLOCKS if length % size == 0), None)


def _mask(length: int, causal: bool, window: int | None) -> masks.Mask:
    shape = (length, length)
    if window is not None:
        return masks.LocalMask(shape, (window - 1, 0 if causal else window - 1), 0)
    return masks.CausalMask(shape) if causal else masks.FullMask(shape)


def _block_sizes(length: int) -> kernels.BlockSizes:
    size = block_size(length)
    return kernels.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
