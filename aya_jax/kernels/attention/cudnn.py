"""cuDNN's fused attention, with documents packed in a row, for NVIDIA GPUs.

The public function of JAX knows one length per row and no documents. The function below it takes, for every row, where
each document starts and how long it is; `segment_layout` makes those from segment ids. Their number is fixed when the
program is compiled, and a batch with a row of more documents than that is computed by loops of matrix products instead
(`xla_intervals`): slower, never wrong.

Nobody has run this on a GPU yet, so it is picked only by name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from aya_jax.config.errors import UserError
from aya_jax.kernels.attention.intervals import intervals
from aya_jax.kernels.attention.xla_intervals import xla_intervals

# Documents of a row, its padding among them. cuDNN keeps this many float32 per query and head: 64 are 32 MiB for 16 heads
# and a row of 8,192 positions.
MAX_SEGMENTS = 64
_KEYWORDS = {"q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets", "scale", "mask_type", "sliding_window_length"}


class SegmentLayout(NamedTuple):
    """Documents of each row, in order.

    Attributes:
      lengths: int32 [B, M], how long each is; -1 after the last.
      offsets: int32 [B, M + 1], where each starts; -1 after the last.
      counts: int32 [B], how many there are, M or not.
    """

    lengths: jax.Array
    offsets: jax.Array
    counts: jax.Array


def segment_layout(segment_ids: jax.Array, max_segments: int) -> SegmentLayout:
    """Where the documents of each row of segment ids [B, S] start and end; a run of one id is a document.

    Of a row with more than `max_segments` documents the first ones are listed; `counts` tells.
    """
    batch, length = segment_ids.shape
    starts = jnp.concatenate(
        [jnp.ones((batch, 1), bool), segment_ids[:, 1:] != segment_ids[:, :-1]],
        axis=1,
    )
    # One more than are kept, so that the last one kept has an end too; a row that has no more ends at its length.
    find = functools.partial(jnp.nonzero, size=max_segments + 1, fill_value=length)
    edges = jax.vmap(lambda row: find(row)[0])(starts).astype(jnp.int32)
    kept, following = edges[:, :-1], edges[:, 1:]
    lengths = jnp.where(kept < length, following - kept, -1)
    offsets = jnp.where(kept < length, kept, -1)
    offsets = jnp.concatenate([offsets, jnp.full((batch, 1), -1, jnp.int32)], axis=1)
    return SegmentLayout(lengths, offsets, jnp.sum(starts, axis=1, dtype=jnp.int32))


def cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None,
    causal: bool,
    window: int | None,
    scale: float,
    soft_cap: float | None = None,
    max_segments: int = MAX_SEGMENTS,
) -> jax.Array:
    """Attention as in `reference`, in bfloat16 or float16, without a soft cap and without a window over documents.

    Args:
      query: [B, S, H, hd].
      key: [B, S, KV, hd]; H is a multiple of KV.
      value: [B, S, KV, hd].
      segment_ids: int32 [B, S], or None.
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself.
      scale: factor on the scores.
      soft_cap: must be None.
      max_segments: documents of a row, at least 2, up to which cuDNN computes the batch.

    Returns:
      [B, S, H, hd] in the query's dtype.

    Raises:
      UserError: if this JAX has not the function, or it refuses this GPU, cuDNN or shape.
    """
    if soft_cap is not None or (segment_ids is not None and window is not None):
        raise UserError("cudnn attention has no soft cap and no window over documents: choose another implementation")
    if segment_ids is None:
        return _call(query, key, value, "CAUSAL" if causal else "NO_MASK", scale, sliding_window_length=window)
    layout = segment_layout(segment_ids, max_segments)

    def fused(query, key, value):
        if jax.__version_info__ < (0, 11):
            # It counts the keys' offsets in query heads there, so each query head gets a key head of its own.
            key, value = (jnp.repeat(array, query.shape[2] // array.shape[2], axis=2) for array in (key, value))
        lengths, offsets = layout.lengths, layout.offsets
        where = {"q_seqlen": lengths, "kv_seqlen": lengths, "q_offsets": offsets, "kv_offsets": offsets}
        return _call(query, key, value, "PADDING_CAUSAL" if causal else "PADDING", scale, **where)

    def loops(query, key, value):
        index = jnp.arange(query.shape[1], dtype=jnp.int32)
        bounds = intervals(segment_ids, index, causal=causal, window=None, length=key.shape[1])
        return xla_intervals(query, key, value, *bounds, scale=scale, soft_cap=None)

    return jax.lax.cond(jnp.max(layout.counts) <= max_segments, fused, loops, query, key, value)


def _call(query, key, value, mask: str, scale: float, **options) -> jax.Array:
    function, mask_type = _fused_attention()
    try:
        return function(query, key, value, scale=scale, mask_type=mask_type[mask], **options)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(f"cudnn attention is refused here ({error}): choose another implementation") from error


@functools.cache
def _fused_attention() -> tuple[Callable[..., jax.Array], type]:
    """JAX's function and its mask types. They are private, so what is used of them is looked for first."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as fused

        function, mask_type = fused.dot_product_attention, fused.MaskType
        missing = _KEYWORDS - set(inspect.signature(function).parameters)
        missing |= {"NO_MASK", "CAUSAL", "PADDING", "PADDING_CAUSAL"} - set(mask_type.__members__)
    except (ImportError, AttributeError) as error:
        missing = {str(error)}
    if missing:
        raise UserError(
            f"JAX {jax.__version__} has not the cuDNN attention that this project knows ({', '.join(sorted(missing))}): "
            "choose another implementation"
        )
    return function, mask_type
