"""Ratios with intervals, against brute force and the bootstrap's known moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aya_jax.evaluation.judging.resampling import estimate, estimates, mean_estimate, ratio_draws, sums
from aya_jax.evaluation.statistics import resample_counts

RNG = np.random.default_rng(3)
OPTIONS = {"resamples": 4000, "confidence": 0.95, "seed": 0}


def test_sums_add_up_what_is_said_of_a_unit():
    table = sums([("b", "y", 1.0, 2.0), ("a", "x", 3.0, 4.0), ("b", "y", 5.0, 6.0), ("b", "x", 0.0, 0.0)])
    assert (table.groups, table.units) == (("a", "b"), ("x", "y"))
    assert table.numerator.tolist() == [[3, 0], [0, 6]]
    assert table.denominator.tolist() == [[4, 0], [0, 8]]
    assert table.present.tolist() == [[True, False], [True, True]]
    assert table.ratios.tolist() == [0.75, 0.75]


def test_draws_of_ratios_are_those_of_copies_of_units():
    """Brute force: each draw's units are written out as often as they were drawn, and the ratio is taken by hand."""
    items = [(g, f"u{k}", float(RNG.integers(0, 4)), float(RNG.integers(1, 4))) for g in "ab" for k in range(8)]
    table = sums(items)
    found = ratio_draws(table, 50, 5)
    for draw, counts in zip(found, np.concatenate(list(resample_counts(8, 50, 5))), strict=True):
        for ratio, group in zip(draw, "ab", strict=True):
            copies = [
                (n, d)
                for k, c in enumerate(counts)
                for _ in range(int(c))
                for g, u, n, d in items
                if (g, u) == (group, f"u{k}")
            ]
            assert ratio == pytest.approx(sum(n for n, _ in copies) / sum(d for _, d in copies))


def test_the_interval_of_a_mean_is_scipy_s():
    values = RNG.normal(size=60)
    found, macro = estimates(sums(("g", k, v, 1.0) for k, v in enumerate(values)), **OPTIONS)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert found["g"].value == pytest.approx(values.mean())
    assert (found["g"].low, found["g"].high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)
    assert (macro.low, macro.high) == (found["g"].low, found["g"].high)


@pytest.mark.parametrize(("shared", "width"), [(True, 1.0), (False, 1.0 / math.sqrt(2.0))])
def test_translations_of_a_prompt_do_not_count_as_independent(shared, width):
    """Two languages with the same scores: the mean's interval is as wide as one language's if prompts are shared, else 1/√2."""
    values = RNG.normal(size=80)
    items = [(g, k if shared else (g, k), v, 1.0) for g in "ab" for k, v in enumerate(values)]
    items = [(g, str(u), v, d) for g, u, v, d in items]
    found, macro = estimates(sums(items), **OPTIONS)
    assert (macro.high - macro.low) / (found["a"].high - found["a"].low) == pytest.approx(width, abs=0.04)


def test_a_seed_repeats_and_another_does_not():
    table = sums(("g", k, float(k), 1.0) for k in range(20))
    assert np.array_equal(ratio_draws(table, 10, 1), ratio_draws(table, 10, 1))
    assert not np.array_equal(ratio_draws(table, 10, 1), ratio_draws(table, 10, 2))


def test_what_does_not_exist_is_not_a_number():
    found, macro = estimates(sums([("a", "x", 0.0, 0.0), *(("b", str(k), 100.0, 1.0) for k in range(9))]), **OPTIONS)
    assert math.isnan(found["a"].value)
    assert found["b"].value == 100.0
    assert math.isnan(macro.value)
    assert estimates(sums([]), **OPTIONS)[0] == {}
    assert math.isnan(estimates(sums([]), **OPTIONS)[1].value)


def test_a_few_prompts_give_a_number_without_an_interval():
    found, macro = estimates(sums(("a", str(k), 1.0, 2.0) for k in range(4)), **OPTIONS)
    assert (found["a"].value, macro.value) == (0.5, 0.5)
    assert all(math.isnan(end) for end in (found["a"].low, found["a"].high, macro.low, macro.high))


def test_draws_without_a_value_are_left_out():
    draws = np.array([math.nan, 1.0, 2.0, 3.0, math.inf])
    found = estimate(2.0, draws, 5, 0.5)
    assert (found.low, found.high) == (1.5, 2.5)
    assert mean_estimate([found, found], np.stack([draws, draws], 1), 5, 0.5) == found


@pytest.mark.parametrize(("right", "of"), [(0, 9), (20, 20), (7, 7)])
def test_alike_scores_have_the_interval_of_wilson(right, of):
    found, macro = estimates(sums(("a", k, 100.0 * right / of, 1.0) for k in range(of)), **OPTIONS)
    theirs = stats.binomtest(right, of).proportion_ci(0.95, method="wilson")
    assert (found["a"].low, found["a"].high) == pytest.approx((100 * theirs.low, 100 * theirs.high))
    assert macro == found["a"]


def test_scores_that_are_all_half_are_as_uncertain_as_coins():
    found, _ = estimates(sums(("a", k, 50.0, 1.0) for k in range(10)), **OPTIONS)
    theirs = stats.binomtest(5, 10).proportion_ci(0.95, method="wilson")
    assert (found["a"].low, found["a"].high) == pytest.approx((100 * theirs.low, 100 * theirs.high))


def test_alike_draws_of_what_is_no_mean_of_scores_give_no_interval():
    assert math.isnan(estimate(1.0, np.ones(50), 50, 0.95).low)
