"""Weights of clusters from round to round, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from aya_jax.selection.refine import cluster_gains, new_weights


def test_gains_are_means_over_a_clusters_rows():
    gains = cluster_gains(np.array([1.0, 3.0, -2.0]), np.array([0, 0, 2]), 4)
    assert gains.tolist() == [2.0, 0.0, -2.0, 0.0]  # those without rows: the mean of 2 and -2


def test_the_papers_update_by_hand():
    # s = (2, 1, 1): s / sum = (1/2, 1/4, 1/4); times w = (.5, .3, .2): (.25, .075, .05), which sum to .375.
    found = new_weights(np.array([0.5, 0.3, 0.2]), np.array([2.0, 1.0, 1.0]), "ratio")
    np.testing.assert_allclose(found, [0.25 / 0.375, 0.075 / 0.375, 0.05 / 0.375], rtol=1e-12)


def test_a_cluster_that_the_model_has_passed_gets_nothing_more():
    assert new_weights(np.array([0.5, 0.5]), np.array([-1.0, 2.0]), "ratio").tolist() == [0.0, 1.0]
    assert new_weights(np.array([0.25, 0.75]), np.array([-1.0, -2.0]), "ratio").tolist() == [0.25, 0.75]


@pytest.mark.parametrize("update", ["exponential", "released"])
def test_exponentials_by_hand(update):
    weights, gains = np.array([0.2, 0.8]), np.array([1.0, -1.0])
    before = weights if update == "exponential" else np.ones(2)
    expected = np.exp(gains) * before
    np.testing.assert_allclose(new_weights(weights, gains, update), expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize("update", ["ratio", "exponential"])
def test_a_planted_bad_cluster_falls_each_round(update):
    weights = np.full(4, 0.25)
    for _ in range(4):
        after = new_weights(weights, np.array([0.9, 1.0, 1.1, 0.2]), update)
        assert after[3] < weights[3]
        assert after.sum() == pytest.approx(1)
        weights = after
