"""Intervals against SciPy, closed forms and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aya_jax.studies.intervals import Documents, over_documents, over_seeds


@pytest.mark.parametrize("values", [[1.0, 1.2], [0.31, 0.29, 0.35, 0.30], list(np.linspace(-1, 2, 11))])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_seeds_give_students_interval(values, confidence):
    got = over_seeds(values, confidence)
    low, high = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (got.estimate, got.low, got.high) == pytest.approx((np.mean(values), low, high))
    assert (got.method, got.count) == ("seeds", len(values))


def test_two_seeds_by_hand():
    # t(0.975, 1) = 12.7062; s/√2 = half the distance
    assert over_seeds([1.0, 3.0], 0.95).high == pytest.approx(2.0 + 12.7062, abs=1e-4)


def test_one_seed_gives_none():
    got = over_seeds([1.5], 0.95)
    assert got.estimate == 1.5
    assert math.isnan(got.low)
    assert got.method == "none"
    assert not got.excludes_zero


def documents(rng: np.random.Generator, size: int, shift: float = 0.0) -> Documents:
    num_bytes = rng.integers(100, 500, size).astype(float)
    reference = num_bytes * math.log(2) * (1.5 + 0.2 * rng.standard_normal(size))
    nll = reference + num_bytes * math.log(2) * (shift + 0.01 * rng.standard_normal(size))
    return Documents(nll, reference, num_bytes)


def test_the_bootstrap_agrees_with_scipys_paired_one():
    task = documents(np.random.default_rng(0), 60, shift=0.02)

    def statistic(nll, reference, num_bytes, axis):
        return (nll - reference).sum(axis) / num_bytes.sum(axis) / math.log(2)

    expected = stats.bootstrap(
        (task.nll, task.reference_nll, task.num_bytes), statistic, paired=True, method="percentile", n_resamples=20_000,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    got = over_documents([task], 0.95, 20_000)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert got.estimate == pytest.approx(float(statistic(task.nll, task.reference_nll, task.num_bytes, 0)))
    assert got.low == pytest.approx(expected.confidence_interval.low, abs=0.04 * width)
    assert got.high == pytest.approx(expected.confidence_interval.high, abs=0.04 * width)


def test_the_mean_over_tasks_counts_each_task_once():
    rng = np.random.default_rng(3)
    small, large = documents(rng, 5, shift=0.5), documents(rng, 500, shift=0.1)
    both = over_documents([small, large], 0.95, 500)
    alone = [over_documents([task], 0.95, 500).estimate for task in (small, large)]
    assert both.estimate == pytest.approx(np.mean(alone))
    assert both.low < both.estimate < both.high


def test_the_paired_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    intervals = [over_documents([documents(rng, 50, shift=0.02)], 0.9, 300) for _ in range(200)]
    covered = np.mean([interval.low <= 0.02 <= interval.high for interval in intervals])
    assert 0.82 <= covered <= 0.96


def test_draws_are_the_same_for_a_seed_and_in_blocks():
    task = documents(np.random.default_rng(5), 40)
    assert over_documents([task], 0.95, 200, seed=4) == over_documents([task], 0.95, 200, seed=4)
    assert over_documents([task], 0.95, 200, seed=4) != over_documents([task], 0.95, 200, seed=5)
