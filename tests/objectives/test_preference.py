"""Preference losses against NumPy in float64 and, live, against TRL's own code."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.objectives.config import PreferenceConfig
from aya_jax.objectives.metrics import mean, total
from aya_jax.objectives.pairs import Pairs, sum_pairs
from aya_jax.objectives.preference import preference, preference_loss
from tests.objectives.rows_of_pairs import make_answers, pack

LOSSES = ("sigmoid", "conservative", "robust", "hinge", "ipo", "sigmoid_norm", "simpo")


class Scores(NamedTuple):
    log_probs: jax.Array
    mean_logit: jax.Array
    entropy: jax.Array
    correct: jax.Array


def model(params, batch, rng):
    scores = batch["scores"]
    return Scores(params * scores, mean_logit(scores), entropy(scores), correct(scores))


def mean_logit(scores):
    """Any other number of each position."""
    return 1 - 2 * scores


def entropy(scores):
    return scores**2


def correct(scores):
    return scores > -1.5


def options(loss):
    more = {"label_smoothing": 0.2} if loss in ("conservative", "robust") else {}
    return PreferenceConfig(loss=loss, beta=0.3, **more | ({"target_margin": 0.4} if loss == "simpo" else {}))


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def in_numpy(answers, config):
    """(loss, reward of chosen, reward of rejected) of each pair, in float64."""
    found = []
    for chosen, rejected in zip(answers[::2], answers[1::2], strict=True):
        sums = [float(a.log_probs[a.predicted].sum()) for a in (chosen, rejected)]
        sizes = [int(a.predicted.sum()) for a in (chosen, rejected)]
        ratios = [value - a.reference for value, a in zip(sums, (chosen, rejected), strict=True)]
        if config.loss == "simpo":
            ratios = [value / size for value, size in zip(sums, sizes, strict=True)]
        b, e, d = config.beta, config.label_smoothing, ratios[0] - ratios[1]
        normed = ratios[0] / sizes[0] - ratios[1] / sizes[1]
        loss = {
            "sigmoid": -log_sigmoid(b * d),
            "conservative": -(1 - e) * log_sigmoid(b * d) - e * log_sigmoid(-b * d),
            "robust": (-(1 - e) * log_sigmoid(b * d) + e * log_sigmoid(-b * d)) / (1 - 2 * e),
            "hinge": max(0.0, 1 - b * d),
            "ipo": (normed - 1 / (2 * b)) ** 2,
            "sigmoid_norm": -log_sigmoid(b * normed),
            "simpo": -log_sigmoid(b * d - config.target_margin),
        }[config.loss]
        found.append((loss, b * ratios[0], b * ratios[1]))
    return np.array(found)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_metrics_equal_numpy_over_packed_rows(loss):
    config, answers = options(loss), make_answers(3, 7)
    rows = [answers[:4], answers[4:10], [], answers[10:]]
    value, metrics = preference(model, jnp.float32(1), pack(rows), None, config=config, num_tasks=2)
    expected = in_numpy(answers, config)
    np.testing.assert_allclose(value, expected[:, 0].mean(), rtol=2e-6)
    chosen, rejected = expected[:, 1], expected[:, 2]
    for name, numbers in (
        ("loss", expected[:, 0]),
        ("rewards/chosen", chosen),
        ("rewards/rejected", rejected),
        ("rewards/margins", chosen - rejected),
        ("rewards/accuracies", chosen > rejected),
    ):
        of_tasks = [numbers[:2].mean(), numbers[2:].mean()]  # rows 0 and 2, rows 1 and 3
        np.testing.assert_allclose(mean(metrics[name]), of_tasks, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(mean(total(metrics[name])), numbers.mean(), rtol=1e-5, err_msg=name)
    for name, side in (("logits/chosen", answers[::2]), ("logits/rejected", answers[1::2])):
        of_tokens = np.concatenate([mean_logit(a.log_probs[a.predicted]) for a in side])
        np.testing.assert_allclose(mean(total(metrics[name])), of_tokens.mean(), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("loss", LOSSES)
def test_packed_rows_have_the_gradient_of_pairs_apart(loss):
    config, answers = options(loss), make_answers(5, 6)
    packed = pack([answers[:6], answers[6:]])
    apart = pack([answers[k : k + 2] for k in range(0, 12, 2)])

    def gradient(batch):
        return jax.value_and_grad(lambda p: preference(model, p, batch, None, config=config, num_tasks=2)[0])(
            jnp.float32(1.1)
        )

    np.testing.assert_allclose(gradient(packed), gradient(apart), rtol=1e-5)


def test_at_the_reference_the_loss_is_ln_2_and_no_answer_is_preferred():
    answers = [a._replace(reference=float(np.float32(a.log_probs[a.predicted]).sum())) for a in make_answers(1, 4)]
    batch = pack([answers])
    value, metrics = preference(model, jnp.float32(1), batch, None, config=PreferenceConfig(), num_tasks=1)
    assert value == pytest.approx(math.log(2), rel=1e-6)
    assert abs(mean(total(metrics["rewards/margins"]))) < 1e-6


def test_the_gradient_of_dpo_is_beta_times_how_wrong_the_model_is():
    """Rafailov et al. 2023, section 4: the weight of a pair is s(-b d)."""
    ratios, lengths = Pairs(jnp.float32([[0.3, -2.0]]), jnp.float32([[1.0, 1.5]])), Pairs(*jnp.ones((2, 1, 2)))
    config = PreferenceConfig(beta=0.7)
    found = jax.grad(lambda r: preference_loss(r, lengths, config).sum())(ratios)
    wrong = 1 / (1 + np.exp(0.7 * (np.asarray(ratios.chosen) - np.asarray(ratios.rejected))))
    np.testing.assert_allclose(found.chosen, -0.7 * wrong, rtol=1e-6)
    np.testing.assert_allclose(found.rejected, 0.7 * wrong, rtol=1e-6)


def test_an_answer_of_which_nothing_is_predicted_is_no_pair():
    answers = make_answers(2, 3)
    batch = pack([answers])
    batch["loss_weights"] = np.where(batch["segment_ids"] == 4, 0, batch["loss_weights"])
    config = PreferenceConfig()
    value, metrics = preference(model, jnp.float32(1), batch, None, config=config, num_tasks=1)
    kept = in_numpy(answers[:2] + answers[4:], config)
    np.testing.assert_allclose(value, kept[:, 0].mean(), rtol=2e-6)
    assert total(metrics["loss"]).weight == 2


def test_a_batch_of_padding_has_no_loss_and_no_gradient():
    batch = pack([[], []])
    value, gradient = jax.value_and_grad(
        lambda p: preference(model, p, batch, None, config=PreferenceConfig(), num_tasks=1)[0]
    )(jnp.float32(1))
    assert value == 0
    assert gradient == 0


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_sums_over_segments_equal_bincount(ids):
    ids = np.sort(ids)
    values = np.arange(1, len(ids) + 1, dtype=np.float32)
    expected = np.bincount(ids, values, minlength=len(ids) + 2)
    sums = sum_pairs(values[None], ids[None])
    places = len(ids) // 2
    np.testing.assert_array_equal(sums.chosen[0], expected[1 : 2 * places : 2])
    np.testing.assert_array_equal(sums.rejected[0], expected[2 : 2 * places + 1 : 2])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"beta": 0.0}, "beta"),
        ({"label_smoothing": 0.1}, "label_smoothing"),
        ({"loss": "robust", "label_smoothing": 0.5}, "label_smoothing"),
        ({"target_margin": 1.0}, "target_margin"),
        ({"loss": "simpo", "reference": "runs/sft"}, "reference"),
    ],
)
def test_options_that_say_nothing_are_refused(changes, problem):
    assert [found.field for found in PreferenceConfig(**changes).validate()] == [problem]


@pytest.mark.parity
@pytest.mark.parametrize("loss", ["sigmoid", "robust", "hinge", "ipo", "sigmoid_norm"])
def test_loss_and_metrics_equal_trl(loss):
    """DPOTrainer's own code over a model that says the same of the same answers."""
    torch = pytest.importorskip("torch")
    trainer = pytest.importorskip("trl.trainer.dpo_trainer")
    config, answers = options(loss), make_answers(11, 9)
    apart = pack([[a] for a in answers[::2] + answers[1::2]])  # chosen, then rejected
    log_probs = torch.tensor(apart["scores"] * apart["loss_weights"])
    predicted = torch.tensor(apart["loss_weights"] > 0)
    blank = torch.zeros(len(answers), 1, dtype=torch.bool)
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x),
        args=SimpleNamespace(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss],
        loss_weights=[1.0],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        use_weighting=False,
        _total_train_tokens=0,
        _tp_size=1,
        _metrics={"train": defaultdict(list)},
    )

    def network(**_):
        return SimpleNamespace(
            log_probs=log_probs,
            entropy=entropy(torch.tensor(apart["scores"])),
            mean_logits=mean_logit(torch.tensor(apart["scores"])),
            is_top1=correct(torch.tensor(apart["scores"])),
        )

    references = torch.tensor([a.reference for a in answers])
    inputs = {
        "input_ids": torch.zeros(len(answers), log_probs.shape[1] + 1, dtype=torch.long),
        "attention_mask": torch.cat([predicted, blank], dim=1),
        "completion_mask": torch.cat([blank, predicted], dim=1),
        "ref_chosen_logps": references[::2],
        "ref_rejected_logps": references[1::2],
    }
    theirs = trainer.DPOTrainer._compute_loss(stub, network, inputs, False)
    rows = [answers[:8], answers[8:14], answers[14:]]
    ours, metrics = preference(
        model, jnp.float32(1), pack(rows), None, config=config, num_tasks=2, token_statistics=True
    )
    assert 0 < mean(total(metrics["mean_token_accuracy"])) < 1
    np.testing.assert_allclose(ours, float(theirs), rtol=1e-5)
    for name, metric in metrics.items():
        if name != "loss":
            np.testing.assert_allclose(mean(total(metric)), stub._metrics["train"][name][0], rtol=1e-5, err_msg=name)
