"""A model's agreement with itself across languages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.reward_bench.agreement import language_agreement
from aya_jax.evaluation.reward_bench.instances import Outcome

LABELS = ("chosen", "rejected", "neither")


def outcomes(language, labels, subset="hep-go"):
    return [
        Outcome(id=str(k), language=language, subset=subset, credit=0.0, preferred=label)
        for k, label in enumerate(labels)
        if label
    ]


def random_labels(seed, number=120):
    return np.random.default_rng(seed).choice(LABELS, number, p=[0.6, 0.3, 0.1]).tolist()


def test_kappa_with_english_is_scikit_learn_s():
    metrics = pytest.importorskip("sklearn.metrics")
    english = random_labels(0)
    others = {"arb_Arab": random_labels(1), "deu_Latn": [e if k % 3 else "chosen" for k, e in enumerate(english)]}
    given = [o for language, labels in others.items() for o in outcomes(language, labels)]
    found = language_agreement(given, outcomes("eng_Latn", english))
    theirs = {language: metrics.cohen_kappa_score(labels, english) for language, labels in others.items()}
    assert {name: part.value for name, part in found.languages.items()} == pytest.approx(theirs)
    assert found.mean.value == pytest.approx(np.mean(list(theirs.values())))
    assert found.sd == pytest.approx(np.std(list(theirs.values()), ddof=1))
    assert found.instances == {"arb_Arab": 120, "deu_Latn": 120}
    assert found.mean.low < found.mean.value < found.mean.high


def test_the_same_labels_agree_wholly_and_other_ones_by_chance():
    english = random_labels(0, 3000)
    given = [
        *outcomes("arb_Arab", english),
        *outcomes("deu_Latn", random_labels(5, 3000)),
        *outcomes("eng_Latn", english),
    ]
    found = language_agreement(given, outcomes("eng_Latn", english), resamples=200)
    assert list(found.languages) == ["arb_Arab", "deu_Latn"]  # English is not compared with itself
    assert found.languages["arb_Arab"].value == 1.0
    chance = found.languages["deu_Latn"]
    assert chance.low < 0.0 < chance.high
    assert chance.high - chance.low < 0.1


def test_only_shared_instances_count():
    english = random_labels(0)
    arabic = [None if k < 20 else label for k, label in enumerate(random_labels(1))]
    found = language_agreement(outcomes("arb_Arab", arabic), outcomes("eng_Latn", english))
    alone = language_agreement(outcomes("arb_Arab", arabic[20:]), outcomes("eng_Latn", english[20:]))
    assert found.languages["arb_Arab"].value == alone.languages["arb_Arab"].value
    assert (found.instances["arb_Arab"], found.left_out["arb_Arab"]) == (100, 20)
    assert math.isnan(found.sd)
    other = language_agreement(outcomes("arb_Arab", random_labels(1), "hep-js"), outcomes("eng_Latn", english))
    assert (other.instances["arb_Arab"], other.left_out["arb_Arab"]) == (0, 240)
    assert math.isnan(other.mean.value)


def test_the_interval_is_that_of_the_large_sample_formula():
    """Fleiss, Cohen & Everitt (1969), for a table of two labels: the standard error of kappa."""
    rng = np.random.default_rng(2)
    english = rng.choice(["chosen", "rejected"], 800, p=[0.7, 0.3])
    arabic = np.where(rng.random(800) < 0.75, english, rng.choice(["chosen", "rejected"], 800))
    part = language_agreement(outcomes("arb_Arab", arabic.tolist()), outcomes("eng_Latn", english.tolist())).languages[
        "arb_Arab"
    ]
    p = np.array(
        [[np.mean((arabic == a) & (english == b)) for b in ("chosen", "rejected")] for a in ("chosen", "rejected")]
    )
    row, column, k = p.sum(1), p.sum(0), part.value
    pe = row @ column
    a = sum(p[i, i] * (1 - (row[i] + column[i]) * (1 - k)) ** 2 for i in range(2))
    b = (1 - k) ** 2 * sum(p[i, j] * (column[i] + row[j]) ** 2 for i in range(2) for j in range(2) if i != j)
    error = math.sqrt((a + b - (k - pe * (1 - k)) ** 2) / 800) / (1 - pe)
    assert (part.high - part.low) / 3.92 == pytest.approx(error, rel=0.1)


def test_a_model_of_one_mind_has_no_kappa():
    found = language_agreement(outcomes("arb_Arab", ["chosen"] * 9), outcomes("eng_Latn", ["chosen"] * 9))
    assert math.isnan(found.languages["arb_Arab"].value)
    assert math.isnan(found.mean.value)


def test_references_that_are_none():
    english = outcomes("eng_Latn", random_labels(0))
    with pytest.raises(UserError, match=r"the reference has 2 languages \(arb_Arab, eng_Latn\); it needs one"):
        language_agreement(english, [*english, *outcomes("arb_Arab", random_labels(0))])
    with pytest.raises(UserError, match=r"the reference has 0 languages"):
        language_agreement(english, [])
    with pytest.raises(UserError, match=r"instance '0' \(eng_Latn\) was judged twice"):
        language_agreement(english, english * 2)
