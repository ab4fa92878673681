"""Picking an attention back-end by platform, mask and shape. One that cannot honour a mask is never picked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from aya_jax.config.errors import UserError
from aya_jax.kernels.attention.cudnn import cudnn
from aya_jax.kernels.attention.intervals import intervals
from aya_jax.kernels.attention.pallas_gpu import pallas_gpu
from aya_jax.kernels.attention.reference import reference, reference_intervals
from aya_jax.kernels.attention.splash import block_size, splash
from aya_jax.kernels.attention.xla import xla
from aya_jax.kernels.attention.xla_intervals import xla_intervals
from aya_jax.parallel import mesh


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is known of the arrays; None is not known yet and holds nothing against a back-end.

    Attributes:
      head_dim: width of a head.
      queries: positions of a row of queries.
      keys: positions of a row of keys.
      dtype: of the queries, keys and values.
    """

    head_dim: int | None = None
    queries: int | None = None
    keys: int | None = None
    dtype: jnp.dtype | None = None


@dataclasses.dataclass(frozen=True)
class Backend:
    """One way to compute attention.

    Attributes:
      name: what a configuration and the start-up banner call it.
      function: takes query, key, value and the keywords segment_ids, causal, window, scale, soft_cap.
      features: what it can honour, of "causal", "full" (no causality), "window", "window_full" (to both sides, without
        causality), "segments", "segments_full" (without causality), "gqa" and "soft_cap".
      platforms: the platforms it runs on ("cpu", "gpu", "tpu").
      over_intervals: takes query, key, value, first, last and the keywords scale and soft_cap; None: it cannot.
      refuses: why it cannot take arrays of a shape, or features together, that it takes apart; None where it can.
      by_name_only: never picked unless asked for: nobody has measured it yet.
    """

    name: str
    function: Callable[..., jax.Array]
    features: frozenset[str]
    platforms: frozenset[str]
    over_intervals: Callable[..., jax.Array] | None = None
    refuses: Callable[[Shape, frozenset[str]], str | None] = lambda shape, needed: None
    by_name_only: bool = False


def by_intervals(over_intervals: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A back-end's `function` from its `over_intervals`."""

    def function(query, key, value, *, segment_ids, causal, window, scale, soft_cap=None, **options):
        index = jnp.arange(query.shape[1], dtype=jnp.int32)
        bounds = intervals(segment_ids, index, causal=causal, window=window, length=key.shape[1])
        first, last = (jnp.broadcast_to(bound, query.shape[:2]) for bound in bounds)
        return over_intervals(query, key, value, first, last, scale=scale, soft_cap=soft_cap, **options)

    return function


def _splash_refuses(shape: Shape, needed: frozenset[str]) -> str | None:
    if shape.queries is not None and block_size(shape.queries) is None:
        return f"a row of {shape.queries} positions is no multiple of 128"
    return None


def _pallas_refuses(shape: Shape, needed: frozenset[str]) -> str | None:
    if shape.head_dim is not None and shape.head_dim % 16:
        return f"head size {shape.head_dim} is no multiple of 16"
    if shape.head_dim is not None and shape.head_dim > 256:
        return f"head size {shape.head_dim} is above 256"
    if shape.dtype is not None and jnp.dtype(shape.dtype).itemsize > 4:
        return f"{jnp.dtype(shape.dtype).name} is wider than its float32 sums"
    return None


def _cudnn_refuses(shape: Shape, needed: frozenset[str]) -> str | None:
    if shape.head_dim is not None and shape.head_dim % 8:
        return f"head size {shape.head_dim} is no multiple of 8"
    if shape.head_dim is not None and shape.head_dim > 128:
        return f"head size {shape.head_dim} is above 128"
    if shape.dtype is not None and shape.dtype not in (jnp.bfloat16, jnp.float16):
        return f"{jnp.dtype(shape.dtype).name} is neither bfloat16 nor float16"
    if shape.queries is not None and shape.queries % 2:
        return f"a row of {shape.queries} positions is odd"
    if "window" in needed and needed & {"segments", "segments_full"}:
        return "no window over packed documents"
    return None


_ANYWHERE, _GPU, _TPU = frozenset({"cpu", "gpu", "tpu"}), frozenset({"gpu"}), frozenset({"tpu"})
_ALL = frozenset({"causal", "full", "window", "window_full", "segments", "segments_full", "gqa", "soft_cap"})

# In order of preference.
BACKENDS: tuple[Backend, ...] = (
    Backend("splash", splash, _ALL, _TPU, refuses=_splash_refuses),
    Backend("xla", xla, _ALL - {"segments_full"}, _ANYWHERE),
    Backend("interval", by_intervals(xla_intervals), _ALL, _ANYWHERE, over_intervals=xla_intervals),
    Backend(
        "pallas_gpu",
        by_intervals(pallas_gpu),
        _ALL,
        _GPU,
        over_intervals=pallas_gpu,
        refuses=_pallas_refuses,
        by_name_only=True,
    ),
    Backend("cudnn", cudnn, _ALL - {"window_full", "soft_cap"}, _GPU, refuses=_cudnn_refuses, by_name_only=True),
    Backend("reference", reference, _ALL, _ANYWHERE, over_intervals=reference_intervals),
)


def needed_features(
    *, segments: bool, causal: bool, window: int | None, gqa: bool, soft_cap: float | None = None
) -> frozenset[str]:
    """The features that a call asks of its back-end."""
    needed = {"causal" if causal else "full"}
    if segments:
        needed.add("segments" if causal else "segments_full")
    if window is not None:
        needed.add("window" if causal else "window_full")
    if gqa:
        needed.add("gqa")
    if soft_cap is not None:
        needed.add("soft_cap")
    return frozenset(needed)


def choose(
    *,
    platform: str | None = None,
    segments: bool = True,
    causal: bool = True,
    window: int | None = None,
    gqa: bool = True,
    soft_cap: float | None = None,
    shape: Shape = Shape(),
    implementation: str | None = None,
    backends: tuple[Backend, ...] | None = None,
) -> str:
    """The name of the back-end for a platform (by default that of the mesh in context, or JAX's), a mask and a shape.

    Raises:
      UserError: if the one asked for is unknown or cannot do this here, or if none can; it names each one's reason.
    """
    needed = needed_features(segments=segments, causal=causal, window=window, gqa=gqa, soft_cap=soft_cap)
    return _pick(platform, needed, shape, implementation, BACKENDS if backends is None else backends).name


def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    segment_ids: jax.Array | None = None,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Attention of each query over the keys that its mask leaves it.

    Args:
      query: [B, S, H, hd].
      key: [B, S, KV, hd]; H is a multiple of KV.
      value: [B, S, KV, hd].
      segment_ids: int32 [B, S], documents packed one after the other; a query sees its own segment only.
      causal: a query sees no key after it.
      window: a query sees the `window` keys up to itself, itself included; without causality as many after it too.
      scale: factor on the scores; by default hd ** -0.5.
      soft_cap: scores s become cap * tanh(s / cap) (Gemma Team 2024, Gemma 2, section 2).
      implementation: the name of a back-end; by default `choose` picks one.

    Returns:
      [B, S, H, hd] in the query's dtype.

    Raises:
      UserError: if no back-end, or not the one asked for, can honour the mask.
    """
    gqa = query.shape[2] != key.shape[2]
    needed = needed_features(segments=segment_ids is not None, causal=causal, window=window, gqa=gqa, soft_cap=soft_cap)
    backend = _pick(None, needed, _shape(query, key), implementation, BACKENDS)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return backend.function(
        query, key, value, segment_ids=segment_ids, causal=causal, window=window, scale=scale, soft_cap=soft_cap
    )


def interval_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    first: jax.Array,
    last: jax.Array,
    *,
    scale: float | None = None,
    soft_cap: float | None = None,
    implementation: str | None = None,
) -> jax.Array:
    """Attention of query q of row b over the keys first[b, q] to last[b, q], both inclusive.

    `intervals` makes the bounds from a mask. Queries may stand in any order, and be fewer than the keys.

    Args:
      query: [B, Q, H, hd].
      key: [B, K, KV, hd]; H is a multiple of KV.
      value: [B, K, KV, hd].
      first: int32 [B, Q].
      last: int32 [B, Q]; before `first`: the query sees no key, and its output is 0.
      scale: factor on the scores; by default hd ** -0.5.
      soft_cap: scores s become cap * tanh(s / cap).
      implementation: the name of a back-end that takes intervals; by default the first that can.

    Returns:
      [B, Q, H, hd] in the query's dtype.

    Raises:
      UserError: if no back-end, or not the one asked for, can do this.
    """
    needed = {name for name, asked in (("gqa", query.shape[2] != key.shape[2]), ("soft_cap", soft_cap)) if asked}
    backend = _pick(None, frozenset(needed | {"intervals"}), _shape(query, key), implementation, BACKENDS)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return backend.over_intervals(query, key, value, first, last, scale=scale, soft_cap=soft_cap)


def _shape(query: jax.Array, key: jax.Array) -> Shape:
    return Shape(query.shape[3], query.shape[1], key.shape[1], query.dtype)


def _pick(
    platform: str | None,
    needed: frozenset[str],
    shape: Shape,
    implementation: str | None,
    backends: tuple[Backend, ...],
) -> Backend:
    """The first back-end that can, or the one asked for; UserError with each one's reason otherwise."""
    platform = platform or mesh.platform()
    candidates = [backend for backend in backends if implementation in (None, backend.name)]
    if not candidates:
        raise UserError(
            f"no attention back-end {implementation!r}; there are {', '.join(backend.name for backend in backends)}"
        )
    reasons = []
    for backend in candidates:
        reason = _refusal(backend, platform, needed, shape)
        if reason is None and backend.by_name_only and implementation is None:
            reason = "only when asked for by name"
        if reason is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    if implementation is None:
        raise UserError(f"no attention back-end can do this ({'; '.join(reasons)})")
    able = [backend.name for backend in backends if _refusal(backend, platform, needed, shape) is None]
    advice = f"one of {', '.join(able)}" if able else "another model or platform: no other back-end can either"
    raise UserError(f"attention implementation {'; '.join(reasons)}; choose {advice}, or leave `implementation` unset")


def _refusal(backend: Backend, platform: str, needed: frozenset[str], shape: Shape) -> str | None:
    """Why a back-end cannot do this, or None."""
    if platform not in backend.platforms:
        return f"not on {platform}"
    features = backend.features | ({"intervals"} if backend.over_intervals else set())
    if needed - features:
        return f"does not honour {', '.join(sorted(needed - features))}"
    return backend.refuses(shape, needed)
