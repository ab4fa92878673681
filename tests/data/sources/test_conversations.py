"""Conversations of every known layout, and what is no conversation to learn from."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.sources import ConversationSource, FileSource
from aya_jax.data.sources.conversations import conversation
from aya_jax.data.sources.messages import find_problem, from_hh

ASKED = [{"role": "user", "content": "Where is Lima?"}, {"role": "assistant", "content": "In Peru."}]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": ASKED},
        {"messages": [turn | {"name": "x"} for turn in ASKED], "id": 3},
        {"conversations": [{"from": "human", "value": "Where is Lima?"}, {"from": "gpt", "value": "In Peru."}]},
        {"inputs": "Where is Lima?", "targets": "In Peru.", "language": "English"},
        {"inputs": b"Where is Lima?", "targets": b"In Peru."},
        {"instruction": "Where is Lima?", "context": "", "response": "In Peru.", "category": "open_qa"},
        {"instruction": "Where is Lima?", "response": "In Peru."},
        {"instruction": "Where is Lima?", "input": " ", "output": "In Peru."},
        {"question": "Where is Lima?", "answer": "In Peru."},
        {"prompt": "Where is Lima?", "response": "In Peru.", "lang": "en"},
        {"prompt": "Where is Lima?", "completion": "In Peru."},
        {"chosen": "\n\nHuman: Where is Lima?\n\nAssistant: In Peru.", "rejected": "..."},
    ],
)
def test_a_question_and_its_answer_in_every_layout(fields):
    found = conversation(fields)
    assert found == ASKED
    assert find_problem(found) is None


def test_an_instruction_with_its_context_is_one_turn():
    found = conversation({"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"})
    assert found[0] == {"role": "user", "content": "Translate.\n\nGuten Tag"}


def test_turns_name_the_fields_of_another_layout():
    turns = (("system", "rules"), ("user", "ask"), ("assistant", "say"))
    found = conversation({"rules": "Be brief.", "ask": "Hm?", "say": "Yes."}, turns)
    assert [turn["role"] for turn in found] == ["system", "user", "assistant"]
    assert "field 'ask' is missing" in conversation({"rules": "Be brief.", "say": "Yes."}, turns)


_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(str.strip).filter(bool)
_HH_TEXT = _TEXT.filter(lambda text: "\n\nHuman:" not in text and "\n\nAssistant:" not in text)


@settings(deadline=None)
@given(st.lists(_HH_TEXT, min_size=1, max_size=6))
def test_one_text_is_cut_into_the_turns_that_it_was_made_of(contents):
    markers = ("\n\nHuman: ", "\n\nAssistant: ")
    text = "".join(markers[number % 2] + content for number, content in enumerate(contents))
    found = from_hh(text)
    assert [turn["content"] for turn in found] == contents
    assert [turn["role"] for turn in found] == [("user", "assistant")[number % 2] for number in range(len(contents))]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": "only"}, r"no conversation \(fields: text\).*name others in turns"),
        ({"messages": []}, "'messages' is no list of turns"),
        ({"messages": "hello"}, "'messages' is no list of turns"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] has no 'role' and 'content'"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, r"messages\[0\].role is 'narrator'; known are system"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content is int, not a string"),
        ({"messages": ASKED[:1]}, "does not end with a turn of the assistant"),
        ({"messages": [*ASKED, *ASKED[:1]]}, "does not end with a turn of the assistant"),
        ({"messages": ASKED[1:]}, "turn 1 is the assistant's, where the user's was expected"),
        ({"messages": [*ASKED, ASKED[1]]}, "turn 3 is the assistant's"),
        ({"messages": [*ASKED, {"role": "system", "content": "x"}]}, "turn 3 is the system's"),
        ({"inputs": "a", "targets": " \n"}, "message 2, the assistant's, is empty"),
        ({"inputs": "", "targets": "b"}, "message 1, the user's, is empty"),
        ({"inputs": None, "targets": "b"}, "field 'inputs' is NoneType, not a string"),
        ({"inputs": "a", "targets": "b\ud83d"}, "message 2 has half a surrogate pair at character 1"),
        ({"inputs": b"a\xff", "targets": b"b"}, "message 1 has half a surrogate pair"),
    ],
)
def test_what_cannot_be_learnt_from_is_named_with_its_line_or_counted(fields, problem, monkeypatch, caplog):
    class Records:
        description, digest = "records", staticmethod(lambda: "0")

        def records(self, shard, num_shards):
            from aya_jax.data.sources import Record

            yield Record("f:1", "", "f.jsonl:1", {"messages": ASKED})
            yield Record("f:2", "", "f.jsonl:2", fields)

    with pytest.raises(UserError, match=rf"^f\.jsonl:2: .*{problem}"):
        list(ConversationSource(Records()).records(0, 1))
    with caplog.at_level(logging.WARNING):
        kept = list(ConversationSource(Records(), on_bad_record="skip").records(0, 1))
    assert [json.loads(record.text) for record in kept] == [{"messages": ASKED}]
    assert "records: bad records left out: 1; the first: f.jsonl:2: " in caplog.text


def test_records_of_a_file_with_one_language_taken_out(tmp_path):
    rows = [{"prompt": f"{lang}?", "response": "ok", "lang": lang} for lang in ("ar", "de", "ar")]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = FileSource((str(tmp_path / "all.jsonl"),), text_field=None)
    source = ConversationSource(files, where=(("lang", "ar"),))
    found = [json.loads(record.text)["messages"][0]["content"] for record in source.records(0, 1)]
    assert found == ["ar?", "ar?"]
    assert len({source.digest(), ConversationSource(files).digest(), files.digest()}) == 3
    with pytest.raises(UserError, match=r"all\.jsonl:1: no field 'language' .*did you mean where='lang'"):
        list(ConversationSource(files, where=(("language", "ar"),)).records(0, 1))
