import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.objectives.metrics import mean
from aya_jax.objectives.next_token import next_token
from aya_jax.training.config import GuardConfig, OptimizerConfig
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.state import fresh_state
from aya_jax.training.step import make_step, mean_gradients

B, S, V, TASKS = 8, 5, 13, 2


class Scores(NamedTuple):
    log_probs: jax.Array
    lse: jax.Array


def bigrams(params, batch, rng):
    """A model of pairs of tokens; `poison` makes its loss not a number, `scale` its gradient large."""
    logits = params["table"][batch["tokens"]] * params["scale"] * batch["poison"][:, None, None]
    lse = jax.nn.logsumexp(logits, axis=-1)
    return Scores(jnp.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0] - lse, lse)


OBJECTIVE = functools.partial(next_token, bigrams, num_tasks=TASKS, z_loss=1e-3)


def make_batch(seed=0, poison=1.0):
    rng = np.random.default_rng(seed)
    return {
        "tokens": rng.integers(0, V, (B, S), np.int32),
        "targets": rng.integers(0, V, (B, S), np.int32),
        "loss_weights": (rng.random((B, S)) * (rng.random((B, S)) > 0.4)).astype(np.float32),
        "task_ids": np.repeat(np.arange(B, dtype=np.int32)[:, None] % TASKS, S, 1),
        "poison": np.full(B, poison, np.float32),
    }


def make_params():
    table = np.random.default_rng(1).normal(size=(V, V)).astype(np.float32)
    return {"table": jnp.asarray(table), "scale": jnp.ones(V)}


def stepper(accumulation=1, rate=0.1, **guard):
    config = OptimizerConfig(learning_rate=rate)
    optimizer = make_optimizer(config)
    step = make_step(
        OBJECTIVE,
        optimizer,
        lambda step: jnp.float32(rate),
        optimizer_config=config,
        guard_config=GuardConfig(**guard),
        accumulation=accumulation,
    )
    return jax.jit(step), fresh_state(make_params(), optimizer)


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_uneven_parts_give_the_whole_batch_s_gradient_and_metrics(accumulation):
    batch = make_batch()
    batch["loss_weights"][::4] = 0  # a part of its own may weigh nothing at all
    batch["loss_weights"][1::4] *= 7
    rng = jax.random.key(0)
    whole, expected = mean_gradients(OBJECTIVE, make_params(), batch, rng, 1)
    parts, metrics = mean_gradients(OBJECTIVE, make_params(), batch, rng, accumulation)
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name, metric in expected.items():
        np.testing.assert_allclose(mean(metrics[name]), mean(metric), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(metrics[name].weight, metric.weight, rtol=1e-6, err_msg=name)


def test_first_step_moves_every_weight_by_the_rate_against_its_gradient():
    """Adam's first direction is the sign of the gradient, whatever its size (Kingma and Ba 2015, section 2.1)."""
    step, state = stepper(rate=0.1)
    batch = make_batch()
    gradient = jax.grad(lambda p: OBJECTIVE(p, batch, None)[0])(state.params)["scale"]
    new, metrics = step(state, batch)
    np.testing.assert_allclose(new.params["scale"], 1 - 0.1 * np.sign(gradient), rtol=1e-3)
    assert int(new.step) == 1
    assert int(metrics["skipped"]) == 0
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in jax.tree.leaves(jax.grad(lambda p: OBJECTIVE(p, batch, None)[0])(
        state.params))))  # fmt: skip
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_bad_batch_leaves_parameters_and_moments_as_they_were(poison, accumulation):
    step, state = stepper(accumulation)
    before, _ = step(state, make_batch())
    after, metrics = step(before, make_batch(1, poison))
    for a, b in zip(jax.tree.leaves((before.params, before.optimizer)),
                    jax.tree.leaves((after.params, after.optimizer)), strict=True):  # fmt: skip
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert (int(metrics["skipped"]), int(metrics["skipped_total"]), int(metrics["skipped_in_a_row"])) == (1, 1, 1)
    assert int(after.step) == 2
    assert after.guard.norm == before.guard.norm
    good, metrics = step(after, make_batch(2))
    assert (int(metrics["skipped"]), int(metrics["skipped_total"]), int(metrics["skipped_in_a_row"])) == (0, 1, 0)
    assert np.all(np.isfinite(good.params["table"]))


def test_a_spike_is_skipped_after_warmup_only():
    step, state = stepper(spike_factor=3.0, warmup_steps=2, rate=1e-3)
    spike = make_batch(5, poison=40.0)
    _, metrics = step(state, spike)
    assert int(metrics["skipped"]) == 0
    for seed in range(2):
        state, metrics = step(state, make_batch(seed))
        assert int(metrics["skipped"]) == 0
    _, metrics = step(state, spike)
    assert metrics["grad_norm"] > 3 * state.guard.norm
    assert int(metrics["skipped"]) == 1
    step, _ = stepper(spike_factor=None)
    assert int(step(state, spike)[1]["skipped"]) == 0


def test_the_guard_s_running_mean_is_numpy_s():
    """A plain mean while fewer than 1 / (1 - decay) steps are in it, then an exponential one."""
    decay = 0.75
    step, state = stepper(decay=decay, spike_factor=None, rate=1e-3)
    norms, expected = [], None
    for seed in range(9):
        bad = seed == 5
        state, metrics = step(state, make_batch(seed, np.nan if bad else 1.0))
        if not bad:
            norms.append(float(metrics["grad_norm"]))
            expected = np.mean(norms) if len(norms) <= 4 else decay * expected + (1 - decay) * norms[-1]
        np.testing.assert_allclose(state.guard.norm, expected, rtol=1e-5)
    assert int(state.guard.steps) == 8


def test_randomness_follows_from_the_seed_and_the_step():
    seen = []

    def objective(params, batch, rng):
        loss, metrics = OBJECTIVE(params, batch, rng)
        return loss * jax.random.uniform(rng), metrics

    config = OptimizerConfig(learning_rate=1e-3)
    optimizer = make_optimizer(config)
    for seed in (0, 0, 1):
        step = make_step(objective, optimizer, lambda _: jnp.float32(1e-3), optimizer_config=config,
                         guard_config=GuardConfig(), seed=seed)  # fmt: skip
        state = fresh_state(make_params(), optimizer)
        norms = []
        for _ in range(2):
            _, metrics = jax.jit(step)(state, make_batch())
            norms.append(float(metrics["grad_norm"]))
            state = state._replace(step=state.step + 1)
        seen.append(norms)
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][0] != seen[0][1]
