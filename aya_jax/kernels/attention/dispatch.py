"""Picking an attention back-end by platform and mask. One that cannot honour a mask is never picked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from aya_jax.config.errors import UserError
from aya_jax.kernels.attention.reference import reference
from aya_jax.kernels.attention.xla import xla


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
      name: what a configuration and the start-up banner call it.
      function: takes query, key, value and the keywords segment_ids, causal, window, scale.
      features: what it can honour, of "causal", "full" (no causality), "window", "segments", "segments_full" (segments
        without causality) and "gqa".
      platforms: the platforms it runs on ("cpu", "gpu", "tpu").
    """

    name: str
    function: Callable[..., jax.Array]
    features: frozenset[str]
    platforms: frozenset[str]


_ANYWHERE = frozenset({"cpu", "gpu", "tpu"})
_ALL = frozenset({"causal", "full", "window", "segments", "segments_full", "gqa"})

# In order of preference.
BACKENDS: tuple[Backend, ...] = (
    Backend("xla", xla, _ALL - {"segments_full"}, _ANYWHERE),
    Backend("reference", reference, _ALL, _ANYWHERE),
)


def needed_features(*, segments: bool, causal: bool, window: int | None, gqa: bool) -> frozenset[str]:
    """The features that a call asks of its back-end."""
    needed = {"causal" if causal else "full"}
    if segments:
        needed.add("segments" if causal else "segments_full")
    if window is not None:
        needed.add("window")
    if gqa:
        needed.add("gqa")
    return frozenset(needed)


def choose(
    *,
    platform: str | None = None,
    segments: bool = True,
    causal: bool = True,
    window: int | None = None,
    gqa: bool = True,
    implementation: str | None = None,
    backends: tuple[Backend, ...] = BACKENDS,
) -> str:
    """The name of the back-end for a platform (by default JAX's) and a mask.

    Raises:
      UserError: if the one asked for is unknown or cannot honour the mask on this platform, or if none can.
    """
    platform = platform or jax.default_backend()
    needed = needed_features(segments=segments, causal=causal, window=window, gqa=gqa)
    candidates = [backend for backend in backends if implementation in (None, backend.name)]
    if not candidates:
        raise UserError(
            f"no attention back-end {implementation!r}; there are {', '.join(backend.name for backend in backends)}"
        )
    for backend in candidates:
        if platform in backend.platforms and needed <= backend.features:
            return backend.name
    names = ", ".join(backend.name for backend in candidates)
    raise UserError(f"no attention back-end of [{names}] honours {', '.join(sorted(needed))} on {platform}")


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None = None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Attention of each query over the keys that its mask leaves it.

    Args:
      query: [B, S, H, hd].
      key: [B, S, KV, hd]; H is a multiple of KV.
      value: [B, S, KV, hd].
      segment_ids: int32 [B, S], documents packed one after the other; a query sees its own segment only.
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself, itself included.
      scale: factor on the scores; by default hd ** -0.5.
      implementation: the name of a back-end; by default `choose` picks one.

    Returns:
      [B, S, H, hd] in the query's dtype.

    Raises:
      UserError: if no back-end, or not the one asked for, can honour the mask.
    """
    name = choose(
        segments=segment_ids is not None,
        causal=causal,
        window=window,
        gqa=query.shape[2] != key.shape[2],
        implementation=implementation,
    )
    function = next(backend.function for backend in BACKENDS if backend.name == name)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return function(query, key, value, segment_ids=segment_ids, causal=causal, window=window, scale=scale)
