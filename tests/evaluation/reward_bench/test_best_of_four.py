"""RewardBench 2: credits and the score of Ties by hand, and rewards whose results are known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import UserError
from aya_jax.evaluation.judging import run as verb
from aya_jax.evaluation.results import read_summary
from aya_jax.evaluation.reward_bench.best_of_four import SUBSETS, TIES, Choice, choose, load_choices, scores
from tests.evaluation.judging.test_run import ROOT

PLAIN = [name for name in SUBSETS if name != TIES]


def choice(name="1", subset="Math", right=("4.0",), wrong=("1.0", "2.0", "3.0")):
    """A question whose answers spell their own rewards."""
    return Choice(id=name, subset=subset, prompt="?", right=right, wrong=wrong)


def spelt(answers):
    return [float(answer.text) for answer in answers]


def inverted(answers):
    return [-float(answer.text) for answer in answers]


def everything(number=8):
    """Questions of all subsets, right for a model that reads the reward off the answer."""
    plain = [choice(str(n), subset) for subset in PLAIN for n in range(number)]
    ties = [choice(f"tied:{n}", TIES, ("9.0", "9.5"), ("1.0", "2.0")) for n in range(number)]
    refs = [choice(f"ref:{n}", TIES, ("9.0",), ("1.0",)) for n in range(number)]
    return [*plain, *ties, *refs]


def test_the_published_questions():
    assert sum(SUBSETS.values()) == 1865  # allenai/reward-bench-2's card


@pytest.mark.parametrize(
    ("wrong", "credit"),
    [
        (("1", "2", "3"), 1.0),
        (("1", "2", "4"), 1 / 2),
        (("4", "2", "4"), 1 / 3),
        (("4", "4", "4"), 1 / 4),
        (("1", "5", "1"), 0.0),
        (("nan", "1", "1"), 0.0),
    ],
)
def test_ties_at_the_top_share_the_point(wrong, credit):
    (found,) = choose(spelt, [choice(right=("4",), wrong=wrong)])
    assert found.credit == pytest.approx(credit)


def test_a_model_that_sees_it_and_one_that_sees_the_opposite():
    """All right: 100 in five subsets; Ties 100 + tanh(min(7, 8) / 0.5 - 1). All wrong: 0, and tanh < 0."""
    right, wrong = (scores(choose(model, everything())) for model in (spelt, inverted))
    assert {name: right.subsets[name].value for name in PLAIN} == dict.fromkeys(PLAIN, 100.0)
    assert right.subsets[TIES].value == pytest.approx(100.0 + math.tanh(7 / 0.5 - 1))
    assert right.score.value == pytest.approx((500 + right.subsets[TIES].value) / 6)
    assert {name: wrong.subsets[name].value for name in PLAIN} == dict.fromkeys(PLAIN, 0.0)
    assert wrong.subsets[TIES].value == pytest.approx(math.tanh(-8.5 / 0.5 - 1))
    assert right.questions["Math"] == (8, 183)


def test_a_constant_reward_is_right_once_in_four_and_never_of_ties():
    found = scores(choose(lambda answers: [0.0] * len(answers), everything()))
    assert {found.subsets[name].value for name in PLAIN} == {25.0}
    assert found.subsets[TIES].value == 0.0  # 0 / 0 is no number, which counts 0


def test_rewards_by_chance_are_right_once_in_four():
    rng = np.random.default_rng(0)
    found = scores(choose(lambda answers: rng.normal(size=len(answers)), [choice(str(n)) for n in range(4000)]))
    assert found.subsets["Math"].low < 25.0 < found.subsets["Math"].high
    width = found.subsets["Math"].high - found.subsets["Math"].low
    assert width == pytest.approx(100 * 2 * 1.96 * math.sqrt(0.25 * 0.75 / 4000), rel=0.1)


def test_ties_by_hand():
    """Two pairs of questions. 1: tied right with g 2 and s 1, ref with g 0.5: preferred, not of both, tanh(0.5 / 1 - 1).
    2: tied wrong (g -1, s 3), ref right (g 4): neither, tanh(-1 / 3 - 1)."""
    given = [
        choice("tied:1", TIES, ("5", "6"), ("3", "1")),
        choice("ref:1", TIES, ("2",), ("1.5", "0")),
        choice("tied:2", TIES, ("5", "8"), ("6", "1")),
        choice("ref:2", TIES, ("5",), ("1",)),
    ]
    found = scores(choose(spelt, given), allow_partial=True)
    far = (math.tanh(-0.5) + math.tanh(-4 / 3)) / 2
    expected = 0.3 * 0.5 + 0.3 * 1.0 + 0.2 * 0.5 + 0.2 * 0.0 + 0.01 * far
    assert found.subsets[TIES].value == pytest.approx(100 * expected)
    assert found.score.value == found.subsets[TIES].value
    assert found.missing == tuple(PLAIN)


def test_a_tied_question_without_its_ref_counts_where_it_can():
    """Right of tied alone: 0.3; the margins need both."""
    found = scores(choose(spelt, [choice("tied:1", TIES, ("5", "6"), ("3",))]), allow_partial=True)
    assert found.subsets[TIES].value == pytest.approx(30.0)


def test_a_missing_subset_leaves_no_score():
    assert scores(choose(spelt, [choice()])).score is None
    assert scores(choose(spelt, [choice()]), allow_partial=True).score.value == 100.0


def test_a_reward_that_is_no_number_is_wrong_and_counted():
    found = scores(choose(spelt, [choice("tied:1", TIES, ("5", "nan"), ("1",)), choice("ref:1", TIES, ("5",), ("1",))]))
    assert found.unparsed[TIES] == 1
    assert found.subsets[TIES].value == pytest.approx(30.0)  # the ref alone


def row(**changes):
    return {"id": "1", "prompt": "?", "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Precise IF"} | changes


def test_rows_of_the_published_layout(tmp_path):
    file = tmp_path / "test.jsonl"
    given = [row(num_correct=1, models=["x"]), row(id="tied:3", subset="Ties", chosen=["a", "b"]), row(subset="focus")]
    file.write_text("".join(json.dumps(each) + "\n" for each in given))
    first, tied, focus = load_choices(file)
    assert (first.right, first.wrong, first.subset) == (("a",), ("b", "c", "d"), "Precise IF")
    assert (tied.id, tied.right, focus.subset) == ("tied:3", ("a", "b"), "Focus")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subset": "Fokus"}, r"field 'subset' is 'Fokus', which is none of the benchmark's.*Focus"),
        ({"chosen": "a"}, "field 'chosen' is 'a'; a list of texts"),
        ({"rejected": []}, r"field 'rejected' is \[\]"),
        ({"chosen": ["a", "b"]}, "field 'chosen' has 2 answers; one is needed"),
        ({"subset": "Ties"}, "field 'id' is '2'; of Ties 'tied:<number>'"),
        ({"prompt": " "}, "field 'prompt'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changes, problem):
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(row()) + "\n" + json.dumps(row(id="2") | changes) + "\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl:2: {problem}"):
        load_choices(file)


def test_an_id_twice_is_named(tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text((json.dumps(row()) + "\n") * 2)
    with pytest.raises(UserError, match=r"bad\.jsonl:2: field 'id' is '1' again, of Precise IF as in line 1"):
        load_choices(file)


def test_from_the_command_line(monkeypatch, tmp_path, capsys):
    """By rewards that are planted; a judge that writes is refused."""
    monkeypatch.setattr(verb, "reward_function", lambda config, say, advance: spelt)
    monkeypatch.setattr(verb, "identity", lambda config: "planted")
    file = tmp_path / "test.jsonl"
    given = [
        {"id": c.id, "prompt": c.prompt, "chosen": c.right, "rejected": c.wrong, "subset": c.subset}
        for c in everything()
    ]
    file.write_text("".join(json.dumps(each) + "\n" for each in given))
    bindings = [f"--gin.PAIRS=('{file}',)", f"--gin.RUN_DIR={tmp_path}", "--gin.JUDGE_DIR=judge"]
    files = [str(ROOT / "gin/judge" / name) for name in ("reward_bench_2.gin", "reward.gin")]
    assert main(["judge", *files, *bindings]) == 0
    found = read_summary(tmp_path / "evaluations" / "judged.json")["reward_bench_2"]
    assert found["subsets"]["Precise IF"]["value"] == 100.0
    out = capsys.readouterr().out
    assert "mean of 6 subsets" in out
    assert "Factuality (8 of 475)" in " ".join(out.split())
    assert main(["judge", files[0], *bindings]) == 2
    assert "rewards: add judge/reward.gin or judge/implicit.gin" in capsys.readouterr().err
