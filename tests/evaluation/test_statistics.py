"""Intervals and differences against closed forms, SciPy's bootstrap, and how often they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aya_jax.evaluation.statistics import Scores, differences, holm, intervals, is_finding, resample_counts


def scores(values):
    """A matrix as Scores; not a number where nothing was asked."""
    values = np.asarray(values, np.float64)
    rows, columns = values.shape
    return Scores(tuple(f"q{k}" for k in range(rows)), tuple(f"l{k}" for k in range(columns)), values)


def test_scores_are_laid_out_by_question_and_language():
    found = Scores.of({("q1", "de"): 1.0, ("q2", "ar"): 0.0, ("q1", "ar"): 0.5})
    assert (found.items, found.languages) == (("q1", "q2"), ("ar", "de"))
    np.testing.assert_array_equal(found.values, [[0.5, 1.0], [0.0, np.nan]])


def test_intervals_are_scipy_s_percentile_bootstrap():
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, size=(300, 2))
    found = intervals(scores(values), resamples=20_000)
    for column, interval in zip(values.T, found.languages, strict=True):
        expected = stats.bootstrap((column,), np.mean, n_resamples=20_000, method="percentile", rng=2)
        assert interval.estimate == pytest.approx(column.mean())
        assert interval.low == pytest.approx(expected.confidence_interval.low, abs=0.02)
        assert interval.high == pytest.approx(expected.confidence_interval.high, abs=0.02)
        assert interval.error == pytest.approx(column.std(ddof=1) / math.sqrt(300), rel=0.03)


def test_shared_questions_make_the_mean_of_languages_less_certain():
    """Var of a mean of k equal columns is that of one; of k independent ones a k-th of it."""
    rng = np.random.default_rng(0)
    column = rng.random((400, 1))
    shared = intervals(scores(np.repeat(column, 4, axis=1))).macro
    apart = np.full((1600, 4), np.nan)
    for k in range(4):
        apart[400 * k : 400 * (k + 1), k] = column[:, 0]
    assert shared.error == pytest.approx(column.std(ddof=1) / 20, rel=0.08)
    assert intervals(scores(apart)).macro.error == pytest.approx(shared.error / 2, rel=0.08)


def test_languages_weigh_alike_however_many_questions_they_have():
    values = np.full((30, 2), np.nan)
    values[:, 0], values[:10, 1] = 1.0, 0.0
    assert intervals(scores(values)).macro.estimate == 0.5


def test_an_interval_of_no_width_is_wilson_s():
    found = intervals(scores(np.zeros((40, 1))))
    expected = stats.binomtest(0, 40).proportion_ci(method="wilson")
    assert (found.languages[0].low, found.languages[0].high) == pytest.approx((expected.low, expected.high))
    assert found.macro.high == pytest.approx(expected.high)


def test_differences_are_paired():
    """Two models that differ on 10 of 200 questions: the interval is that of the differences, not of two means."""
    rng = np.random.default_rng(0)
    first = (rng.random((200, 1)) < 0.5).astype(float)
    second = first.copy()
    second[np.flatnonzero(first[:, 0] == 0)[:10]] = 1.0
    found = differences(scores(first), scores(second)).macro
    gaps = second - first
    assert found.interval.estimate == pytest.approx(0.05)
    assert found.interval.error == pytest.approx(gaps.std(ddof=1) / math.sqrt(200), rel=0.08)
    assert found.interval.error < 0.5 * math.sqrt(2 * 0.25 / 200)
    assert found.detectable == pytest.approx((1.959964 + 0.841621) * found.interval.error, rel=1e-5)
    assert is_finding(found)
    assert found.shared == 200


def test_only_shared_questions_and_languages_are_compared():
    first = Scores.of({("a", "de"): 1.0, ("b", "de"): 0.0, ("c", "de"): 0.0, ("a", "fr"): 1.0})
    second = Scores.of({("b", "de"): 1.0, ("c", "de"): 1.0, ("d", "de"): 0.0, ("d", "fr"): 0.0})
    found = differences(first, second)
    assert (found.languages, found.macro.shared, found.macro.interval.estimate) == (("de",), 2, 1.0)
    with pytest.raises(ValueError, match="share no question"):
        differences(first, Scores.of({("x", "de"): 1.0}))


def test_two_alike_are_not_told_apart_and_not_called_equal():
    """Agresti and Min: no disagreement in n pairs leaves an interval of 1.96 / (n + 2)."""
    values = scores((np.arange(50)[:, None] % 2).astype(float))
    found = differences(values, values).macro
    assert found.p == 1.0
    assert found.interval.high == pytest.approx(1.959964 / 52, rel=1e-5)
    assert not is_finding(found)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """500 samples of 150 questions in 3 languages with something in common."""
    rng = np.random.default_rng(7)
    hits, found_differences = 0, 0
    for seed in range(500):
        hardness = rng.normal(size=(150, 1))
        right = (hardness + rng.normal(size=(150, 3)) < 0.3).astype(float)
        other = (hardness + rng.normal(size=(150, 3)) < 0.3).astype(float)
        truth = stats.norm.cdf(0.3 / math.sqrt(2))
        macro = intervals(scores(right), resamples=400, seed=seed).macro
        hits += macro.low <= truth <= macro.high
        found_differences += is_finding(differences(scores(right), scores(other), resamples=400, seed=seed).macro)
    assert 0.92 <= hits / 500 <= 0.98
    assert found_differences / 500 <= 0.08


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_a_step_down(p_values):
    found = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    expected = np.minimum(1, np.maximum.accumulate([(len(p_values) - k) * p_values[i] for k, i in enumerate(order)]))
    np.testing.assert_allclose([found[i] for i in order], expected)
    assert all(adjusted >= min(1, p) for adjusted, p in zip(found, p_values, strict=True))


def test_among_many_languages_few_are_found_by_chance():
    """100 comparisons of two models that are alike, in 20 languages each, and one in which one language differs."""
    rng = np.random.default_rng(3)
    alone = together = 0
    for seed in range(100):
        first, second = ((rng.random((200, 20)) < 0.5).astype(float) for _ in range(2))
        found = differences(scores(first), scores(second), seed=seed).by_language
        alone += any(not (d.interval.low <= 0 <= d.interval.high) for d in found)
        together += any(is_finding(d) for d in found)
    assert alone > 50
    assert together <= 10
    second[:, 4] = np.maximum(second[:, 4], (rng.random(200) < 0.6).astype(float))
    assert 4 in [k for k, d in enumerate(differences(scores(first), scores(second)).by_language) if is_finding(d)]


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 30), st.integers(0, 5))
def test_every_resample_has_as_many_items_as_there_are(items, resamples, seed):
    counts = np.concatenate(list(resample_counts(items, resamples, seed)))
    assert counts.shape == (resamples, items)
    assert np.all(counts.sum(axis=1) == items)
    np.testing.assert_array_equal(counts, np.concatenate(list(resample_counts(items, resamples, seed))))
