"""Layouts and products that the tiled back-ends share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Finite: exp(-inf - -inf) would be NaN where a query has seen no key yet.
MASKED = -1e30


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The type in which products of `dtype` are added up: float32, or float64 for itself."""
    return jnp.promote_types(dtype, jnp.float32)


def product(spec: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """An einsum that adds up, and gives, the wide type."""
    return jnp.einsum(spec, left, right, preferred_element_type=wide(left.dtype))


def soften(scores: jax.Array, soft_cap: float | None) -> jax.Array:
    """Scores s as cap * tanh(s / cap) (Gemma Team 2024, Gemma 2, section 2); as they are without a cap."""
    return scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)


def through_soft_cap(grad: jax.Array, softened: jax.Array, soft_cap: float | None) -> jax.Array:
    """The gradient of the scores before `soften` from that after it, and from its result, masked or not."""
    if soft_cap is None:
        return grad
    # A masked score lies far below -soft_cap, and its square would overflow.
    return grad * (1 - jnp.square(jnp.maximum(softened / soft_cap, -1)))


def pad_to(array: jax.Array, dim: int, multiple: int, value: float = 0) -> jax.Array:
    """`array` with `value` appended along `dim` until its length is a multiple."""
    missing = -array.shape[dim] % multiple
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[dim] = (0, missing)
    return jnp.pad(array, widths, constant_values=value)


def split_heads(array: jax.Array, groups: int) -> jax.Array:
    """[B, S, KV * G, hd] -> [B, KV, G, S, hd]."""
    batch, length, heads, width = array.shape
    return array.reshape(batch, length, heads // groups, groups, width).transpose(0, 2, 3, 1, 4)


def merge_heads(array: jax.Array) -> jax.Array:
    """[B, KV, G, S, hd] -> [B, S, KV * G, hd]."""
    batch, kv_heads, groups, length, width = array.shape
    return array.transpose(0, 3, 1, 2, 4).reshape(batch, length, kv_heads * groups, width)
