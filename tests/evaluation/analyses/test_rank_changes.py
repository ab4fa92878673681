import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.global_mmlu import Answers
from aya_jax.evaluation.analyses.rank_changes import rank_changes, rank_table, ranks
from aya_jax.evaluation.analyses.resampling import Bootstrap

NONE = Bootstrap(0)


def answers(correct, labels, languages=("en",)):
    """`correct`: one string of 0 and 1 for each language."""
    table = np.array([[float(c) for c in row] for row in correct])
    size = len(labels)
    same = np.array(["x"] * size, dtype=object)
    return Answers(tuple(languages), tuple(map(str, range(size))), table, np.array(labels, dtype=object), same, same)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_ranks_are_scipys(right):
    expected = stats.rankdata([-r for r in right], method="min")
    np.testing.assert_array_equal(ranks(np.array(right, float)), expected)


def test_by_hand_with_ties():
    labels = ["CS"] * 3 + ["CA"] * 3 + ["-"]
    models = {
        "a": answers(["1111101"], labels),  # MA 5, CS 3, CA 2
        "b": answers(["1111101"], labels),  # the same
        "c": answers(["1001110"], labels),  # MA 4, CS 1, CA 3
        "d": answers(["1100000"], labels),  # MA 2, CS 2, CA 0
    }
    assert rank_table(models) == {
        "MA": {"en": {"a": 1, "b": 1, "c": 3, "d": 4}},
        "CS": {"en": {"a": 1, "b": 1, "c": 4, "d": 3}},
        "CA": {"en": {"a": 2, "b": 2, "c": 1, "d": 4}},
    }
    found = rank_changes(models, bootstrap=NONE)
    cs, ca = found["CS"]["all"], found["CA"]["all"]
    assert (cs.rank_changes.value, cs.position_changes.value, cs.largest) == (2, 2, 1)
    assert (ca.rank_changes.value, ca.position_changes.value, ca.largest) == (3, 4, 2)
    assert {name: e.value for name, e in ca.by_model.items()} == {"a": 1, "b": 1, "c": 2, "d": 0}


def test_means_over_languages_and_groups():
    labels = ["CS", "CS", "CA", "CA"]
    # In "en" the models swap on CS only; in "yo" nothing changes.
    models = {
        "a": answers(["0111", "1111"], labels, ("en", "yo")),
        "b": answers(["1100", "0000"], labels, ("en", "yo")),
    }
    found = rank_changes(models, bootstrap=NONE)["CS"]
    assert (found["all"].rank_changes.value, found["all"].position_changes.value) == (1.0, 1.0)
    assert (found["high"].rank_changes.value, found["low"].rank_changes.value) == (2.0, 0.0)
    assert "mid" not in found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_against_scipy_and_whatever_the_order(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(["CS", "CA", "-"], size=20)
    languages = ("en", "tr", "ko")
    tables = rng.integers(2, size=(5, 3, 20))
    models = {f"m{n}": answers(table, labels, languages) for n, table in enumerate(tables)}
    found = rank_changes(models, bootstrap=NONE)
    for subset in ("CS", "CA"):
        deltas = [
            stats.rankdata(-tables[:, at][:, labels != "-"].sum(axis=1), method="min")
            - stats.rankdata(-tables[:, at][:, labels == subset].sum(axis=1), method="min")
            for at in range(3)
        ]
        assert found[subset]["all"].rank_changes.value == pytest.approx(np.mean([np.sum(d != 0) for d in deltas]))
        assert found[subset]["all"].position_changes.value == pytest.approx(np.mean([np.abs(d).sum() for d in deltas]))
    # all but the first in another order of models, languages and questions
    order = rng.permutation(20)
    shuffled = {
        name: Answers(
            languages[::-1],
            tuple(np.array(models[name].questions)[order]),
            models[name].correct[::-1][:, order],
            models[name].labels[order],
            models[name].subjects,
            models[name].categories,
        )
        for name in sorted(models, reverse=True)
        if name != "m0"
    }
    again = rank_changes({"m0": models["m0"], **shuffled}, bootstrap=NONE)
    assert again["CS"]["all"].rank_changes == found["CS"]["all"].rank_changes
    assert again["CA"]["all"].position_changes == found["CA"]["all"].position_changes


def test_intervals_are_of_questions_drawn_jointly():
    rng = np.random.default_rng(0)
    labels = np.array(["CS", "CA"] * 200)
    same = {f"m{n}": answers([(rng.random(400) < 0.5).astype(int)], labels) for n in range(2)}
    # One model has the other's answers: they tie in every resample of questions, so nothing ever changes.
    tied = rank_changes({"a": same["m0"], "b": same["m0"]}, bootstrap=Bootstrap(100))["CS"]["all"]
    assert tied.rank_changes == (0, 0, 0)
    close = rank_changes(same, bootstrap=Bootstrap(100))["CS"]["all"]
    assert (close.rank_changes.low, close.rank_changes.high) == (0, 2)


def test_models_must_have_answered_the_same():
    labels = ["CS", "CA"]
    one = answers(["10"], labels)
    with pytest.raises(UserError, match="'b' and 'a' did not answer the same"):
        rank_table({"a": one, "b": answers(["10"], labels, ["tr"])})
    with pytest.raises(UserError, match="label the same questions differently"):
        rank_table({"a": one, "b": answers(["10"], ["CA", "CA"])})
    missing = dataclasses.replace(one, correct=np.array([[1.0, np.nan]]))
    with pytest.raises(UserError, match="'b' lacks answers in language 'en'"):
        rank_table({"a": one, "b": missing})
    with pytest.raises(UserError, match="needs models"):
        rank_table({})
