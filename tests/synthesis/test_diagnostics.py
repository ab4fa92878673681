"""Numbers of answers against the same by hand and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from aya_jax.synthesis.diagnostics import change, describe, spread, warnings


def record(*answers, language="en"):
    made = [
        {"text": text, "reward": reward, "tokens": list(range(size)), "finished": finished, "log_prob": log_prob}
        for text, reward, size, finished, log_prob in answers
    ]
    return {"language": language, "answers": made}


RECORDS = [
    record(("a", 1.0, 3, True, -2.0), ("a", 3.0, 5, True, -4.0), ("b", None, 4, False, -6.0)),
    record(("c", -1.0, 8, False, -1.0), ("d", 0.0, 0, True, 0.0), language="de"),
]


def test_numbers_of_answers():
    found = describe(RECORDS, [-3.0, -4.0, -8.0, -0.5, 0.0])
    assert (found["answers"], found["scored"]) == (5, 4)
    assert found["reward"] == pytest.approx(3 / 4)
    assert (found["reward/language/en"], found["reward/language/de"]) == (2.0, -0.5)
    assert found["tokens"] == 4
    assert found["finished"] == pytest.approx(3 / 5)
    assert found["duplicates"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["kl"] == pytest.approx((1 + 0 + 2 - 0.5 + 0) / 5)
    assert "kl" not in describe(RECORDS)


def test_margins_are_counted_between_their_edges():
    found = spread([0.5, 0.5, 1.0, 2.5])
    assert found["mean"] == pytest.approx(1.125)
    assert sum(found["counts"]) == 4
    assert (found["edges"][0], found["edges"][-1]) == (0.5, 2.5)


def one(reward, language="en"):
    return record(("x", reward, 1, True, 0.0), language=language)


def test_a_change_is_that_of_each_prompt_with_its_interval():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 12))
    languages = ["en", "de"] * 6
    found = change(*([one(v, name) for v, name in zip(side, languages, strict=True)] for side in (before, after)))
    difference = after - before
    interval = stats.t.interval(0.95, 11, difference.mean(), difference.std(ddof=1) / math.sqrt(12))
    assert (found["low"], found["high"]) == pytest.approx(interval)
    assert found["mean"] == pytest.approx(difference.mean())
    assert found["language/de"] == pytest.approx(difference[1::2].mean())
    assert found["prompts"] == 12


def test_a_prompt_without_a_judged_answer_is_no_change():
    found = change([one(1.0), one(None), one(2.0)], [one(2.0), one(9.0), one(None)])
    assert found == {"prompts": 1, "mean": 1.0, "low": 1.0, "high": 1.0, "language/en": 1.0}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"tokens": 31.0}, "1.55 times as long"),
        ({"tokens": 9.0}, "0.45 times as long"),
        ({"duplicates": 0.7}, "70% of the answers repeat"),
        ({"finished": 0.5}, "50% of the answers come to an end, 80% did"),
        ({"kl": 80.0}, "80 nats an answer"),
        (
            {"reward": 0.6, "reward/language/de": 0.1},
            "the reward of de has fallen from 0.200 to 0.100 while it rose over all",
        ),
    ],
)
def test_signs_of_a_reward_that_is_gamed(now, said):
    by_language = {"reward": 0.5, "reward/language/de": 0.2, "reward/language/en": None}
    first = {"tokens": 20.0, "duplicates": 0.1, "finished": 0.8} | by_language
    assert warnings(first, first | {"kl": 1.0}) == []
    (found,) = warnings(first, first | now)
    assert said in found
