"""Alpha against Krippendorff's own example, Scott's pi, and raters whose agreement is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.judging.agreement import cohen_kappa
from aya_jax.evaluation.judging.krippendorff import krippendorff_alpha

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units, missing data.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def test_the_published_example():
    units = zip(*OBSERVERS, strict=True)
    found = krippendorff_alpha([[None if label == "." else label for label in unit] for unit in units])
    assert found.value == pytest.approx(0.743, abs=5e-4)
    assert found.low < found.value < found.high


def scott_pi(pairs):
    """(p_o - p_e) / (1 - p_e), with chance by the labels of both raters together (Scott 1955)."""
    labels = {label for pair in pairs for label in pair}
    observed = np.mean([a == b for a, b in pairs])
    expected = sum(np.mean([label == said for pair in pairs for said in pair]) ** 2 for label in labels)
    return (observed - expected) / (1 - expected)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=25))
def test_of_two_raters_it_is_scott_s_pi_for_a_small_sample(pairs):
    """alpha = 1 - (1 - pi) (1 - 1 / n) of n labels (Krippendorff 2004), so they meet as n grows."""
    assume(len({label for pair in pairs for label in pair}) > 1)
    found = krippendorff_alpha(pairs, resamples=1)
    assert found.value == pytest.approx(1 - (1 - scott_pi(pairs)) * (1 - 1 / (2 * len(pairs))))


def test_with_like_habits_it_meets_cohen_s_kappa():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 4000)
    second = np.where(rng.random(4000) < 0.7, first, rng.integers(0, 3, 4000))
    found = krippendorff_alpha(list(zip(first.tolist(), second.tolist(), strict=True)), resamples=50)
    assert found.value == pytest.approx(cohen_kappa(first.tolist(), second.tolist()), abs=2e-3)
    assert found.low < 0.7 < found.high  # of which 70 % is not chance


def test_agreement_and_chance_and_the_opposite():
    rng = np.random.default_rng(1)
    assert krippendorff_alpha([[n % 3] * 4 for n in range(30)]).value == 1.0
    chance = krippendorff_alpha(rng.integers(0, 2, (3000, 3)).tolist(), resamples=100)
    assert chance.low < 0.0 < chance.high
    assert krippendorff_alpha([[1, 2]] * 500, resamples=10).value == pytest.approx(
        1 - 999 / 500
    )  # D_o 1, D_e 500 / 999


@pytest.mark.parametrize("things", [[], [[1], [2]], [[1, 1], [1, 1]], [[None, 2], [1, None]]])
def test_where_there_is_nothing_to_tell_it_from_chance(things):
    assert math.isnan(krippendorff_alpha(things).value)


def test_who_leaves_something_out_changes_nothing_else():
    whole = [[1, 1, 2], [2, 2, 2], [1, 2, 1], [1, 1, 1]] * 3
    padded = [[*labels, None] for labels in whole]
    assert krippendorff_alpha(padded) == krippendorff_alpha(whole) == krippendorff_alpha([*whole, [2, None, None]])
