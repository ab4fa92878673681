"""The fused head and loss against NumPy in float64: values and gradients through both results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.kernels.cross_entropy import choose, linear_cross_entropy

BATCH, LENGTH, WIDTH, VOCAB = 2, 13, 16, 57
ALL = [("dense", None), ("tiled", 5), ("tiled", 1), ("tiled", 64), ("reference", None)]


def inputs(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden = scale * rng.normal(size=(BATCH, LENGTH, WIDTH))
    return hidden, rng.normal(size=(VOCAB, WIDTH)), rng.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)


def oracle(hidden, table, targets, scale, grad_log_probs, grad_lse):
    """Values and gradients in closed form, float64."""
    logits = scale * hidden @ table.T
    peak = logits.max(-1, keepdims=True)
    lse = (peak + np.log(np.exp(logits - peak).sum(-1, keepdims=True)))[..., 0]
    probs = np.exp(logits - lse[..., None])
    onehot = np.eye(VOCAB)[targets]
    log_probs = (logits * onehot).sum(-1) - lse
    grad = grad_log_probs[..., None] * (onehot - probs) + grad_lse[..., None] * probs
    return log_probs, lse, scale * grad @ table, scale * np.einsum("bsv,bsd->vd", grad, hidden)


@pytest.mark.parametrize(("name", "tile"), ALL)
@pytest.mark.parametrize("scale", [1.0, 0.0625])
def test_values_and_gradients(name, tile, scale):
    hidden, table, targets = inputs()
    rng = np.random.default_rng(1)
    cotangents = rng.normal(size=(2, BATCH, LENGTH))
    log_probs, lse, grad_hidden, grad_table = oracle(hidden, table, targets, scale, *cotangents)

    def run(hidden, table):
        return linear_cross_entropy(hidden, table, targets, logit_scale=scale, tile=tile, implementation=name)

    values, back = jax.vjp(run, jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32))
    np.testing.assert_allclose(values[0], log_probs, atol=1e-5)
    np.testing.assert_allclose(values[1], lse, atol=1e-5)
    grads = back(tuple(jnp.asarray(c, jnp.float32) for c in cotangents))
    np.testing.assert_allclose(grads[0], grad_hidden, atol=1e-5)
    np.testing.assert_allclose(grads[1], grad_table, atol=3e-5)


@pytest.mark.parametrize(("name", "tile"), ALL)
def test_large_logits_do_not_overflow(name, tile):
    hidden, table, targets = inputs(scale=100.0)
    log_probs, lse, *_ = oracle(hidden, table, targets, 1.0, np.zeros((2, 13)), np.zeros((2, 13)))
    values = linear_cross_entropy(
        jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32), targets, tile=tile, implementation=name
    )
    np.testing.assert_allclose(values[0], log_probs, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(values[1], lse, rtol=1e-5)


@pytest.mark.parametrize(("name", "tile"), ALL[:2])
def test_the_table_gradient_is_accumulated_in_float32(name, tile):
    """With activations in bfloat16 the float32 table's gradient keeps what bfloat16 sums over tiles would lose."""
    rng = np.random.default_rng(2)
    hidden = jnp.asarray(rng.normal(size=(1, 2048, 4)), jnp.bfloat16)
    targets = jnp.asarray(rng.integers(0, 3, (1, 2048)), jnp.int32)
    table = jnp.zeros((3, 4), jnp.float32)

    def loss(table):
        return linear_cross_entropy(hidden, table, targets, tile=tile, implementation=name)[0].sum()

    grad = jax.grad(loss)(table)
    exact = np.einsum("sv,sd->vd", np.eye(3)[np.asarray(targets[0])] - 1 / 3, np.asarray(hidden[0], np.float64))
    assert grad.dtype == jnp.float32
    # Each term is rounded to 8 bits by itself; the sum of 2,048 is not.
    np.testing.assert_allclose(grad, exact, atol=0.5)


def test_padding_of_the_last_tile_carries_no_gradient():
    hidden, table, targets = (jnp.asarray(a) for a in inputs())
    hidden, table = hidden.astype(jnp.float32), table.astype(jnp.float32)

    def grad(tile):
        return jax.grad(lambda t: linear_cross_entropy(hidden, t, targets, tile=tile, implementation="tiled")[1].sum())(
            table
        )

    np.testing.assert_allclose(grad(13), grad(8), atol=1e-5)


def test_choice():
    assert choose(tokens=2048, vocab_size=8192) == "dense"
    assert choose(tokens=8192, vocab_size=256_000) == "tiled"
    assert choose(tokens=8192, vocab_size=256_000, implementation="dense") == "dense"
    with pytest.raises(UserError, match=r"no cross-entropy 'fused'; there are dense, tiled, reference"):
        choose(tokens=1, vocab_size=1, implementation="fused")
