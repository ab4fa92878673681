"""Three kinds of reward model, and judges and rewards whose results are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.reward_bench.credit import (
    by_rewards,
    chosen_first,
    judge_outcomes,
    reward_outcomes,
)
from aya_jax.evaluation.reward_bench.instances import Instance, load_instances
from aya_jax.evaluation.reward_bench.subsets import REWARD_BENCH
from tests.evaluation.judging.judges import StubJudge, shown


def instance(name="1", language="arb_Arab", subset="donotanswer"):
    return Instance(id=name, language=language, subset=subset, prompt="?", chosen="better", rejected="worse")


@pytest.mark.parametrize(
    ("chosen", "rejected", "credit", "preferred", "unparsed"),
    [
        (2.0, 1.0, 1.0, "chosen", 0),
        (1.0, 2.0, 0.0, "rejected", 0),
        (1.0, 1.0, 0.0, "neither", 0),  # a tie is wrong
        (-math.inf, 1.0, 0.0, "rejected", 0),
        (math.nan, 1.0, 0.0, "neither", 1),
        (math.nan, math.nan, 0.0, "neither", 2),
    ],
)
def test_a_classifier_is_right_if_the_better_answer_s_reward_is_higher(chosen, rejected, credit, preferred, unparsed):
    found = by_rewards(instance(), chosen, rejected)
    assert (found.credit, found.preferred, found.unparsed, bool(found.error)) == (
        credit,
        preferred,
        unparsed,
        bool(unparsed),
    )


def test_a_reward_function_is_asked_for_both_answers():
    found = list(reward_outcomes(lambda answers: [len(a.text) for a in answers], [instance()]))
    assert [(o.id, o.language, o.subset, o.credit) for o in found] == [("1", "arb_Arab", "donotanswer", 1.0)]
    with pytest.raises(UserError, match="1 rewards for 2 answers"):
        list(reward_outcomes(lambda answers: [1.0], [instance()]))


def test_the_order_is_a_fair_coin_that_falls_alike_on_every_run():
    tossed = [chosen_first(str(k)) for k in range(2000)]
    assert 0.46 < np.mean(tossed) < 0.54
    assert tossed != [chosen_first(str(k), seed=1) for k in range(2000)]
    assert tossed[:12] == [chosen_first(str(k)) for k in range(12)]
    # From outside Python's own hash, which differs between processes: sha256 of "0/0", "0/1", ... as `sha256sum` gives it.
    assert [chosen_first(str(k)) for k in range(4)] == [False, False, False, True]


def test_one_order_the_same_in_every_language():
    judge = StubJudge(lambda a, b: "[[A]]")
    found = list(judge_outcomes(judge, [instance(str(k), la) for k in range(40) for la in ("arb_Arab", "eng_Latn")]))
    assert [shown(r)[0] == "better" for r in judge.requests] == [
        chosen_first(str(k)) for k in range(40) for _ in (1, 2)
    ]
    assert {o.id: o.credit for o in found} == {str(k): float(chosen_first(str(k))) for k in range(40)}
    assert {r.sampling.temperature for r in judge.requests} == {0.0}


RIGHT = lambda a, b: "[[A]]" if a == "better" else "[[B]]"  # noqa: E731


@pytest.mark.parametrize(
    ("answer", "orders", "credit", "preferred", "unparsed"),
    [
        (RIGHT, "hashed", 1.0, "chosen", 0),
        (RIGHT, "both", 1.0, "chosen", 0),
        (lambda a, b: RIGHT(b, a), "hashed", 0.0, "rejected", 0),
        (lambda a, b: RIGHT(b, a), "both", 0.0, "rejected", 0),
        (lambda a, b: "[[A]]", "both", 0.5, "neither", 0),
        (lambda a, b: "[[C]]", "hashed", 0.5, "neither", 1),
        (lambda a, b: None, "both", 0.5, "neither", 2),
        (lambda a, b: "[[A]]" if a == "better" else "?", "both", 0.75, "chosen", 1),
    ],
)
def test_judges_whose_credit_is_known(answer, orders, credit, preferred, unparsed):
    judge = StubJudge(answer)
    found = list(judge_outcomes(judge, [instance(str(k)) for k in range(5)], orders=orders, name_language=True))
    assert len(found) == 5
    assert len(judge.requests) == (10 if orders == "both" else 5)
    assert {(o.credit, o.preferred, o.unparsed, bool(o.error)) for o in found} == {
        (credit, preferred, unparsed, bool(unparsed))
    }
    assert all("in Arabic" in request.prompt[1].content for request in judge.requests)


ROW = {
    "id": 3,
    "language": "arb_Arab",
    "prompt": "?",
    "chosen": "a",
    "rejected": "",
    "subset": "hep-go",
    "chosen_model": "m",
}


def test_rows_of_both_benchmarks(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "id": 4, "language": None}) + "\n")
    first, second = load_instances(file, language="eng_Latn", subsets=REWARD_BENCH)
    assert first == Instance(id="3", language="arb_Arab", subset="hep-go", prompt="?", chosen="a", rejected="")
    assert (second.id, second.language) == ("4", "eng_Latn")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"subset": "hep-golang"},
            r"rows\.jsonl:1: field 'subset' is 'hep-golang', which is none .*; did you mean hep-go",
        ),
        ({"subset": None}, r":1: field 'subset' is missing; the row has chosen, chosen_model, id, "),
        ({"chosen": None}, r":1: field 'chosen' is missing"),
        ({"rejected": ["a"]}, r":1: field 'rejected' is \['a'\]; a text is needed"),
        ({"id": None}, r":1: field 'id' is missing"),
        ({"language": None}, r":1: field 'language' is missing"),
        ({"prompt": ""}, r":1: field 'prompt' is ''"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, said):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**ROW, **changes}) + "\n")
    with pytest.raises(UserError, match=said):
        load_instances(file)


def test_an_instance_that_comes_twice_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(ROW) + "\n") * 2)
    with pytest.raises(UserError, match=r":2: field 'id' is '3' again, for arb_Arab as in line 1"):
        load_instances(file)
    file.write_text("")
    with pytest.raises(UserError, match="no rows"):
        load_instances(file)
    with pytest.raises(UserError, match=r"'arb_Arab/1/\d' is to be judged twice"):
        list(judge_outcomes(StubJudge(RIGHT), [instance()] * 2))
