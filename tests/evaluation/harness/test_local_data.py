"""Rows from a folder, in the hub's schema; and what is said of rows that are not as their benchmark has them."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import lm_eval.api.task as harness
import pyarrow
import pyarrow.parquet
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.harness.local_data import MissingRows, find, read_hub, reading_from
from aya_jax.evaluation.harness.own_tasks import answer_scores, own_tasks

XCOPA = {
    "premise": "It rained.",
    "choice1": "It is wet.",
    "choice2": "It is dry.",
    "question": "effect",
    "label": 0,
    "idx": 5,
}
EXAM = {
    "id": "x",
    "question": {"stem": "Two and two?", "choices": [{"label": "A", "text": "3"}, {"label": "B", "text": "4"}]},
    "answerKey": "B",
}


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text, encoding="utf-8")


def test_the_general_layout_holds_any_dataset(tmp_path):
    write(tmp_path / "org/set/de/test.jsonl", [{"a": 1}, {"a": 2}])
    write(tmp_path / "org/set/de/train.jsonl.gz", [{"a": 3}])
    home = tmp_path / "org/set/default"
    home.mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"a": [4]}), home / "dev.parquet")
    assert find(tmp_path, "org/set", "de") == {"test": [{"a": 1}, {"a": 2}], "train": [{"a": 3}]}
    assert find(tmp_path, "org/set", None) == {"dev": [{"a": 4}]}
    assert find(tmp_path, "org/set", "fr") is None


def test_shards_are_one_split(tmp_path):
    home = tmp_path / "org/set/de"
    write(home / "test-00000-of-00002.jsonl", [{"a": 1}])
    write(home / "test-00001-of-00002.jsonl", [{"a": 2}])
    write(home / "train/0000.jsonl", [{"a": 3}])
    assert find(tmp_path, "org/set", "de") == {"test": [{"a": 1}, {"a": 2}], "train": [{"a": 3}]}
    assert find(tmp_path, "org/set", "de", ("train",)) == {"train": [{"a": 3}]}


def test_of_a_dataset_that_is_a_program_the_hub_s_own_copy_is_asked_for():
    asked = []
    library = SimpleNamespace(load_dataset=lambda **how: asked.append(how))
    read_hub("csebuetnlp/xlsum", "french", library=library)
    read_hub("org/set", "de", library=library, trust=False)
    assert asked == [
        {"path": "csebuetnlp/xlsum", "data_dir": "french", "revision": "refs/convert/parquet"},
        {"path": "org/set", "name": "de", "trust": False},
    ]


def test_the_harness_reads_the_folder_and_nothing_else_while_it_lasts(tmp_path):
    library = harness.datasets
    write(tmp_path / "org/set/default/test.jsonl", [{"a": 1}])
    with reading_from(str(tmp_path)):
        assert harness.datasets.load_dataset("org/set")["test"].to_list() == [{"a": 1}]
        assert harness.datasets.Dataset is library.Dataset
        with pytest.raises(
            MissingRows, match=r"dataset org/other \(de\): not in .*put a copy at .*org/other/de/<split>"
        ):
            harness.datasets.load_dataset("org/other", "de")
    assert harness.datasets is library


def test_published_layouts_take_the_hub_s_schema(tmp_path):
    write(tmp_path / "eval/xcopa/test.it.jsonl", [XCOPA])
    write(tmp_path / "eval/xcopa/val.it.jsonl", [XCOPA | {"idx": 6}])
    assert {split: rows[0]["idx"] for split, rows in find(tmp_path, "cambridgeltl/xcopa", "it").items()} == {
        "test": 5,
        "validation": 6,
    }
    home = tmp_path / "eval/mgsm"
    home.mkdir()
    (home / "mgsm_de.tsv").write_text('Wie viele "Äpfel"?\t1,018\nUnd jetzt?\t-3\n', encoding="utf-8")
    examples = [{"lang": "de", "question": "Frage: 5 + 6?", "answer": "Antwort: 5 + 6 = 11. Die Antwort ist 11."}]
    write(home / "exemplars.jsonl", [*examples, {"lang": "fr", "question": "Q", "answer": "1"}])
    found = find(tmp_path, "juletxara/mgsm", "de")
    assert [(row["question"], row["answer_number"], row["answer"]) for row in found["test"]] == [
        ('Wie viele "Äpfel"?', 1018, None),
        ("Und jetzt?", -3, None),
    ]
    assert [row["answer_number"] for row in found["train"]] == [11]
    answers = [{"answer_start": 3, "text": "A"}, {"answer_start": 9, "text": "a b"}]
    write(tmp_path / "eval/xquad/xquad.el.jsonl.gz", [{"id": "1", "context": "c", "question": "q", "answers": answers}])
    (row,) = find(tmp_path, "google/xquad", "xquad.el")["validation"]
    assert row["answers"] == {"text": ["A", "a b"], "answer_start": [3, 9]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, r"test\.it\.jsonl, line 2: 'label' is 2"),
        ({"label": None}, r"test\.it\.jsonl, line 2: 'label' is None"),
        ({"question": "why"}, "'question' 'why'"),
        ({"choice2": ""}, r"line 2: no 'choice2' \(1 of 2 rows lack a field"),
    ],
)
def test_a_row_that_is_not_as_it_should_be_is_named(tmp_path, change, message):
    write(tmp_path / "eval/xcopa/test.it.jsonl", [XCOPA, XCOPA | change])
    with pytest.raises(UserError, match=message):
        find(tmp_path, "cambridgeltl/xcopa", "it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answerKey": "E"}, r"test\.de\.jsonl, line 2: 'answerKey' is 'E' and the choices are labelled \['A', 'B'\]"),
        ({"answerKey": None}, "'answerKey' is None"),
        ({"question": {"stem": "", "choices": EXAM["question"]["choices"]}}, "a question has a text"),
        ({"question": {"stem": "?", "choices": EXAM["question"]["choices"][:1] * 2}}, "different labels"),
    ],
)
def test_an_examination_question_needs_its_answer_among_its_choices(tmp_path, change, message):
    write(tmp_path / "eval/exams/test.de.jsonl", [EXAM, EXAM | change])
    with pytest.raises(UserError, match=message):
        own_tasks(str(tmp_path))["exams_de"]()


def test_five_options_are_as_good_as_two(tmp_path):
    choices = [{"label": label, "text": label.lower()} for label in "ABCDE"]
    write(
        tmp_path / "eval/exams/test.de.jsonl",
        [EXAM, EXAM | {"question": {"stem": "?", "choices": choices}, "answerKey": "E"}],
    )
    task = harness.ConfigurableTask(config=own_tasks(str(tmp_path))["exams_de"]())
    docs = list(task.test_docs())
    assert [(task.doc_to_choice(doc), task.doc_to_target(doc)) for doc in docs] == [(["A", "B"], 1), (list("ABCDE"), 4)]
    assert task.doc_to_text(docs[0]) == "Two and two?\nA. 3\nB. 4\nAnswer:"


def test_an_unknown_language_is_named(tmp_path):
    write(tmp_path / "eval/sib200/test.xx.jsonl", [])
    with pytest.raises(UserError, match=r"test\.xx\.jsonl: no language 'xx' is known; known are ar, cs"):
        own_tasks(str(tmp_path))


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [
        ("the Denver Broncos!", ["Denver Broncos"], (1.0, 1.0)),
        ("Denver", ["Denver Broncos", "Carolina"], (0.0, 2 / 3)),
        ("a b c d", ["x", "b d e"], (0.0, 2 * 2 / (3 + 3))),  # "a" is an article
        ("", ["x"], (0.0, 0.0)),
        ("", [""], (1.0, 1.0)),
        ("Δύο!", ["δύο"], (1.0, 1.0)),
    ],
)
def test_answers_on_texts_by_hand(said, right, expected):
    found = answer_scores({"answers": {"text": right}}, [said])
    assert (found["exact_match"], found["f1"]) == pytest.approx(expected)
