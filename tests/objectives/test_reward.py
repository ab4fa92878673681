"""The Bradley-Terry objective against NumPy in float64 and, live, against TRL's own code."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.objectives.config import RewardConfig
from aya_jax.objectives.metrics import add, mean, total
from aya_jax.objectives.reward import bradley_terry
from tests.objectives.rows_of_pairs import make_answers, pack

CONFIGS = [
    RewardConfig(),
    RewardConfig(use_margins=True),
    RewardConfig(centering=0.01),
    RewardConfig(use_margins=True, centering=0.2),
]


def model(params, batch, rng):
    return params * batch["rewards"]


def rewarded(rows, seed=0):
    """A batch with invented rewards of every position, and those of each answer's last one."""
    batch = pack(rows)
    batch["rewards"] = np.random.default_rng(seed).normal(size=batch["scores"].shape).astype(np.float32)
    last = []
    for row, answers in enumerate(rows):
        ends = np.cumsum([len(answer.log_probs) + 1 for answer in answers])
        last += [float(batch["rewards"][row, end - 1]) for end in ends]
    return batch, np.array(last)


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_and_metrics_equal_numpy(config):
    answers = make_answers(4, 6)
    batch, last = rewarded([answers[:6], answers[6:]])
    value, metrics = bradley_terry(model, jnp.float32(1), batch, None, config=config, num_tasks=2)
    chosen, rejected = last[::2], last[1::2]
    margins = np.array([a.margin for a in answers[::2]]) if config.use_margins else 0.0
    losses = np.log1p(np.exp(-(chosen - rejected - margins))) + config.centering * (chosen + rejected) ** 2
    np.testing.assert_allclose(value, losses.mean(), rtol=1e-5)
    for name, numbers in (
        ("loss", losses),
        ("accuracy", chosen > rejected),
        ("margin", chosen - rejected),
        ("mean_reward", (chosen + rejected) / 2),
    ):
        np.testing.assert_allclose(
            mean(metrics[name]), [numbers[:3].mean(), numbers[3:].mean()], rtol=1e-4, err_msg=name
        )


def test_equal_rewards_give_ln_2_and_are_no_success():
    batch, _ = rewarded([make_answers(1, 3)])
    value, metrics = bradley_terry(model, jnp.float32(0), batch, None, config=RewardConfig(), num_tasks=1)
    assert value == pytest.approx(math.log(2), rel=1e-6)
    assert mean(total(metrics["accuracy"])) == 0


def test_only_the_last_position_of_an_answer_is_learnt_from():
    batch, _ = rewarded([make_answers(6, 4)])

    def loss(rewards):
        return bradley_terry(
            model, jnp.float32(1), batch | {"rewards": rewards}, None, config=RewardConfig(), num_tasks=1
        )[0]

    touched = np.asarray(jax.grad(loss)(jnp.asarray(batch["rewards"]))) != 0
    ids = batch["segment_ids"]
    ends = (ids > 0) & (ids != np.pad(ids[:, 1:], ((0, 0), (0, 1))))
    np.testing.assert_array_equal(touched, ends)


@pytest.mark.parity
@pytest.mark.parametrize("config", CONFIGS)
def test_loss_and_metrics_equal_trl(config):
    torch = pytest.importorskip("torch")
    trainer = pytest.importorskip("trl.trainer.reward_trainer")
    answers = make_answers(8, 7)
    batch, last = rewarded([answers[:6], answers[6:]], seed=3)
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(center_rewards_coefficient=config.centering or None),
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )
    logits = torch.tensor(np.concatenate([last[::2], last[1::2]]), dtype=torch.float32)[:, None]
    inputs = {"attention_mask": torch.ones(len(answers), 3)}
    if config.use_margins:
        inputs["margin"] = torch.tensor([a.margin for a in answers[::2]])
    theirs = trainer.RewardTrainer.compute_loss(stub, lambda **_: SimpleNamespace(logits=logits), inputs)
    ours, metrics = bradley_terry(model, jnp.float32(1), batch, None, config=config, num_tasks=2)
    np.testing.assert_allclose(ours, float(theirs), rtol=1e-5)
    for name in ("accuracy", "margin", "mean_reward"):
        np.testing.assert_allclose(mean(total(metrics[name])), stub._metrics["train"][name][0], rtol=1e-4, err_msg=name)
    _, together = bradley_terry(
        model, jnp.float32(1), batch | {"task_ids": 0 * batch["task_ids"]}, None, config=config, num_tasks=1
    )
    for name in ("min_reward", "max_reward"):
        np.testing.assert_allclose(mean(together[name])[0], stub._metrics["train"][name][0], rtol=1e-4, err_msg=name)


def test_extremes_are_of_a_task_s_answers_in_a_batch_and_their_mean_over_batches():
    answers = make_answers(8, 7)
    batch, last = rewarded([answers[:6], answers[6:], []], seed=3)
    _, metrics = bradley_terry(model, jnp.float32(1), batch, None, config=RewardConfig(), num_tasks=3)
    ends = [last[:6], last[6:]]
    np.testing.assert_allclose(metrics["min_reward"].sum, [*(part.min() for part in ends), 0], rtol=1e-5)
    np.testing.assert_allclose(metrics["max_reward"].sum, [*(part.max() for part in ends), 0], rtol=1e-5)
    assert metrics["min_reward"].weight.tolist() == [1, 1, 0]
    twice = add({"a": metrics["max_reward"]}, {"a": metrics["max_reward"]})["a"]
    np.testing.assert_allclose(mean(twice)[:2], [part.max() for part in ends], rtol=1e-5)
