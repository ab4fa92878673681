"""Judges against labels: scikit-learn, textbook numbers, and judges whose agreement is known."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.evaluation.judging.agreement import (
    LabelledPair,
    agreement,
    cohen_kappa,
    judge_agreement,
    load_llmbar,
    pair_battles,
)
from aya_jax.evaluation.judging.battles import Game
from aya_jax.evaluation.judging.judge import judge_games
from aya_jax.evaluation.judging.pairwise import raters
from tests.evaluation.judging.judges import StubJudge, longer

PAIRS = [
    LabelledPair(
        id=f"f:{k}", prompt="?", first="long answer" if k % 3 else "no", second="short", labels=(1 if k % 3 else 2,)
    )
    for k in range(1, 13)
]  # the longer answer is the better one


def test_kappa_of_a_textbook():
    """Two raters of 50 proposals: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: p_o 0.7, p_e 0.5, kappa 0.4."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_kappa_is_scikit_learn_s(labels):
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = zip(*labels, strict=True)
    if len({*first, *second}) == 1:
        assert math.isnan(cohen_kappa(first, second))
    else:
        assert cohen_kappa(first, second) == pytest.approx(metrics.cohen_kappa_score(first, second))


def test_kappa_that_does_not_exist():
    assert math.isnan(cohen_kappa([], []))
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert cohen_kappa([1, 2], [1, 2]) == 1.0
    assert cohen_kappa([1, 2], [2, 1]) == -1.0


def test_agreement_by_hand():
    found = agreement([1, 2, 0, None, 2, 1], [1, 2, 1, 1, 1, 1], list("abcdef"))
    assert found.accuracy.value == pytest.approx(50.0)
    assert found.accuracy_of_read.value == pytest.approx(60.0)
    assert found.kappa.value == pytest.approx(cohen_kappa([1, 2, 0, 2, 1], [1, 2, 1, 1, 1]))
    assert (found.judgements, found.ties, found.unparsed) == (6, 1, 1)


def test_intervals_draw_pairs_and_not_judgements():
    """Every judgement twice, as of two orders that agree: the interval is that of single judgements."""
    rng = np.random.default_rng(0)
    judged, truth, units = (
        rng.integers(1, 3, 80).tolist(),
        rng.integers(1, 3, 80).tolist(),
        [f"{k:02d}" for k in range(80)],
    )
    once = agreement(judged, truth, units)
    twice = agreement(
        [j for j in judged for _ in (1, 2)], [t for t in truth for _ in (1, 2)], [u for u in units for _ in (1, 2)]
    )
    assert (twice.accuracy, twice.kappa) == (once.accuracy, once.kappa)
    p = once.accuracy.value / 100
    assert (once.accuracy.high - once.accuracy.low) / 3.92 == pytest.approx(100 * math.sqrt(p * (1 - p) / 80), rel=0.1)
    assert once.kappa.low < once.kappa.value < once.kappa.high


def games(answer):
    return list(judge_games(StubJudge(answer), pair_battles(PAIRS), form="pairwise"))


def test_judges_whose_agreement_is_known():
    right = judge_agreement(games(lambda a, b: "[[A]]" if len(a) > len(b) else "[[B]]"), PAIRS)
    wrong = judge_agreement(games(lambda a, b: "[[B]]" if len(a) > len(b) else "[[A]]"), PAIRS)
    place = judge_agreement(games(lambda a, b: "[[A]]"), PAIRS)
    silent = judge_agreement(games(lambda a, b: longer(a, b)), PAIRS)  # verdicts of another form
    assert (right.accuracy.value, right.kappa.value, right.judgements) == (100.0, 1.0, 24)
    assert (wrong.accuracy.value, wrong.accuracy_of_read.value) == (0.0, 0.0)
    assert wrong.kappa.value < 0
    assert (place.accuracy.value, place.kappa.value) == (50.0, 0.0)
    assert (silent.unparsed, silent.accuracy.value) == (24, 0.0)
    assert math.isnan(silent.accuracy_of_read.value)
    assert math.isnan(silent.kappa.value)


def test_games_and_labels_must_be_of_the_same_pairs():
    some = games(lambda a, b: "[[A]]")
    with pytest.raises(UserError, match="a game of 'f:1', which has no label"):
        judge_agreement(some, PAIRS[1:])
    with pytest.raises(UserError, match="1 of 12 labelled pairs were not judged, 'f:1' among them"):
        judge_agreement([g for g in some if g.prompt_id != "f:1"], PAIRS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": 3}, r"rows\.jsonl:2: field 'label' is 3; 1 or 2 is needed"),
        ({"label": "1"}, r":2: field 'label' is '1'"),
        ({"label": True}, r":2: field 'label' is True"),
        ({"label": None}, r":2: field 'label' is None"),
        ({"input": ""}, r":2: field 'input' is ''"),
        ({"output_2": None}, r":2: field 'output_2' is missing"),
    ],
)
def test_bad_rows_of_llmbar_are_named(tmp_path, changes, said):
    row = {"input": "?", "output_1": "a", "output_2": "", "label": 2}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, **changes}) + "\n")
    with pytest.raises(UserError, match=said):
        load_llmbar(file)
    file.write_text(json.dumps(row) + "\n")
    assert load_llmbar(file) == [LabelledPair(id="rows:1", prompt="?", first="a", second="", labels=(2,))]


@pytest.mark.real_data
def test_a_judge_that_likes_length_is_fooled_by_the_adversarial_pairs():
    """LLMBar: its adversarial pairs were made so that the worse answer looks better; the natural ones were not."""
    folder = Path(os.environ["AYA_DATA"]) / "eval" / "llmbar"
    found = {}
    for name, rows in (
        ("natural", 80),
        ("adv_neighbor", 106),
        ("adv_gptinst", 72),
        ("adv_gptout", 38),
        ("adv_manual", 37),
    ):
        pairs = load_llmbar(folder / f"{name}.jsonl")
        assert len(pairs) == rows
        judged = list(judge_games(StubJudge(longer), pair_battles(pairs)))
        found[name] = judge_agreement(judged, pairs)
        assert found[name].judgements == 2 * rows
        by_hand = [(len(p.first) > len(p.second)) if p.label == 1 else (len(p.first) < len(p.second)) for p in pairs]
        assert found[name].accuracy.value == pytest.approx(100 * np.mean(by_hand))
    assert found["adv_neighbor"].accuracy.high < 50.0
    assert found["adv_gptinst"].kappa.high < 0.0


def several(labels, subject="law", language="de", number=0):
    return LabelledPair(
        id=f"f:{number}",
        prompt="?",
        first="long answer",
        second="short",
        labels=labels,
        language=language,
        subject=subject,
    )


def test_what_most_people_say_is_right_and_where_they_are_divided_nothing_is():
    given = [
        several(labels, number=n) for n, labels in enumerate([(1, 1, 2), (2, 2), (1, 2), (1, None, 2), (None, 1)] * 3)
    ]
    assert [pair.label for pair in given[:5]] == [1, 2, None, None, 1]
    judged = list(judge_games(StubJudge(longer), pair_battles(given)))  # says that the first is better
    found = judge_agreement(judged, given)
    assert found.judgements == 2 * 9
    assert found.accuracy.value == pytest.approx(100 * 2 / 3)


def test_raters_and_a_judge_by_subject():
    """Alpha of two people who agree on law and are each other's opposite on medicine, with judges that are planted."""
    law = [several((1 + n % 2,) * 2, number=n) for n in range(20)]
    medicine = [several((1 + n % 2, 2 - n % 2), "medicine", number=100 + n) for n in range(20)]
    given = law + medicine
    truth = {pair.id: pair.labels[0] for pair in given}

    def games(label):
        return [
            Game(prompt_id=pair.id, language="de", order=order, verdict=verdict)
            for pair in given
            for order in (1, 2)
            for verdict in ["A>B" if (label(pair) == 1) == (order == 2) else "B>A"]
        ]

    perfect, inverted = (
        raters(games(lambda pair, turn=turn: turn(truth[pair.id])), given) for turn in (int, lambda n: 3 - n)
    )
    assert perfect["subject law"]["people"].value == perfect["subject law"]["with_judge"].value == 1.0
    assert perfect["subject medicine"]["people"].value == pytest.approx(1 - 39 / 20)  # D_o 1, D_e 20 / 39
    assert inverted["subject law"]["with_judge"].value == pytest.approx(
        1 - (2 / 3) / (30 / 59)
    )  # of 60 labels, 30 each
    assert perfect["all"]["undecided"] == 20
    always_a = [
        Game(prompt_id=pair.id, language="de", order=order, verdict="A>B") for pair in given for order in (1, 2)
    ]
    place = raters(always_a, given)  # says the one and the other: a tie, a label of its own
    assert place["subject law"]["with_judge"].value == pytest.approx(
        1 - (2 / 3) / (2400 / 3540)
    )  # 20 of each of 3 labels
    silent = raters([Game(prompt_id=pair.id, language="de", order=1, verdict=None) for pair in given], given)
    assert silent["all"]["with_judge"] == silent["all"]["people"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [1, 3]}, "field 'labels' is 3; 1 or 2 is needed"),
        ({"labels": []}, r"field 'labels' is \[\]; a list"),
        ({"labels": [None]}, r"field 'labels' is \[None\]"),
        ({"labels": 1}, "field 'labels' is 1; a list"),
    ],
)
def test_bad_labels_of_several_people_are_named(tmp_path, changes, said):
    file = tmp_path / "rows.jsonl"
    row = {"input": "?", "output_1": "a", "output_2": "b", "labels": [1, None, 2], "subject": "law", "language": "de"}
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | changes) + "\n")
    with pytest.raises(UserError, match=rf"rows\.jsonl:2: {said}"):
        load_llmbar(file)
    file.write_text(json.dumps(row) + "\n")
    (pair,) = load_llmbar(file)
    assert (pair.labels, pair.subject, pair.language) == ((1, None, 2), "law", "de")
