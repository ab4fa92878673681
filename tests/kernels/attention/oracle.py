"""Attention and its gradients in NumPy, in float64, from the definition; and the inputs of the tests."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np


def mask_of(rows, length, segments=None, *, causal=True, window=None):
    """bool [B, Q, length]: which keys the queries at positions `rows` [Q] see; segments [B, length] or None (B = 1)."""
    rows, keys = np.asarray(rows)[:, None], np.arange(length)[None]
    mask = np.ones((rows.shape[0], length), bool)
    if causal:
        mask &= keys <= rows
    if window is not None:
        mask &= np.abs(rows - keys) < window
    if segments is None:
        return mask[None]
    return mask[None] & (segments[:, rows[:, 0], None] == segments[:, None, :])


def oracle(query, key, value, mask, grad=None, *, scale=None, soft_cap=None):
    """The output [B, Q, H, hd] in float64; with the output's gradient, also those of query, key and value.

    A query that sees nothing gives 0. The gradient of softmax is P * (dP - sum(P * dP)).
    """
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    groups = query.shape[2] // key.shape[2]
    keys, values = (np.repeat(array, groups, axis=2) for array in (key, value))
    scores = scale * np.einsum("bqhd,bkhd->bhqk", query, keys)
    slope = 1.0
    if soft_cap is not None:
        slope = 1 - np.tanh(scores / soft_cap) ** 2
        scores = soft_cap * np.tanh(scores / soft_cap)
    mask = np.broadcast_to(mask, (query.shape[0], *mask.shape[1:]))[:, None]
    weights = np.where(mask, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    output = np.einsum("bhqk,bkhd->bqhd", weights, values)
    if grad is None:
        return output
    grad = np.asarray(grad, np.float64)
    grad_weights = np.einsum("bqhd,bkhd->bhqk", grad, values)
    grad_scores = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdims=True)) * slope * scale
    shape = (*key.shape[:3], groups, key.shape[3])

    def of_groups(array):
        return array.reshape(shape[0], shape[1], shape[2], groups, shape[4]).sum(3)

    return (
        output,
        np.einsum("bhqk,bkhd->bqhd", grad_scores, keys),
        of_groups(np.einsum("bhqk,bqhd->bkhd", grad_scores, query)),
        of_groups(np.einsum("bhqk,bqhd->bkhd", weights, grad)),
    )


def arrays(seed, batch, queries, keys, heads, kv_heads, width):
    """Query, key, value and a gradient of the output, normal, float64."""
    rng = np.random.default_rng(seed)
    shapes = ((queries, heads), (keys, kv_heads), (keys, kv_heads), (queries, heads))
    return [rng.normal(size=(batch, *shape, width)) for shape in shapes]


def float32(*values):
    """Arrays of JAX in float32."""
    return [jnp.asarray(value, jnp.float32) for value in values]


def packed_rows(lengths, total):
    """Segment ids int32 [1, total]: documents 1, 2... of the given lengths, then padding 0."""
    ids = np.concatenate([np.full(length, index + 1) for index, length in enumerate(lengths)])
    return np.pad(ids, (0, total - len(ids)))[None].astype(np.int32)
