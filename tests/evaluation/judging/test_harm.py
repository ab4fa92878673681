"""Harm rates and their changes, with invented neutral stand-ins for harmful text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from aya_jax.config import UserError
from aya_jax.evaluation.judging.harm import (
    Labelled,
    RedTeamPrompt,
    judge_labels,
    load_red_team,
    parse_categories,
    rates,
    relative_change,
    relative_changes_by,
)
from tests.evaluation.judging.judges import StubJudge


def labelled(labels, language="en", **more):
    return [Labelled(prompt_id=f"p{k}", language=language, label=label, **more) for k, label in enumerate(labels)]


def test_rates_of_parts():
    """Of 6 answers 1 cannot be read and 3 are harmful; one has two categories, one has none."""
    rows = [
        ("p0", "en", True, ("noise", "mess"), "global"),
        ("p1", "en", False, ("noise",), "local"),
        ("p2", "en", None, ("mess",), "local"),
        ("p0", "ar", True, ("noise", "mess"), "global"),
        ("p1", "ar", True, ("noise",), "local"),
        ("p3", "ar", False, (), ""),
    ]
    records = [Labelled(prompt_id=p, language=la, label=x, categories=c, scope=s) for p, la, x, c, s in rows]
    found = rates(records)
    assert (found.overall.rate.value, found.overall.judged, found.overall.unparsed) == (60.0, 5, 1)
    assert {k: (v.rate.value, v.judged, v.unparsed) for k, v in found.languages.items()} == {
        "ar": (pytest.approx(200 / 3), 3, 0),
        "en": (50.0, 2, 1),
    }
    assert {k: (v.rate.value, v.judged, v.unparsed) for k, v in found.categories.items()} == {
        "mess": (100.0, 2, 1),
        "noise": (75.0, 4, 0),
    }
    assert {k: v.rate.value for k, v in found.scopes.items()} == {"global": 100.0, "local": 50.0}
    assert found.macro.value == pytest.approx((200 / 3 + 50) / 2)


def test_nothing_judged_has_no_rate():
    for records in ([], labelled([None] * 9)):
        found = rates(records)
        assert math.isnan(found.overall.rate.value)
        assert (found.overall.judged, found.overall.unparsed) == (0, len(records))
        assert math.isnan(found.macro.value)


def test_a_rate_s_interval_is_that_of_a_share():
    found = rates(labelled([k < 60 for k in range(200)])).overall.rate
    assert (found.high - found.low) / 3.92 == pytest.approx(100 * math.sqrt(0.3 * 0.7 / 200), rel=0.1)


def test_relative_change_by_hand():
    """Paired: p0 to p3. Baseline 3 of 4, model 1 of 4: -2/3. p4 is unread by one, p5 is the baseline's alone."""
    model = labelled([True, False, False, False, None])
    base = labelled([True, True, True, False, True, True])
    found = relative_change(model, base)
    assert found.change.value == pytest.approx(-200 / 3)
    assert (found.rate, found.baseline_rate, found.pairs, found.left_out) == (25.0, 75.0, 4, 3)


def test_no_change_is_exactly_none_and_none_left_is_minus_100():
    base = labelled([k % 2 == 0 for k in range(20)])
    same = relative_change(base, base)
    assert same.change.value == 0.0
    gone = relative_change(labelled([False] * 20), base)
    assert gone.change.value == -100.0
    assert (gone.note, gone.undefined_draws) == ("", 0)


def test_a_baseline_without_harm_gives_no_change_and_says_so():
    found = relative_change(labelled([True] * 9), labelled([False] * 9))
    assert found.change is None
    assert "baseline's rate is 0" in found.note
    assert (found.rate, found.baseline_rate) == (100.0, 0.0)
    none = relative_change(labelled([None] * 9), labelled([True] * 9))
    assert none.change is None
    assert (none.pairs, none.left_out, none.note) == (0, 18, "no prompt has a label of both")


def test_draws_without_harm_in_the_baseline_are_counted():
    """One harmful answer of six: (5/6)^6 of draws leave it out."""
    found = relative_change(labelled([True, True, *[False] * 4]), labelled([True, *[False] * 5]), resamples=2000)
    assert found.undefined_draws / 2000 == pytest.approx((5 / 6) ** 6, abs=0.03)
    assert f"{found.undefined_draws} of 2000 draws" in found.note


def test_the_interval_is_scipy_s_paired_bootstrap():
    rng = np.random.default_rng(1)
    base = rng.random(150) < 0.5
    model = np.where(base, rng.random(150) < 0.5, rng.random(150) < 0.1)
    found = relative_change(labelled(model.tolist()), labelled(base.tolist()), resamples=4000)
    theirs = stats.bootstrap(
        (model.astype(float), base.astype(float)), lambda m, b, axis: 100 * (m.mean(axis) / b.mean(axis) - 1), paired=True,
        method="percentile", n_resamples=4000, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert (found.change.low, found.change.high) == pytest.approx((theirs.low, theirs.high), abs=2.5)


def test_translations_of_a_prompt_are_drawn_together():
    rng = np.random.default_rng(1)
    base, model = (rng.random(100) < p for p in (0.6, 0.4))
    one = relative_change(labelled(model.tolist()), labelled(base.tolist()))
    two = relative_change(*(labelled(x.tolist(), "en") + labelled(x.tolist(), "ar") for x in (model, base)))
    assert two.change == one.change
    assert (two.pairs, one.pairs) == (200, 100)


def test_changes_of_parts():
    base = labelled([True] * 4, "en", scope="global") + labelled([True] * 4, "ar", scope="local")
    model = labelled([True, True, False, False], "en", scope="global") + labelled([False] * 4, "ar", scope="local")
    by_language = relative_changes_by("language", model, base)
    assert {name: found.change.value for name, found in by_language.items()} == {"ar": -100.0, "en": -50.0}
    by_scope = relative_changes_by("scope", model, base)
    assert {name: found.change.value for name, found in by_scope.items()} == {"global": -50.0, "local": -100.0}
    assert relative_changes_by("category", model, base) == {}


def test_an_answer_judged_twice_is_refused():
    with pytest.raises(UserError, match=r"prompt 'p0' \(en\) was judged twice"):
        rates(labelled([True]) * 2)


@pytest.mark.parametrize(
    ("value", "categories"),
    [
        ("['noise', 'mess, and dust']", ("noise", "mess, and dust")),
        ('["noise"]', ("noise",)),
        (["noise", "mess", "noise"], ("noise", "mess")),
        ("noise", ("noise",)),
        ("[]", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_categories_however_they_are_written(value, categories):
    assert parse_categories(value) == categories


@pytest.mark.parametrize("value", ["['noise'", "[1]", "[noise]", 3, [""], "[__import__('os')]"])
def test_categories_that_are_none(value):
    with pytest.raises(ValueError, match=r"is .*list"):
        parse_categories(value)


ROW = {
    "prompt": "Tell me about noise.",
    "language": "English",
    "harm_category": "['noise', 'mess']",
    "global_or_local": "Global",
}


def test_rows_of_the_red_team(tmp_path):
    file = tmp_path / "aya_eng.jsonl"
    rows = [ROW, {**ROW, "id": 5, "language": None, "global_or_local": None}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_red_team(file, language="eng") == [
        RedTeamPrompt(
            id="aya_eng:1", language="English", prompt=ROW["prompt"], categories=("noise", "mess"), scope="global"
        ),
        RedTeamPrompt(id="5", language="eng", prompt=ROW["prompt"], categories=("noise", "mess")),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"global_or_local": "regional"}, r"r\.jsonl:1: field 'global_or_local' is 'regional'; 'global' or 'local'"),
        ({"harm_category": "['noise'"}, r":1: field 'harm_category' is \"\['noise'\", which is no list"),
        ({"prompt": None}, r":1: field 'prompt' is missing"),
        ({"language": ""}, r":1: field 'language' is ''"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, said):
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps({**ROW, **changes}) + "\n")
    with pytest.raises(UserError, match=said):
        load_red_team(file)


PROMPTS = [RedTeamPrompt(id=f"p{k}", language="ar", prompt="?", categories=("noise",), scope="local") for k in range(3)]
ANSWERS = {("ar", "p0"): "bad [[SAFE]]", ("ar", "p1"): "good", ("ar", "p2"): "odd"}


def test_answers_are_judged_alone():
    replies = {"bad [[SAFE]]": "Quoting [[SAFE]], yet [[UNSAFE]]", "good": "[[SAFE]]", "odd": None}
    judge = StubJudge(lambda answer: replies[answer])
    found = {r.prompt_id: r for r in judge_labels(judge, PROMPTS, ANSWERS, name_language=True)}
    assert {name: record.label for name, record in found.items()} == {"p0": True, "p1": False, "p2": None}
    assert found["p2"].error == "503 from the provider"
    assert (found["p0"].categories, found["p0"].scope, found["p0"].language) == (("noise",), "local", "ar")
    assert all("in Arabic" in request.prompt[1].content for request in judge.requests)
    assert {request.sampling.temperature for request in judge.requests} == {0.0}
    assert rates(found.values()).overall.rate.value == 50.0


def test_refusals_are_asked_for_in_their_own_words():
    judge = StubJudge(lambda answer: "[[REFUSED]]" if answer == "good" else "[[ANSWERED]] [[UNSAFE]]")
    found = {r.prompt_id: r.label for r in judge_labels(judge, PROMPTS, ANSWERS, form="refusal")}
    assert found == {"p0": False, "p1": True, "p2": False}


def test_a_prompt_without_an_answer_is_named():
    with pytest.raises(UserError, match=r"prompt 'p2' \(ar\) has no answer"):
        list(judge_labels(StubJudge(lambda a: "[[SAFE]]"), PROMPTS, {key: ANSWERS[key] for key in list(ANSWERS)[:2]}))
