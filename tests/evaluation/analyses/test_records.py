import pytest

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.records import ChoiceRecord, choice_number, choice_records

HARNESS = {
    "doc_id": 3,
    "doc": {"sample_id": "anatomy/test/3", "question": "?", "answer": "B", "subject": "anatomy"},
    "target": "1",
    "arguments": {},
    "resps": [[["-2.5", "False"]], [["-0.5", "True"]], [["-7", "False"]], [["-1e1", "False"]]],
    "filtered_resps": [["-2.5", "False"], ["-0.5", "True"], ["-7", "False"], ["-1e1", "False"]],
    "acc": 1.0,
}


def test_plain_row():
    [record] = choice_records(
        [{"id": 7, "language": "tr", "label": "c", "scores": [-1, -3, -0.5], "subject": "law", "correct": None}]
    )
    assert record == ChoiceRecord("7", "tr", True, 2, (-1.0, -3.0, -0.5), {"subject": "law"})


@pytest.mark.parametrize("left_out", ["", "filtered_resps", "acc"])
def test_harness_row(left_out):
    row = {name: value for name, value in HARNESS.items() if name != left_out}
    [record] = choice_records([row], language="tr")
    assert (record.id, record.language, record.correct, record.label) == ("anatomy/test/3", "tr", True, 1)
    assert record.scores == (-2.5, -0.5, -7.0, -10.0)
    assert record.metadata["subject"] == "anatomy"


def test_numbers_in_memory_read_as_strings_in_files():
    in_memory = HARNESS | {"filtered_resps": [(-2.5, False), (-0.5, True), (-7.0, False), (-10.0, False)], "target": 1}
    assert choice_records([in_memory], language="tr") == choice_records([HARNESS], language="tr")


def test_the_harness_says_what_counts():
    [record] = choice_records([HARNESS | {"acc": 0.0}], language="tr")
    assert not record.correct


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"language": "en", "correct": 1}, "f.jsonl:2: field 'id'"),
        ({"id": 1, "correct": 1}, "f.jsonl:2: field 'language'"),
        ({"id": 1, "language": "en"}, "f.jsonl:2: field 'correct'"),
        ({"id": 1, "language": "en", "correct": "yes"}, "f.jsonl:2: field 'correct' is 'yes'"),
        ({"id": 1, "language": "en", "label": "AB", "correct": 1}, "f.jsonl:2: field 'label' is 'AB'"),
        ({"id": 1, "language": "en", "label": 2, "scores": [-1, -2]}, "f.jsonl:2: the right choice is number 2"),
        ({"id": 1, "language": "en", "label": 1, "scores": [-1, "x"]}, "f.jsonl:2: field 'scores'"),
        ({"id": 1, "language": "en", "label": 1, "scores": [-1, float("nan")]}, "f.jsonl:2: field 'scores'"),
        (HARNESS | {"target": None}, "f.jsonl:2: field 'target'"),
        (HARNESS | {"doc": 3}, "f.jsonl:2: field 'doc'"),
    ],
)
def test_bad_rows_are_named(row, message):
    with pytest.raises(UserError, match=message):
        choice_records([{"id": 1, "language": "en", "correct": 1}, row], file="f.jsonl")


@pytest.mark.parametrize("value", [-1, True, "", "é", 1.0, None])
def test_no_choice(value):
    with pytest.raises(UserError, match="f:1: field 'answer'"):
        choice_number(value, "f:1", "answer")
