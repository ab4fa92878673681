"""The decoder's computation as pure functions of parameters and activations.

Nothing here knows Flax: the same functions serve training, decoding and ahead-of-time compilation. Parameters come in
whatever dtype they are held in and are cast to the activations' dtype where they meet them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from aya_jax.kernels.attention.sharded import sharded_attention, to_shards
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.projection import Adapted, project
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import constrain

Params = Mapping[str, "jax.Array | Params"]

LAYER_INPUT = "layer_input"  # what rematerialisation may move to the host

# The logical names of the dims of every activation that is pinned to the mesh.
ACTIVATION_AXES: Mapping[str, tuple[str | None, ...]] = {
    "residual": ("batch", "residual", None),
    "query": ("batch", "sequence", "heads", "head_dim"),
    "key": ("batch", "sequence", "kv_heads", "head_dim"),
    "value": ("batch", "sequence", "kv_heads", "head_dim"),
    "attended": ("batch", "sequence", "heads", "head_dim"),
    "gate": ("batch", "sequence", "mlp"),
    "up": ("batch", "sequence", "mlp"),
    "final": ("batch", "sequence", None),
}


def pin(name: str, array: jax.Array, rules: LogicalAxes) -> jax.Array:
    """`constrain`s the activation of this name in `ACTIVATION_AXES`."""
    return constrain(array, rules, ACTIVATION_AXES[name])


class Rotation(NamedTuple):
    """What the two halves of a head, and then each other's, are multiplied by: float32 [B, S, 1, 2, hd / 2].

    Attributes:
      cos: of every position's angles, twice.
      sin: for the first half with the sign turned.
    """

    cos: jax.Array
    sin: jax.Array


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What differs between layers of one model.

    Attributes:
      window: keys that a query sees, itself included; None: all before it.
      rope: whether queries and keys are rotated.
    """

    window: int | None
    rope: bool


Attend = Callable[[LayerKind, jax.Array, jax.Array, jax.Array], jax.Array]
"""Rotated queries [B, S, H, hd], keys and values [B, S, KV, hd] of a layer -> [B, S, H, hd]: over the sequence itself in
training, over a cache in decoding."""
Keep = Callable[[jax.Array], jax.Array]
"""Of [B, S, ...] the positions whose output is wanted, [G, N, ...]."""


def keep_all(array: jax.Array) -> jax.Array:
    """Every position's output is wanted."""
    return array


def attend_within(
    precision: PrecisionConfig,
    rules: LogicalAxes,
    segment_ids: jax.Array | None,
    bounds: tuple[jax.Array, jax.Array] | None = None,
) -> Attend:
    """Attention of a row's tokens to those of the row: causal, within documents and the layer's window.

    Args:
      precision: names the back-end.
      rules: which mesh axes split which dims.
      segment_ids: documents, int32 [B, S].
      bounds: in their place and causality's, the first and the last key that each token sees, int32 [B, S] each.
    """

    def attend(kind: LayerKind, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        if bounds is not None:
            first, last = bounds
            if kind.window is not None:
                index = to_shards(jnp.broadcast_to(jnp.arange(first.shape[1], dtype=jnp.int32), first.shape), rules)
                first = jnp.maximum(first, index - kind.window + 1)
                last = jnp.minimum(last, index + kind.window - 1)
            return sharded_attention(query, key, value, rules=rules, bounds=(first, last))
        mask = {"segment_ids": segment_ids, "causal": True, "window": kind.window}
        return sharded_attention(query, key, value, rules=rules, **mask, implementation=precision.attention)

    return attend


def layer_kinds(config: TransformerConfig) -> tuple[LayerKind, ...]:
    """The kinds of the layers in one repeating group: one layer, or `sliding_window_pattern` layers, the last full."""
    local = LayerKind(config.sliding_window, True)
    if config.sliding_window_pattern is None:
        return (local,)
    return (local,) * (config.sliding_window_pattern - 1) + (LayerKind(None, config.rope_on_full_layers),)


@jax.named_scope("norm")
def norm(config: TransformerConfig, scale: jax.Array, inputs: jax.Array) -> jax.Array:
    """LayerNorm or RMSNorm over the last dim, with a weight and no bias, in float32; returns the inputs' dtype.

    Args:
      config: says which norm, and its epsilon.
      scale: the weight, broadcast against the inputs.
      inputs: [..., D].
    """
    values = inputs.astype(jnp.float32)
    if config.norm == "layer_norm":
        values = values - jnp.mean(values, axis=-1, keepdims=True)
    values = values * jax.lax.rsqrt(jnp.mean(jnp.square(values), axis=-1, keepdims=True) + config.norm_eps)
    return (values * scale.astype(jnp.float32)).astype(inputs.dtype)


def rope_frequencies(config: TransformerConfig) -> np.ndarray:
    """Radians per position of each pair of dims, float64 [hd / 2].

    theta^(-2i / hd) (Su et al. 2021, RoFormer, section 3.3), and with "llama3" scaling the piecewise stretch of Llama
    3.1: wavelengths beyond original / low are stretched by the factor, those below original / high are kept, and those
    between are interpolated.
    """
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim)
    if config.rope_scaling == "none":
        return frequencies
    low, high = config.rope_low_frequency_factor, config.rope_high_frequency_factor
    turns = config.rope_original_length * frequencies / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return kept * frequencies + (1 - kept) * frequencies / config.rope_scaling_factor


def rotation(config: TransformerConfig, positions: jax.Array) -> Rotation:
    """The rotation of each position in int32 [B, S]."""
    angles = positions[..., None, None].astype(jnp.float32) * jnp.asarray(rope_frequencies(config), jnp.float32)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    # Put together here and not where it is used: XLA on CPU would compute cosines anew for every head of every layer.
    return Rotation(jnp.stack([cos, cos], axis=-2), jnp.stack([-sin, sin], axis=-2))


def rotate(heads: jax.Array, angles: Rotation) -> jax.Array:
    """Rotates the pairs (i, i + hd / 2) of heads [B, S, H, hd], in float32; returns the heads' dtype."""
    halves = heads.astype(jnp.float32).reshape(*heads.shape[:-1], 2, -1)
    rotated = halves * angles.cos + jnp.flip(halves, axis=-2) * angles.sin
    return rotated.reshape(heads.shape).astype(heads.dtype)


def pairs_to_halves(array: jax.Array) -> jax.Array:
    """Reorders the last dim from (0, 1), (2, 3)... to all firsts, then all seconds."""
    *rest, width = array.shape
    return array.reshape(*rest, width // 2, 2).swapaxes(-1, -2).reshape(*rest, width)


@jax.named_scope("attention")
def self_attention(
    config: TransformerConfig,
    precision: PrecisionConfig,
    rules: LogicalAxes,
    kind: LayerKind,
    params: Params,
    inputs: jax.Array,
    angles: Rotation,
    attend: Attend,
) -> jax.Array:
    """Grouped-query attention of normed inputs [B, S, D] -> [B, S, D]."""
    query, key, value = project_heads(config, precision, kind, params, inputs)
    query, key, value = pin("query", query, rules), pin("key", key, rules), pin("value", value, rules)
    if config.qk_norm:
        reorder = _reorder(config, kind)
        query = norm(config, reorder(params["query_norm"]["scale"]), query)
        key = norm(config, reorder(params["key_norm"]["scale"]), key)
    if kind.rope:
        query, key = rotate(query, angles), rotate(key, angles)
    output = pin("attended", attend(kind, query, key, value), rules)
    return project(precision, "bshk,hkd->bsd", output, params["output"])


def project_heads(
    config: TransformerConfig, precision: PrecisionConfig, kind: LayerKind, params: Params, inputs: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries [B, S, H, hd], keys and values [B, S, KV, hd] of normed inputs [B, S, D].

    An interleaved model's query and key projections are reordered to the half-split layout here: scores do not change
    when both are permuted alike, permuting [D, H, hd] weights is cheaper than [B, S, H, hd] activations, and the halves
    are what vector units want. Stored parameters keep the published layout. `fuse_heads` makes one product of the three.
    """
    if "heads" in params:
        heads = project(precision, "bsd,dngk->bsngk", inputs, params["heads"])
        query = heads[..., :-2, :].reshape(*inputs.shape[:2], -1, heads.shape[-1])
        return query, heads[..., -2, :], heads[..., -1, :]
    reorder = _reorder(config, kind)
    query = project(precision, "bsd,dhk->bshk", inputs, reorder(params["query"]))
    key = project(precision, "bsd,dhk->bshk", inputs, reorder(params["key"]))
    return query, key, project(precision, "bsd,dhk->bshk", inputs, params["value"])


def _reorder(config: TransformerConfig, kind: LayerKind) -> Callable[[Any], Any]:
    if config.rope_layout != "interleaved" or not kind.rope:
        return lambda array: array

    def reorder(array: jax.Array | Adapted) -> jax.Array | Adapted:
        if isinstance(array, Adapted):
            return Adapted(pairs_to_halves(array.weight), array.a, pairs_to_halves(array.b))
        return pairs_to_halves(array)

    return reorder


@jax.named_scope("mlp")
def swiglu(precision: PrecisionConfig, rules: LogicalAxes, params: Params, inputs: jax.Array) -> jax.Array:
    """down(silu(gate(x)) * up(x)) of normed inputs [B, S, D] (Shazeer 2020, GLU Variants)."""
    if "gate_up" in params:
        both = project(precision, "bsd,dcm->bscm", inputs, params["gate_up"])
        gate, up = both[:, :, 0], both[:, :, 1]
    else:
        gate, up = (project(precision, "bsd,dm->bsm", inputs, params[name]) for name in ("gate", "up"))
    gate, up = pin("gate", gate, rules), pin("up", up, rules)
    return project(precision, "bsm,md->bsd", jax.nn.silu(gate) * up, params["down"])


def fuse_heads(attention: Params) -> Params:
    """One layer's query [D, H, hd], key and value [D, KV, hd] as "heads" [D, KV, H / KV + 2, hd], one product for few tokens.

    Each key head's queries, then the key and the value, so that a mesh divides them as before.
    """
    width, kv_heads, head = attention["key"].shape
    query = attention["query"].reshape(width, kv_heads, -1, head)
    heads = jnp.concatenate([query, attention["key"][:, :, None], attention["value"][:, :, None]], axis=2)
    kept = {name: part for name, part in attention.items() if name not in ("query", "key", "value")}
    return {**kept, "heads": heads}


def fuse_gate(mlp: Params) -> Params:
    """One layer's gate and up [D, F] as "gate_up" [D, 2, F], one product for few tokens."""
    return {"gate_up": jnp.stack([mlp["gate"], mlp["up"]], axis=1), "down": mlp["down"]}


def block(
    config: TransformerConfig,
    precision: PrecisionConfig,
    rules: LogicalAxes,
    kind: LayerKind,
    params: Params,
    inputs: jax.Array,
    angles: Rotation,
    attend: Attend,
    keep: Keep = keep_all,
) -> jax.Array:
    """One layer: [B, S, D] -> [B, S, D].

    Args:
      config, precision, rules, kind: of the model and the layer.
      params: the layer's.
      inputs: [B, S, D].
      angles: of every position.
      attend: as in `Attend`.
      keep: the positions whose output is wanted, those for which `attend` gives one; the others are only keys and values.
    """
    inputs = checkpoint_name(inputs, LAYER_INPUT)
    if config.block == "parallel":
        normed = norm(config, params["norm"]["scale"], inputs)
        attended = self_attention(config, precision, rules, kind, params["attention"], normed, angles, attend)
        outputs = keep(inputs) + attended + swiglu(precision, rules, params["mlp"], keep(normed))
    else:
        normed = norm(config, params["attention_norm"]["scale"], inputs)
        attended = self_attention(config, precision, rules, kind, params["attention"], normed, angles, attend)
        middle = keep(inputs) + attended
        normed = norm(config, params["mlp_norm"]["scale"], middle)
        outputs = middle + swiglu(precision, rules, params["mlp"], normed)
    return pin("residual", outputs, rules)
