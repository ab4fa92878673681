"""Linear layer and cross-entropy as XLA matrix products, whole or by tiles of tokens: values and, apart, gradients.

Each pair of functions scores tokens against the rows of a table, which may be one device's share of the vocabulary. With
p = softmax(z) and cotangents g of the target's logit and e of log-sum-exp, dz = g * onehot + e * p. `dense` keeps exp(z)
for the backward pass: two matrix products there, and the fastest where the logits fit. `tiled` keeps nothing and makes
each tile's logits again: memory of one tile, one more matrix product (after Liger Kernel and Wijmans et al. 2024, Cut
Cross-Entropy, section 4). The table's gradient is accumulated in float32 over tiles whatever the inputs are.

Forward: hidden [B, S, D], table [V, D] in the same dtype, targets int32 [B, S] (-1 where the row is not of this table) ->
((logit of the target, or 0; log-sum-exp), kept), float32 [B, S] each; what is kept is a tuple of arrays [B, S, n].
Backward: the same with what was kept, the log-sum-exp over the whole vocabulary, g and e -> (the gradient of hidden, in its
dtype; that of the table, float32, as `share` leaves it: a function of whole rows, which sums them over a mesh's devices).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Scores = tuple[jax.Array, jax.Array]
Share = Callable[[jax.Array], jax.Array]
Kept = tuple[jax.Array, ...]


def dense_forward(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[Scores, Kept]:
    """Holds and keeps float32 [B, S, V]."""
    logits = logits_of(hidden, table)
    peak = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    lse = jnp.log(jnp.sum(weights, axis=-1)) + peak[..., 0]
    return (_pick(logits, targets), lse), (weights, peak)


def dense_backward(
    hidden, table, targets, kept: Kept, lse, grad_target, grad_lse, *, share: Share
) -> tuple[jax.Array, jax.Array]:
    """Two matrix products."""
    weights, peak = kept
    factor = grad_lse[..., None] * jnp.exp(peak - lse[..., None])
    if hidden.dtype == jnp.float32:
        grad_hidden, grad_table = _dense_backward_float32(hidden, table, targets, weights, factor, grad_target)
        return grad_hidden, share(grad_table)
    grad_logits = _grad_logits(weights, factor, targets, grad_target, hidden.dtype)
    grad_hidden = jnp.einsum("bsv,vd->bsd", grad_logits, table)
    return grad_hidden, share(jnp.einsum("bsv,bsd->vd", grad_logits, hidden, preferred_element_type=jnp.float32))


def _dense_backward_float32(hidden, table, targets, weights, factor, grad_target):
    """The two terms of dz apart, so that no pass over [B, S, V] is left but the matrix products.

    p has one factor per token, which the small operands can bear, and the one-hot term touches one row per token. Only
    in float32: where p of a likely target is rounded to 8 bits, p h - h would lose what dz h keeps.
    """
    grad_target = jnp.where(targets >= 0, grad_target, 0.0)[..., None]
    rows = jnp.maximum(targets, 0)
    grad_hidden = factor * jnp.einsum("bsv,vd->bsd", weights, table) + grad_target * table[rows]
    grad_table = jnp.einsum("bsv,bsd->vd", weights, factor * hidden)
    return grad_hidden, grad_table.at[rows].add(grad_target * hidden)


def tiled_forward(hidden: jax.Array, table: jax.Array, targets: jax.Array, *, tile: int) -> tuple[Scores, Kept]:
    """Holds float32 [B, tile, V]: tiles are cut along the sequence, and the last one is padded."""

    def step(_, rows):
        hidden, targets = rows
        logits = logits_of(hidden, table)
        return None, (_pick(logits, targets), jax.nn.logsumexp(logits, axis=-1))

    _, scores = jax.lax.scan(step, None, (cut(hidden, tile), cut(targets, tile)))
    target, lse = (join(score, targets.shape[1]) for score in scores)
    return (target, lse), ()


def tiled_backward(
    hidden, table, targets, kept: Kept, lse, grad_target, grad_lse, *, tile: int, share: Share
) -> tuple[jax.Array, jax.Array]:
    """Holds float32 [B, tile, V] and the table's gradient."""
    del kept

    def step(grad_table, rows):
        hidden, targets, lse, grad_target, grad_lse = rows
        weights = jnp.exp(logits_of(hidden, table) - lse[..., None])
        grad_logits = _grad_logits(weights, grad_lse[..., None], targets, grad_target, hidden.dtype)
        grad_table += jnp.einsum("bsv,bsd->vd", grad_logits, hidden, preferred_element_type=jnp.float32)
        return grad_table, jnp.einsum("bsv,vd->bsd", grad_logits, table)

    rows = jax.tree.map(functools.partial(cut, tile=tile), (hidden, targets, lse, grad_target, grad_lse))
    grad_table, grad_hidden = jax.lax.scan(step, jnp.zeros(table.shape, jnp.float32), rows)
    return join(grad_hidden, hidden.shape[1]), share(grad_table)


def logits_of(hidden: jax.Array, table: jax.Array) -> jax.Array:
    """float32 [B, S, V]."""
    return jnp.einsum("bsd,vd->bsv", hidden, table, preferred_element_type=jnp.float32)


def _pick(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The logits of the targets, 0 for -1."""
    picked = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    return jnp.where(targets >= 0, picked, 0.0)


def _grad_logits(weights, factor, targets, grad_target, dtype) -> jax.Array:
    """g * onehot(target) + factor * weights, [B, S, V] in `dtype`."""
    onehot = targets[..., None] == jnp.arange(weights.shape[-1], dtype=targets.dtype)
    return (factor * weights + jnp.where(onehot, grad_target[..., None], 0.0)).astype(dtype)


def cut(array: jax.Array, tile: int) -> jax.Array:
    """[B, S, ...] -> [tiles, B, tile, ...], padded with zeros: a token without cotangents adds nothing."""
    batch, length = array.shape[:2]
    array = jnp.pad(array, ((0, 0), (0, -length % tile), *((0, 0) for _ in array.shape[2:])))
    return jnp.moveaxis(array.reshape(batch, -(-length // tile), tile, *array.shape[2:]), 1, 0)


def join(array: jax.Array, length: int) -> jax.Array:
    """[tiles, B, tile, ...] -> [B, S, ...]."""
    count, batch, tile = array.shape[:3]
    return jnp.moveaxis(array, 0, 1).reshape(batch, count * tile, *array.shape[3:])[:, :length]
