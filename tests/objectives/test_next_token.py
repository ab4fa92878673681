from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aya_jax.objectives.metrics import mean, total
from aya_jax.objectives.next_token import next_token

B, S, V, D, TASKS = 3, 5, 11, 4, 3


class Scores(NamedTuple):
    log_probs: jax.Array
    lse: jax.Array


def linear_model(params, batch, rng):
    """Logits are a linear function of a fixed vector per position."""
    logits = jnp.einsum("bsd,vd->bsv", batch["features"], params)
    lse = jax.nn.logsumexp(logits, axis=-1)
    return Scores(jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0] - lse, lse)


@pytest.fixture
def batch():
    rng = np.random.default_rng(3)
    return {
        "features": rng.normal(size=(B, S, D)).astype(np.float32),
        "targets": rng.integers(0, V, (B, S), np.int32),
        "loss_weights": (rng.random((B, S)) * (rng.random((B, S)) > 0.3)).astype(np.float32),
        "task_ids": np.repeat(np.arange(TASKS, dtype=np.int32)[:, None], S, 1),
    }


@pytest.fixture
def params():
    return np.random.default_rng(4).normal(size=(V, D)).astype(np.float32)


def in_numpy(params, batch, z_loss):
    """(loss, nll, lse), in float64."""
    logits = np.einsum("bsd,vd->bsv", batch["features"].astype(np.float64), params.astype(np.float64))
    lse = np.log(np.exp(logits).sum(-1))
    nll = lse - np.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
    weights = batch["loss_weights"].astype(np.float64)
    return np.sum(weights * (nll + z_loss * lse**2)) / weights.sum(), nll, lse


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_value_and_metrics_equal_numpy(params, batch, z_loss):
    loss, metrics = next_token(linear_model, params, batch, None, num_tasks=TASKS, z_loss=z_loss)
    expected, nll, lse = in_numpy(params, batch, z_loss)
    weights = batch["loss_weights"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(mean(total(metrics["loss"])), np.average(nll, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(mean(metrics["z_loss"]), np.average(lse**2, weights=weights), rtol=1e-5)
    by_task = [np.average(nll[k], weights=weights[k]) for k in range(TASKS)]
    np.testing.assert_allclose(mean(metrics["loss"]), by_task, rtol=1e-5)


def test_gradient_equals_finite_differences(params, batch):
    gradient = jax.grad(lambda p: next_token(linear_model, p, batch, None, num_tasks=TASKS, z_loss=0.01)[0])(params)
    direction = np.random.default_rng(5).normal(size=params.shape)
    ends = [in_numpy(params.astype(np.float64) + h * direction, batch, 0.01)[0] for h in (1e-5, -1e-5)]
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * direction), (ends[0] - ends[1]) / 2e-5, rtol=1e-4)


def test_a_batch_of_padding_has_no_loss_and_no_gradient(params, batch):
    batch = batch | {"loss_weights": np.zeros((B, S), np.float32)}
    loss, gradient = jax.value_and_grad(lambda p: next_token(linear_model, p, batch, None, num_tasks=TASKS)[0])(params)
    assert loss == 0
    assert not np.any(gradient)


class SmoothScores(NamedTuple):
    log_probs: jax.Array
    lse: jax.Array
    mean_logit: jax.Array


def smooth_model(params, batch, rng):
    scores = linear_model(params, batch, rng)
    return SmoothScores(*scores, jnp.einsum("bsd,vd->bsv", batch["features"], params).mean(-1))


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_label_smoothing_equals_optax_with_smoothed_labels(params, batch, z_loss):
    def ours(params):
        options = {"num_tasks": TASKS, "z_loss": z_loss, "label_smoothing": 0.1}
        return next_token(smooth_model, params, batch, None, **options)

    def theirs(params):
        logits = jnp.einsum("bsd,vd->bsv", batch["features"], params)
        labels = optax.smooth_labels(jax.nn.one_hot(batch["targets"], V), 0.1)
        losses = optax.softmax_cross_entropy(logits, labels) + z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2
        return jnp.sum(losses * batch["loss_weights"]) / jnp.sum(batch["loss_weights"])

    (loss, metrics), gradient = jax.value_and_grad(ours, has_aux=True)(params)
    expected, expected_gradient = jax.value_and_grad(theirs)(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)
    _, plain = next_token(linear_model, params, batch, None, num_tasks=TASKS, z_loss=z_loss)
    np.testing.assert_array_equal(mean(metrics["loss"]), mean(plain["loss"]))
