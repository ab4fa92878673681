"""pass@k against counting: every choice of k samples, by hand and by `math.comb`."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.evaluation.code.pass_at_k import pass_at_k, summarize


def all_cases(most: int) -> list[tuple[int, int, int]]:
    return [(n, c, k) for n in range(1, most) for c in range(n + 1) for k in range(1, n + 1)]


def test_every_subset_counted() -> None:
    for n, c, k in all_cases(8):
        chosen = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, chosen)) / len(chosen), abs=1e-12)


def test_exact_binomials() -> None:
    for n, c, k in [*all_cases(30), (200, 1, 100), (200, 3, 100), (1000, 7, 10), (100_000, 2, 50_000)]:
        exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-9, abs=1e-12)


CASES = st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))


@settings(deadline=None)
@given(CASES)
def test_laws(case: tuple[int, int, int]) -> None:
    n, c, k = case
    value = pass_at_k(n, c, k)
    assert 0 <= value <= 1
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert (value == 0) == (c == 0)
    assert (
        value == pytest.approx(pass_at_k(n, k, c)) if c else True
    )  # which is chosen and which is right may change places
    if c < n:
        assert pass_at_k(n, c + 1, k) >= value - 1e-12
    if k < n:
        assert pass_at_k(n, c, k + 1) >= value - 1e-12


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 6), (5, 2, 0), (0, 0, 1), (5, 6, 1), (5, -1, 1)])
def test_what_makes_no_sense_is_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(UserError):
        pass_at_k(n, c, k)


def test_the_mean_over_problems() -> None:
    result = summarize([(4, 0), (4, 4), (2, 1)], 1)
    assert result.per_problem == (0.0, 1.0, 0.5)
    assert result.mean == 0.5
    assert result.low < result.mean < result.high


def test_the_interval_is_that_of_the_binomial() -> None:
    # Resampled means of zeros and ones are Binomial(100, 0.3) / 100, whose 2.5 % and 97.5 % points are 0.21 and 0.39.
    result = summarize([(1, 1)] * 30 + [(1, 0)] * 70, 1)
    assert (result.low, result.high) == (pytest.approx(0.21, abs=0.011), pytest.approx(0.39, abs=0.011))


def test_the_interval_holds_the_truth_19_times_in_20() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(30):
        result = summarize([(1, int(solved)) for solved in rng.random(80) < 0.5], 1)
        held += result.low <= 0.5 <= result.high
    assert 25 <= held <= 30


def test_seeds() -> None:
    counts = [(5, c % 6) for c in range(40)]
    assert summarize(counts, 3, seed=1) == summarize(counts, 3, seed=1)
    assert summarize(counts, 3, seed=1).low != summarize(counts, 3, seed=2).low
    assert summarize(counts, 3, seed=1).mean == summarize(counts, 3, seed=2).mean


def test_problems_without_enough_samples_are_refused() -> None:
    with pytest.raises(UserError, match="pass@3 of 2 samples"):
        summarize([(5, 1), (2, 1)], 3)
    with pytest.raises(UserError, match="no problems"):
        summarize([], 1)
