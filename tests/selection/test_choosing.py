"""Budgets, draws and farthest points, against hand counts, brute force and chances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.selection.choosing import allocate, draw, draw_again, k_center, log_chances, random_keys


def test_a_cluster_that_is_empty_passes_its_part_on():
    assert allocate(np.array([1, 1, 2]), np.array([1, 100, 100]), 10).tolist() == [1, 3, 6]
    assert allocate(np.array([1, 0, 0]), np.array([2, 3, 9]), 6).tolist() == [2, 1, 3]  # then by what is left


def test_parts_of_a_row_go_to_the_largest_remainders():
    assert allocate(np.array([0.46, 0.27, 0.27]), np.array([99, 99, 99]), 4).tolist() == [2, 1, 1]
    assert allocate(np.array([1, 1, 1]), np.array([99, 99, 99]), 4).tolist() == [2, 1, 1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 50)), min_size=1, max_size=20), st.floats(0, 1), st.booleans()
)
def test_budgets_add_up_and_no_cluster_gives_more_than_it_has(clusters, share, huge):
    weights, capacities = np.array([w for w, _ in clusters]), np.array([c for _, c in clusters])
    if huge:
        weights = weights * 1e200
    budget = int(share * capacities.sum())
    counts = allocate(weights, capacities, budget)
    assert counts.sum() == budget
    assert np.all((counts >= 0) & (counts <= capacities))
    exact = budget * weights / weights.sum() if 0 < weights.sum() < np.inf else np.full(len(weights), np.inf)
    if np.all(exact + 1 <= capacities):  # nobody is empty: the apportionment itself
        assert np.all(np.abs(counts - exact) < 1 + 1e-6)


@pytest.mark.parametrize("weights", [[-1.0, 2.0], [float("nan"), 1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="not negative"):
        allocate(np.array(weights), np.array([5, 5]), 3)
    with pytest.raises(ValueError, match="11 rows are wanted, and there are 10"):
        allocate(np.array([1.0, 1.0]), np.array([5, 5]), 11)


@settings(deadline=None)
@given(st.data())
def test_of_each_cluster_the_highest_keys_are_drawn(data):
    rows = data.draw(st.integers(1, 40))
    labels = np.array(data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)))
    keys = np.array(data.draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)), float)
    among = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    counts = np.array([data.draw(st.integers(0, int(np.sum(among & (labels == k))))) for k in range(5)])
    expected = []
    for k in range(5):
        own = [n for n in range(rows) if among[n] and labels[n] == k]
        expected += sorted(own, key=lambda n: (-keys[n], n))[: counts[k]]
    assert draw(labels, counts, keys, among).tolist() == sorted(expected)


@pytest.mark.parametrize(("weighing", "chances"), [("linear", [1 / 8, 2 / 8, 5 / 8]), ("softmax", None)])
def test_chances_follow_quality(weighing, chances):
    quality, draws = np.array([1.0, 2.0, 5.0]), 4000
    expected = np.array(chances) if chances else np.exp(quality) / np.exp(quality).sum()
    rng, logs = np.random.default_rng(0), log_chances(quality, 3, weighing)
    first = [int(np.argmax(random_keys(logs, rng))) for _ in range(draws)]
    again = draw_again(np.zeros(3, int), np.array([draws]), logs, rng)
    for found in (np.bincount(first, minlength=3), again):
        assert found.sum() == draws
        assert np.all(np.abs(found / draws - expected) < 4 * np.sqrt(expected * (1 - expected) / draws))


def test_rows_without_quality_come_after_all_others_in_random_order():
    logs, rng = log_chances(np.array([0.0, 1e-30, 0.0, 2.0]), 4, "linear"), np.random.default_rng(0)
    orders = {tuple(np.argsort(-random_keys(logs, rng)).tolist()) for _ in range(50)}
    assert orders == {(3, 1, 0, 2), (3, 1, 2, 0)}
    assert draw_again(np.zeros(4, int), np.array([50]), logs, rng)[[0, 2]].sum() == 0


def test_where_no_row_has_quality_those_that_may_be_drawn_are_alike():
    logs = np.where([True, False, True], log_chances(np.zeros(3), 3, "linear"), -np.inf)
    drawn = draw_again(np.zeros(3, int), np.array([1000]), logs, np.random.default_rng(0))
    assert drawn[1] == 0
    assert abs(drawn[0] - 500) < 4 * np.sqrt(250)


def test_a_negative_quality_is_no_weight():
    with pytest.raises(ValueError, match=r"a quality of -1 is no weight.*softmax"):
        log_chances(np.array([-1.0, np.nan, 1.0]), 3, "linear")


def farthest(vectors, budget, first):
    """Gonzalez' rule by hand, in float64."""
    vectors, taken = vectors.astype(np.float64), [first]
    while len(taken) < budget:
        nearest = np.min([np.sum((vectors - vectors[one]) ** 2, axis=1) for one in taken], axis=0)
        nearest[taken] = -1
        taken.append(int(np.argmax(nearest)))
    return taken


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_k_center_takes_the_farthest(seed):
    vectors = np.random.default_rng(seed).integers(-40, 40, (25, 3)).astype(np.float32)  # squares are exact
    assert k_center(vectors, 12, first=3).tolist() == farthest(vectors, 12, 3)


def test_k_center_takes_copies_once_each():
    assert sorted(k_center(np.ones((5, 2), np.float32), 5, first=2).tolist()) == [0, 1, 2, 3, 4]
