"""Rows out of files, and what is wrong with them."""

from __future__ import annotations

import json

import pytest

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.selection.config import RowsConfig
from aya_jax.selection.rows import read


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_texts_and_conversations_are_prompt_and_answer(tmp_path):
    chat = [("user", "Wie geht es?"), ("assistant", "Gut."), ("user", "Warum?"), ("assistant", "Darum.")]
    turns = [{"role": role, "content": content} for role, content in chat]
    file = write(tmp_path / "a.jsonl", [{"messages": turns, "lang": "de", "from": "ours", "key": 7}])
    [row], _ = read(RowsConfig(files=(file,), fields=("messages",), id_field="key", source_field="from"))
    assert (row.id, row.language, row.source, row.answer) == ("7", "de", "ours", "Darum.")
    assert [message.role for message in row.messages] == ["user", "assistant", "user"]
    assert row.text == "Wie geht es?\nGut.\nWarum?\nDarum."

    file = write(
        tmp_path / "b.jsonl",
        [{"instruction": "Add.", "input": "1 2", "output": "3"}, {"instruction": "Sing.", "input": "", "output": "La"}],
    )
    rows, _ = read(RowsConfig(files=(file,), fields=("instruction", "input", "output")))
    assert rows[0].messages == (Message("user", "Add.\n1 2"),)
    assert rows[0].answer == "3"
    assert rows[1].messages == (Message("user", "Sing."),)
    assert (rows[0].id, rows[0].language, rows[0].source) == ("b.jsonl:1", "und", "b.jsonl")


def test_what_they_are_known_by_changes_with_their_texts(tmp_path):
    config = RowsConfig(files=(str(tmp_path / "*.jsonl"),))
    write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b"}])
    first = read(config)[1]
    assert read(config)[1] == first
    write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "c"}])
    assert read(config)[1] != first


@pytest.mark.parametrize(
    ("row", "config", "message"),
    [
        ({"prompt": "a"}, {}, r"a.jsonl:2: no field 'response' .*RowsConfig.fields"),
        ({"prompt": 3, "response": "b"}, {}, r"a.jsonl:2: field 'prompt' is 3; a text or a list of turns"),
        ({"prompt": " ", "response": ""}, {}, r"a.jsonl:2: the fields prompt, response say nothing"),
        ({"prompt": [{"role": "user"}], "response": "b"}, {}, r"a.jsonl:2: prompt\[0\] has no 'role' and 'content'"),
        (
            {"prompt": "a", "response": "b", "id": None},
            {"id_field": "id"},
            r"a.jsonl:2: field 'id' is None; RowsConfig.id_field",
        ),
        (
            {"prompt": "a", "response": "b", "id": "x"},
            {"id_field": "id"},
            r"a.jsonl:2: the id 'x' is that of .*a.jsonl:1 too",
        ),
    ],
    ids=["missing", "number", "empty", "turns", "no id", "twice"],
)
def test_bad_rows_are_named_by_file_line_and_field(tmp_path, row, config, message):
    file = write(tmp_path / "a.jsonl", [{"prompt": "a", "response": "b", "id": "x"}, row])
    with pytest.raises(UserError, match=message):
        read(RowsConfig(files=(file,), **config))


def test_an_empty_file_is_refused(tmp_path):
    file = write(tmp_path / "a.jsonl", [])
    with pytest.raises(UserError, match=r"a\.jsonl: the file is empty"):
        read(RowsConfig(files=(file,)))
