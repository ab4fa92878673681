"""Linear layer and cross-entropy as XLA matrix products, whole or by tiles of tokens, with its own backward pass.

With p = softmax(z) and cotangents g of log p(target) and e of log-sum-exp, dz = g * onehot + (e - g) * p. `dense`
keeps exp(z) of the batch for the backward pass: two matrix products there, and the fastest where the logits fit.
`tiled` keeps one number per token and makes each tile's logits again: memory of one tile, one more matrix product
(after Liger Kernel and Wijmans et al. 2024, Cut Cross-Entropy, section 4). Tiles are cut along the sequence, so that a
batch split over devices stays split. The table's gradient is accumulated in float32 over tiles whatever the inputs are.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp


def dense(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, *, logit_scale: float
) -> tuple[jax.Array, jax.Array]:
    """Shapes as in `reference`; holds float32 [B, S, V]. The table is cast to the dtype of `hidden`."""
    return _dense(hidden * jnp.asarray(logit_scale, hidden.dtype), table, targets)


def tiled(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, *, logit_scale: float, tile: int
) -> tuple[jax.Array, jax.Array]:
    """Shapes as in `reference`; holds float32 [B, tile, V]. The table is cast to the dtype of `hidden`.

    Args:
      hidden: [B, S, D].
      table: [V, D].
      targets: int32 [B, S].
      logit_scale: factor on the logits.
      tile: positions of each sequence in one tile; the last tile is padded.
    """
    length = targets.shape[1]
    tile = min(tile, length)
    padding = -length % tile
    hidden = jnp.pad(hidden * jnp.asarray(logit_scale, hidden.dtype), ((0, 0), (0, padding), (0, 0)))
    targets = jnp.pad(targets, ((0, 0), (0, padding)))
    log_probs, lse = _tiled(tile, hidden, table, targets)
    return log_probs[:, :length], lse[:, :length]


@jax.custom_vjp
def _dense(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _dense_forward(hidden, table, targets)[0]


def _dense_forward(hidden, table, targets):
    logits = _logits(hidden, table)
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    peak = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    total = jnp.sum(weights, axis=-1)
    lse = jnp.log(total) + peak[..., 0]
    log_probs = target - lse
    return (log_probs, lse), (hidden, table, targets, weights, total)


def _dense_backward(saved, cotangents):
    hidden, table, targets, weights, total = saved
    if hidden.dtype == jnp.float32:
        return _dense_backward_float32(saved, cotangents)
    grad_logits = _grad_logits(weights, 1.0 / total, targets, cotangents, hidden.dtype)
    grad_hidden = jnp.einsum("bsv,vd->bsd", grad_logits, table.astype(hidden.dtype))
    grad_table = jnp.einsum("bsv,bsd->vd", grad_logits, hidden, preferred_element_type=jnp.float32)
    return grad_hidden, grad_table.astype(table.dtype), None


def _dense_backward_float32(saved, cotangents):
    """The two terms of dz apart, so that no pass over [B, S, V] is left but the matrix products.

    p has one factor per token, which the small operands can bear, and the one-hot term touches one row per token. Only
    in float32: where p of a likely target is rounded to 8 bits, p h - h would lose what dz h keeps.
    """
    hidden, table, targets, weights, total = saved
    grad_log_probs, grad_lse = (cotangent[..., None] for cotangent in cotangents)
    factor = (grad_lse - grad_log_probs) / total[..., None]
    rows = table[targets].astype(jnp.float32)
    grad_hidden = factor * jnp.einsum("bsv,vd->bsd", weights, table.astype(jnp.float32)) + grad_log_probs * rows
    grad_table = jnp.einsum("bsv,bsd->vd", weights, factor * hidden)
    grad_table = grad_table.at[targets].add(grad_log_probs * hidden)
    return grad_hidden, grad_table.astype(table.dtype), None


_dense.defvjp(_dense_forward, _dense_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(tile: int, hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _tiled_forward(tile, hidden, table, targets)[0]


def _tiled_forward(tile: int, hidden, table, targets):
    cast = table.astype(hidden.dtype)

    def step(_, rows):
        logits = _logits(rows[0], cast)
        lse = jax.nn.logsumexp(logits, axis=-1)
        return None, (jnp.take_along_axis(logits, rows[1][..., None], axis=-1)[..., 0] - lse, lse)

    _, (log_probs, lse) = jax.lax.scan(step, None, (_cut(hidden, tile), _cut(targets, tile)))
    log_probs, lse = _join(log_probs), _join(lse)
    return (log_probs, lse), (hidden, table, targets, lse)


def _tiled_backward(tile: int, saved, cotangents):
    hidden, table, targets, lse = saved
    cast = table.astype(hidden.dtype)

    def step(grad_table, rows):
        hidden, targets, lse, grads = rows
        weights = jnp.exp(_logits(hidden, cast) - lse[..., None])
        grad_logits = _grad_logits(weights, jnp.ones_like(lse), targets, grads, hidden.dtype)
        grad_table += jnp.einsum("bsv,bsd->vd", grad_logits, hidden, preferred_element_type=jnp.float32)
        return grad_table, jnp.einsum("bsv,vd->bsd", grad_logits, cast)

    rows = jax.tree.map(functools.partial(_cut, tile=tile), (hidden, targets, lse, cotangents))
    grad_table, grad_hidden = jax.lax.scan(step, jnp.zeros(table.shape, jnp.float32), rows)
    return _join(grad_hidden), grad_table.astype(table.dtype), None


_tiled.defvjp(_tiled_forward, _tiled_backward)


def _logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
    """float32 [B, S, V]."""
    return jnp.einsum("bsd,vd->bsv", hidden, table.astype(hidden.dtype), preferred_element_type=jnp.float32)


def _grad_logits(weights, inverse_total, targets, cotangents, dtype) -> jax.Array:
    """g * onehot(target) + (e - g) * weights * inverse_total, [B, S, V] in `dtype`."""
    grad_log_probs, grad_lse = cotangents
    onehot = targets[..., None] == jnp.arange(weights.shape[-1], dtype=targets.dtype)
    factor = (grad_lse - grad_log_probs) * inverse_total
    return (factor[..., None] * weights + jnp.where(onehot, grad_log_probs[..., None], 0.0)).astype(dtype)


def _cut(array: jax.Array, tile: int) -> jax.Array:
    """[B, S, ...] -> [S / tile, B, tile, ...]."""
    batch, length = array.shape[:2]
    return jnp.moveaxis(array.reshape(batch, length // tile, tile, *array.shape[2:]), 1, 0)


def _join(array: jax.Array) -> jax.Array:
    """[S / tile, B, tile, ...] -> [B, S, ...]."""
    count, batch, tile = array.shape[:3]
    return jnp.moveaxis(array, 0, 1).reshape(batch, count * tile, *array.shape[3:])
