"""Adapted matrices against the matrices that they stand for, and what training starts from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.models.config import MATRICES, AdapterConfig, PrecisionConfig
from aya_jax.models.low_rank import AdaptedModel, merged
from aya_jax.models.projection import Adapted, project
from aya_jax.models.reward import RewardModel
from aya_jax.models.transformer import Transformer
from tools.make_golden_logits import CONFIGS

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("equation", "inputs", "weight", "summed"),
    [
        ("bsd,dhk->bshk", (2, 3, 5), (5, 2, 4), 1),
        ("bshk,hkd->bsd", (2, 3, 2, 4), (2, 4, 5), 2),
        ("bsd,dm->bsm", (2, 3, 5), (5, 7), 1),
    ],
)
def test_a_product_with_an_adapted_matrix_is_that_with_the_sum(equation, inputs, weight, summed):
    x, matrix = normal(*inputs), normal(*weight)
    a, b = normal(*weight[:summed], 3), normal(3, *weight[summed:])
    change = (a.reshape(-1, 3).astype(np.float64) @ b.reshape(3, -1)).reshape(weight)
    expected = np.einsum(equation, x.astype(np.float64), matrix + change)
    found = project(PrecisionConfig(), equation, jnp.asarray(x), Adapted(*map(jnp.asarray, (matrix, a, b))))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def adapted(name, **options):
    """(model, frozen parameters, trained ones with changes that matter)."""
    model = AdaptedModel(Transformer(CONFIGS[name]), AdapterConfig(rank=3, alpha=6.0, **options))
    trained = jax.tree.map(lambda leaf: jnp.asarray(0.3 * normal(*leaf.shape)), model.init(jax.random.key(1)))
    return model, model.base.init(jax.random.key(0)), trained


def batch():
    tokens = RNG.integers(0, 60, (2, 12)).astype(np.int32)
    return {"tokens": tokens, "targets": np.roll(tokens, -1, 1)}


@pytest.mark.parametrize("name", ["cohere", "llama3"])
def test_the_model_is_the_one_with_merged_matrices_in_value_and_gradient(name):
    model, frozen, trained = adapted(name)
    rows = batch()

    def loss(trained, merge):
        params = model.join(trained, frozen)
        return jnp.sum(model.base(merged(params) if merge else params, rows).log_probs)

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    found, expected = (both(trained, merge) for merge in (False, True))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3 * np.abs(theirs).max())
    assert abs(found[0] - jnp.sum(jax.jit(model.base)(frozen, rows).log_probs)) > 0.1


def test_training_starts_at_the_base():
    model, frozen, _ = adapted("cohere")
    fresh, rows, score = model.init(jax.random.key(3)), batch(), jax.jit(model.base)
    found, expected = (score(params, rows).log_probs for params in (model.join(fresh, frozen), frozen))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    bound = 1 / np.sqrt(CONFIGS["cohere"].embed_dim)
    a = np.asarray(fresh["adapter"]["attention"]["query"]["a"])
    assert 0.8 * bound < np.abs(a).max() <= bound
    again = model.init(jax.random.key(3))
    for one, other in zip(jax.tree.leaves(fresh), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_patterns_choose_matrices():
    assert AdapterConfig(matrices=("attention/*",)).names == tuple(n for n in MATRICES if n.startswith("attention"))
    assert AdapterConfig(matrices=("mlp/down", "attention/query")).names == ("attention/query", "mlp/down")
    model, _, trained = adapted("cohere", matrices=("*/output", "mlp/g*"))
    assert {part: set(names) for part, names in trained["adapter"].items()} == {
        "attention": {"output"},
        "mlp": {"gate"},
    }
    axes = model.logical_axes()["adapter"]["attention"]["output"]
    assert axes == {"a": ("layers", "heads", "head_dim", None), "b": ("layers", None, "embed")}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rank": 0}, "rank"),
        ({"alpha": 0.0}, "alpha"),
        ({"matrices": ()}, "matrices"),
        ({"matrices": ("mpl/*",)}, "matrices"),
    ],
)
def test_adapters_of_nothing_are_refused(changes, problem):
    assert [found.field for found in AdapterConfig(**changes).validate()] == [problem]


def test_an_adapted_reward_model_trains_its_head_too():
    config = dataclasses.replace(CONFIGS["cohere"])
    model = AdaptedModel(RewardModel(config), AdapterConfig(rank=2))
    trained, frozen = model.init(jax.random.key(0)), Transformer(config).init(jax.random.key(1))
    rows = {"tokens": batch()["tokens"]}
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(model(model.join(p, frozen), rows))))(trained)
    assert np.abs(gradient["reward_head"]["kernel"]).max() > 0
    assert set(model.logical_axes()) == set(trained) == {"adapter", "reward_head"}
