"""Prompts of every layout, and what is wrong with bad files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.battles import make_battles
from aya_jax.evaluation.judging.load import load_prompts


def write(tmp_path, *rows, name="rows.jsonl"):
    file = tmp_path / name
    text = "".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"uid": "u", "category": "hard", "subcategory": "math", "prompt": "Q"}, ("u", "hard", "math", ("Q",), ())),
        ({"question_id": "q", "category": "c", "cluster": "k", "prompt": "Q"}, ("q", "c", "k", ("Q",), ())),
        ({"question_id": 82, "category": "writing", "turns": ["1", "2"]}, ("82", "writing", "", ("1", "2"), ())),
        ({"question_id": 8, "turns": ["1", "2"], "reference": ["a", "b"]}, ("8", "", "", ("1", "2"), ("a", "b"))),
        ({"id": 7, "source_id": 3, "inputs": "Q", "targets": "T", "script": "Arab"}, ("3", "", "", ("Q",), ("T",))),
        ({"id": 7, "inputs": "Q", "targets": "T"}, ("7", "", "", ("Q",), ("T",))),
    ],
)  # fmt: skip
def test_layouts(tmp_path, row, wanted):
    for name in ("rows.jsonl", "rows.jsonl.gz"):
        (found,) = load_prompts(write(tmp_path, row, name=name), language="ar")
        assert (found.id, found.category, found.cluster, found.turns, found.references) == wanted
        assert found.language == "ar"
        assert found.messages == (Message("user", found.turns[0]),)


def test_a_row_s_own_language_goes_before(tmp_path):
    rows = [
        {"id": 1, "inputs": "Q", "language": "arb"},
        {"id": 1, "inputs": "Q", "language": "eng"},
        {"id": 1, "inputs": "Q"},
    ]
    assert [p.language for p in load_prompts(write(tmp_path, *rows), language="x")] == ["arb", "eng", "x"]


def test_only_new_lines_end_rows(tmp_path):
    (found,) = load_prompts(write(tmp_path, '{"id": 1, "inputs": "a\u2028b\u0085c"}\n'), language="en")
    assert found.turns == ("a\u2028b\u0085c",)
    for name in ("rows.jsonl", "rows.jsonl.gz"):  # a carriage return is white space to JSON
        assert len(load_prompts(write(tmp_path, '{"id": 1,\r"inputs": "Q"}\r\n', name=name), language="en")) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            ["{}\n"],
            r"rows\.jsonl:1: field 'question_id' is missing \(nor 'uid', 'source_id', 'id'\); the row has no fields",
        ),
        (
            [{"id": 1, "inputs": "Q"}, {"id": 2, "text": "Q"}],
            r":2: field 'prompt' is missing \(nor 'inputs'\); the row has id, te",
        ),
        ([{"id": 1, "inputs": " "}], r":1: field 'inputs' is ' '; a text that is not empty"),
        ([{"id": 1.5, "inputs": "Q"}], r":1: field 'id' is 1\.5; a text or a whole number"),
        ([{"id": 1, "turns": []}], r":1: field 'turns' is \[\]; a list of texts"),
        ([{"id": 1, "turns": ["a", 2]}], r":1: field 'turns'"),
        ([{"id": 1, "inputs": "Q"}, {"id": "1", "inputs": "R"}], r":2: field 'id' is '1' again, for en as in line 1"),
        (["[1]\n"], r":1: list, and not a JSON object"),
        (["{\n"], r":1: no JSON"),
        ([], "no rows"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        load_prompts(write(tmp_path, *rows), language="en")


def test_no_language_and_no_file(tmp_path):
    with pytest.raises(UserError, match=r":1: field 'language' is missing"):
        load_prompts(write(tmp_path, {"id": 1, "inputs": "Q"}))
    with pytest.raises(UserError, match="cannot be read"):
        load_prompts(tmp_path / "absent.jsonl", language="en")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}' * 100)[:-5])
    with pytest.raises(UserError, match="cannot be read"):
        load_prompts(tmp_path / "cut.jsonl.gz", language="en")


def test_battles_pair_answers_by_language_and_id(tmp_path):
    rows = [{"id": 1, "inputs": "Q", "language": language} for language in ("ar", "en")]
    prompts = load_prompts(write(tmp_path, *rows))
    mine, theirs = ({("ar", "1"): f"{who} ar", ("en", "1"): f"{who} en"} for who in ("mine", "theirs"))
    found = make_battles(prompts, mine, theirs, model="m", baseline="b")
    assert [(b.language, b.model_answer, b.baseline_answer) for b in found] == [
        ("ar", "mine ar", "theirs ar"),
        ("en", "mine en", "theirs en"),
    ]
    assert (found[0].shown(1), found[0].shown(2)) == (("theirs ar", "mine ar"), ("mine ar", "theirs ar"))
    del theirs["en", "1"]
    with pytest.raises(UserError, match=r"b has no answer to 1 of 2 prompts, the first '1' \(en\)"):
        make_battles(prompts, mine, theirs, model="m", baseline="b")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("file", "rows", "categories", "turns"),
    [
        ("arena_hard/v0.1_question.jsonl", 200, {"arena-hard-v0.1"}, 1),
        ("arena_hard/v2.0_question.jsonl", 199, {"hard_prompt", "creative_writing"}, 1),
        ("mt_bench/question.jsonl", 64, {"math", "stem", "writing", "coding"}, 2),
    ],
)
def test_real_questions(file, rows, categories, turns):
    found = load_prompts(Path(os.environ["AYA_DATA"]) / "eval" / file, language="en")
    assert len(found) == rows
    assert categories <= {prompt.category for prompt in found}
    assert {len(prompt.turns) for prompt in found} == {turns}
    assert all(prompt.cluster for prompt in found) == ("arena" in file)
