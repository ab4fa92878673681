"""Pairs of answers of every known layout, and what is no pair to learn from."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.sources import ConversationSource, FileSource
from aya_jax.data.sources.preferences import preference

PROMPT = [{"role": "user", "content": "Where is Lima?"}]
GOOD, BAD = [[{"role": "assistant", "content": text}] for text in ("In Peru.", "In Spain.")]
PAIR = {"prompt": PROMPT, "chosen": GOOD, "rejected": BAD}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain.", "lang": "en"},
        {"prompt": b"Where is Lima?", "chosen": b"In Peru.", "rejected": b"In Spain."},
        {"question": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain.", "system": ""},
        {"instruction": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain."},
        {"prompt": PROMPT, "chosen": GOOD, "rejected": BAD},
        {"prompt": "Where is Lima?", "chosen": PROMPT + GOOD, "rejected": PROMPT + BAD},
        {"chosen": PROMPT + GOOD, "rejected": PROMPT + BAD},
        {
            "chosen": "\n\nHuman: Where is Lima?\n\nAssistant: In Peru.",
            "rejected": "\n\nHuman: Where is Lima?\n\nAssistant: In Spain.",
        },
    ],
)
def test_one_pair_in_every_layout(fields):
    assert preference(fields) == PAIR


def test_a_pair_of_columns_with_other_names():
    turns = (("user", "ask"), ("user", "more"), ("chosen", "yes"), ("rejected", "no"))
    fields = {"ask": "Where is Lima?", "more": "One word.", "yes": "Peru", "no": "Spain"}
    found = preference(fields, turns)
    assert found["prompt"] == [{"role": "user", "content": "Where is Lima?\n\nOne word."}]
    assert (found["chosen"][0]["content"], found["rejected"][0]["content"]) == ("Peru", "Spain")
    assert preference({"ask": "a", "more": "b", "yes": "c"}, turns) == "field 'no' is missing, not a string"


def test_a_system_message_and_earlier_turns_belong_to_the_prompt():
    fields = {"system": "Be brief.", "question": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain."}
    assert preference(fields)["prompt"] == [SYSTEM, *PROMPT]
    before = [SYSTEM, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}, *PROMPT]
    found = preference({"chosen": before + GOOD, "rejected": before + BAD})
    assert (found["prompt"], found["chosen"], found["rejected"]) == (before, GOOD, BAD)


def test_answers_of_several_turns_end_where_they_end():
    more = [*BAD, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "No: in Peru."}]
    found = preference({"chosen": PROMPT + GOOD, "rejected": PROMPT + more})
    assert (found["prompt"], found["rejected"]) == (PROMPT, more)


@pytest.mark.parametrize(
    ("fields", "margin"),
    [
        ({"margin": 2}, 2.0),
        ({"score_chosen": 4.5, "score_rejected": 1}, 3.5),
        ({"chosen_score": 0.5, "rejected_score": 1}, -0.5),
    ],
)
def test_margins(fields, margin):
    assert preference({"prompt": "a", "chosen": "b", "rejected": "c"} | fields)["margin"] == margin


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rejected": "In Peru."}, "chosen and rejected are the same"),
        ({"rejected": " \n"}, "rejected: message 2, the assistant's, is empty"),
        ({"chosen": ""}, "chosen: message 2, the assistant's, is empty"),
        ({"prompt": "  "}, "chosen: message 1, the user's, is empty"),
        ({"chosen": None}, "field 'chosen' is NoneType, not a string"),
        ({"chosen": "\ud83d"}, "half a surrogate pair"),
        ({"chosen": GOOD}, "field 'rejected' is no list of turns"),
        (
            {"prompt": PROMPT, "chosen": PROMPT, "rejected": BAD},
            "chosen: turn 2 is the user's, where the assistant's was expected",
        ),
        ({"prompt": PROMPT + GOOD, "chosen": GOOD, "rejected": BAD}, "chosen: turn 3 is the assistant's"),
        ({"chosen": PROMPT + GOOD, "rejected": GOOD}, "do not begin with the same turn"),
        ({"chosen": PROMPT, "rejected": PROMPT + BAD}, "chosen adds nothing to the prompt"),
        ({"margin": "2"}, "field 'margin' is '2', not a finite number"),
        ({"margin": float("nan")}, "field 'margin' is nan, not a finite number"),
    ],
)
def test_what_is_no_pair(changes, problem):
    found = preference({"prompt": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain."} | changes)
    assert isinstance(found, str)
    assert problem in found


def test_missing_columns_are_named_with_those_there_are():
    assert "rejected missing (fields: prompt, chosen)" in preference({"prompt": "a", "chosen": "b"})
    assert "no prompt beside chosen and rejected" in preference({"ask": "a", "chosen": "b", "rejected": "c"})


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4), st.data())
def test_what_was_joined_is_split_again(texts, data):
    """However long the shared beginning: whole conversations give the prompt and the answers that made them."""
    texts = texts if len(texts) % 2 else texts[:-1] or ["a"]
    prompt = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(texts)]
    answers = data.draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=2, unique=True))
    chosen, rejected = [[{"role": "assistant", "content": text}] for text in answers]
    found = preference({"chosen": prompt + chosen, "rejected": prompt + rejected})
    assert found == {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_a_file_of_pairs(tmp_path, caplog):
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "Where is Lima?", "chosen": "In Peru.", "rejected": "In Spain.", "lang": "en"},
        {"prompt": "Wo liegt Lima?", "chosen": "In Peru.", "rejected": "In Peru.", "lang": "de"},
        {"prompt": "Wo liegt Lima?", "chosen": "In Peru.", "rejected": "In Rom.", "lang": "de"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def source(**more):
        return ConversationSource(FileSource((str(file),), None), "preference", **more)

    with pytest.raises(UserError, match=r"pairs\.jsonl:2: chosen and rejected are the same"):
        list(source().records(0, 1))
    with caplog.at_level(logging.WARNING):
        kept = list(source(on_bad_record="skip").records(0, 1))
    assert [json.loads(record.text)["prompt"][0]["content"] for record in kept] == ["Where is Lima?", "Wo liegt Lima?"]
    assert "bad records left out: 1" in caplog.text
    (english,) = source(where=(("lang", "en"),)).records(0, 1)
    assert json.loads(english.text) == PAIR
    assert source().digest() != ConversationSource(FileSource((str(file),), None)).digest()


@pytest.mark.real_data
def test_every_real_pair_is_read_or_named(caplog):
    folder = Path(os.environ["AYA_DATA"]) / "preference"
    solutions = FileSource((str(folder / "gsm8k_solutions.jsonl.gz"),), None)
    found = [json.loads(r.text) for r in ConversationSource(solutions, "preference").records(0, 1)]
    assert len(found) == 475
    dialogues = FileSource((str(folder / "hh_rlhf_harmless_base.jsonl.gz"),), None)
    with caplog.at_level(logging.WARNING):
        kept = list(ConversationSource(dialogues, "preference", on_bad_record="skip").records(0, 1))
    assert len(kept) == 985
    assert "bad records left out: 7" in caplog.text
