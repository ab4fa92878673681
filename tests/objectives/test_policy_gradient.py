"""The policy gradient against NumPy in float64 and, live, against TRL's own code."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.objectives.config import PolicyGradientConfig
from aya_jax.objectives.metrics import mean, total
from aya_jax.objectives.policy_gradient import advantages, policy_gradient
from tests.objectives.rows_of_pairs import make_answers, pack

CONFIG = PolicyGradientConfig(epsilon=0.2)


class Scores(NamedTuple):
    log_probs: jax.Array
    entropy: jax.Array
    correct: jax.Array


def model(params, batch, rng):
    return Scores(params * batch["scores"], batch["scores"] ** 2, batch["scores"] > -1.5)


def batch_of(rows, seed=0):
    """Answers whose old log-probabilities are near the model's, so that some ratios are clipped and some are not."""
    rng = np.random.default_rng(seed)
    rows = [
        [
            a._replace(reference=float(a.log_probs[a.predicted].sum() + rng.normal() * 0.3), margin=rng.normal())
            for a in row
        ]
        for row in rows
    ]
    batch = pack(rows)
    return batch | {"advantages": batch.pop("margins")}, [a for row in rows for a in row]


def in_numpy(answers, epsilon):
    ratios = np.exp([a.log_probs[a.predicted].sum() - a.reference for a in answers])
    values = np.array([a.margin for a in answers])
    return ratios, values, -np.minimum(ratios * values, np.clip(ratios, 1 - epsilon, 1 + epsilon) * values)


def test_loss_and_metrics_equal_numpy_over_packed_rows():
    batch, answers = batch_of([make_answers(1, 4), make_answers(2, 3), []])
    ratios, values, losses = in_numpy(answers, 0.2)
    assert 0 < np.mean(np.abs(ratios - 1) > 0.2) < 1
    value, metrics = policy_gradient(model, jnp.float32(1), batch, None, config=CONFIG, num_tasks=2)
    np.testing.assert_allclose(value, losses.mean(), rtol=1e-5)
    stopped = ((ratios < 0.8) & (values < 0)) | ((ratios > 1.2) & (values > 0))
    for name, numbers in (
        ("loss", losses),
        ("advantage", values),
        ("kl", ratios - 1 - np.log(ratios)),
        ("clip_ratio", stopped),
    ):
        np.testing.assert_allclose(
            mean(metrics[name]), [numbers[:8].mean(), numbers[8:].mean()], rtol=1e-4, err_msg=name
        )


def test_where_answers_were_just_drawn_the_gradient_is_reinforce():
    """Of the mean of A log p: -A per token, whatever the clip."""
    rows = [[a._replace(reference=float(np.float32(a.log_probs[a.predicted]).sum())) for a in make_answers(5, 5)]]
    batch = pack(rows)
    batch |= {"advantages": batch.pop("margins")}

    def loss(scores):
        return policy_gradient(model, jnp.float32(1), batch | {"scores": scores}, None, config=CONFIG, num_tasks=1)[0]

    found = jax.grad(loss)(jnp.asarray(batch["scores"]))
    expected = np.zeros_like(batch["scores"])
    for segment, answer in enumerate(rows[0], 1):
        inside = batch["segment_ids"] == segment
        expected[inside & (batch["loss_weights"] > 0)] = -answer.margin / 10
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_no_gradient_goes_on_beyond_the_clip():
    answer = make_answers(0, 1)[0]
    drawn = float(answer.log_probs[answer.predicted].sum())
    for advantage, moved, moves in ((1.0, 0.5, False), (1.0, -0.5, True), (-1.0, -0.5, False), (-1.0, 0.5, True)):
        batch = pack([[answer._replace(reference=drawn - moved, margin=advantage)]])
        batch |= {"advantages": batch.pop("margins")}
        gradient = jax.grad(lambda p, b=batch: policy_gradient(model, p, b, None, config=CONFIG, num_tasks=1)[0])(
            jnp.float32(1)
        )
        assert bool(gradient != 0) == moves


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-3, 3))
def test_advantages_are_about_the_others(rewards, shift):
    """They add up to nothing, and do not change when all rewards move together."""
    for kind in ("leave_one_out", "group"):
        config = PolicyGradientConfig(advantage=kind)
        found = advantages(rewards, config)
        assert abs(found.sum()) < 1e-6 * (1 + np.abs(found).max())
        np.testing.assert_allclose(
            advantages([r + shift for r in rewards], config), found, atol=1e-4 + 1e-6 * np.abs(found).max()
        )


def test_advantages_by_hand():
    np.testing.assert_allclose(advantages([1.0, 2.0, 6.0], PolicyGradientConfig()), [-3, -1.5, 4.5])
    deviation = np.sqrt((4 + 1 + 9) / 2)
    found = advantages([1.0, 2.0, 6.0], PolicyGradientConfig(advantage="group"))
    np.testing.assert_allclose(found, np.array([-2, -1, 3]) / (deviation + 1e-4))


@pytest.mark.parametrize(
    ("changes", "problem"), [({"beta": -1.0}, "beta"), ({"epsilon": 0.0}, "epsilon"), ({"epsilon": 1.0}, "epsilon")]
)
def test_numbers_out_of_range(changes, problem):
    assert [found.field for found in PolicyGradientConfig(**changes).validate()] == [problem]


@pytest.mark.parity
def test_loss_and_clip_equal_trl():
    torch = pytest.importorskip("torch")
    trainer = pytest.importorskip("trl.trainer.rloo_trainer")
    batch, answers = batch_of([make_answers(7, 5), make_answers(9, 4)], seed=4)
    apart = pack([[a] for a in answers])
    log_probs, predicted = (torch.tensor(apart[name]) for name in ("scores", "loss_weights"))
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x, gather_for_metrics=lambda x: x),
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_probs, torch.tensor(apart["scores"] ** 2), None),
        aux_loss_enabled=False,
        epsilon_low=0.2,
        epsilon_high=0.2,
        _metrics={"train": defaultdict(list)},
    )
    inputs = {
        **{name: torch.zeros(len(answers), 1) for name in ("prompt_ids", "prompt_mask")},
        "completion_ids": torch.zeros_like(log_probs),
        "completion_mask": predicted,
        "old_logps": torch.tensor([a.reference for a in answers]),
        "advantages": torch.tensor([a.margin for a in answers]),
    }
    theirs = trainer.RLOOTrainer._compute_loss(stub, None, inputs)
    ours, metrics = policy_gradient(
        model, jnp.float32(1), batch, None, config=CONFIG, num_tasks=2, token_statistics=True
    )
    np.testing.assert_allclose(ours, float(theirs), rtol=1e-5)
    np.testing.assert_allclose(mean(total(metrics["entropy"])), stub._metrics["train"]["entropy"][0], rtol=1e-5)
    correct = np.concatenate([a.log_probs[a.predicted] > -1.5 for a in answers])
    np.testing.assert_allclose(mean(total(metrics["mean_token_accuracy"])), correct.mean(), rtol=1e-6)
    clipped = stub._metrics["train"]["clip_ratio/region_mean"][0]
    assert 0 < clipped < 1
    np.testing.assert_allclose(mean(total(metrics["clip_ratio"])), clipped, rtol=1e-5)
