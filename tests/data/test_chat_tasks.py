"""Conversations prepared as tasks: what is stored, what a batch teaches, how full its rows are, and what is refused."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.data import prepare, store
from aya_jax.data.batches import BatchLoader
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from tools.make_golden_chat import GOLDEN

ROWS = [{"inputs": f"What is {n} and {n}?", "targets": f"{2 * n}, of course."} for n in range(40)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    for name, content in json.loads(GOLDEN.read_text(encoding="utf-8"))["files"].items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return file


def config(store_dir, files, tokenizer, *, name="sums", **task):
    described = TaskConfig(name=name, language="en", files=(str(files),), form="chat", **task)
    return PrepareConfig(
        store_dir=str(store_dir),
        data_dir="sample",
        vocabulary=str(tokenizer),
        tasks=(),
        extra_tasks=(described,),
        num_shards=2,
    )


@pytest.fixture(scope="module")
def prepared(rows, tokenizer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("stores")
    prepare.prepare(config(directory, rows, tokenizer))
    return directory


def data(store_dir, sequence_length):
    mixture = MixtureConfig(rates={"sums": 1.0})
    return DataConfig(
        store_dir=str(store_dir), mixture=mixture, sequence_length=sequence_length, global_batch=4, packing="documents"
    )


def stored(directory, split):
    opened = store.TokenStore.open(str(directory / "sums" / split))
    begins, ends = opened.document_ranges(np.arange(opened.num_documents))
    ids, weights = (opened.read_ranges(array, begins, ends) for array in ("tokens", "loss_weights"))
    assert opened.manifest.loss_weights
    return [(i.tolist(), w.tolist()) for i, w in zip(ids, weights, strict=True)]


def test_the_store_holds_each_conversation_with_what_is_learnt(prepared, tokenizer):
    chat = ChatTokenizer.open(str(tokenizer))
    expected = [
        chat.encode_training([Message("user", row["inputs"]), Message("assistant", row["targets"])]) for row in ROWS
    ]
    found = stored(prepared, "train") + stored(prepared, "validation")
    assert sorted(found) == sorted(([*ids], [*weights]) for ids, weights in expected)
    assert (prepared / "vocabulary" / "chat_template.jinja").read_bytes() == (
        tokenizer / "chat_template.jinja"
    ).read_bytes()


def test_a_batch_teaches_the_assistants_tokens_and_no_other(prepared, tokenizer):
    chat = ChatTokenizer.open(str(tokenizer))
    batch = BatchLoader(data(prepared, sequence_length=128), steps=1).batch(0)
    taught = 0
    for row in range(4):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            of_segment = batch["segment_ids"][row] == segment
            learnt = batch["targets"][row][of_segment & (batch["loss_weights"][row] > 0)]
            said = chat.decode(learnt)
            assert said in {example["targets"] for example in ROWS}
            assert learnt[-1] == chat.turn_end
            taught += 1
    assert taught > 8


def test_another_template_and_another_reading_are_refused_by_name(prepared, rows, tokenizer, tmp_path):
    other = tmp_path / "tokenizer"
    other.mkdir()
    for file in tokenizer.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "chat_template.jinja").write_text((tokenizer / "chat_template.jinja").read_text() + "{# other #}")
    with pytest.raises(UserError, match="prepared with other settings: chat_template was"):
        prepare.prepare(config(prepared, rows, other))
    with pytest.raises(UserError, match="prepared with other settings: source was"):
        prepare.prepare(config(prepared, rows, tokenizer, on_bad_record="skip"))


def test_what_cannot_be_prepared_is_named(rows, tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"no chat template; put the model's chat_template\.jinja beside"):
        prepare.prepare(config(tmp_path / "stores", rows, "bytes"))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[:5], {"inputs": "Hm?", "targets": ""}]))
    with pytest.raises(UserError, match=r"bad\.jsonl:6: message 2, the assistant's, is empty"):
        prepare.prepare(config(tmp_path / "stores2", bad, tokenizer))
    kept = prepare.prepare(config(tmp_path / "stores3", bad, tokenizer, on_bad_record="skip"))
    assert sum(manifest.documents for manifest in kept) == 5


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"form": "text", "turns": (("user", "a"),)}, "turns"),
        ({"form": "text", "where": (("a", "b"),)}, "where"),
        ({"form": "chat", "turns": (("narrator", "a"),)}, "turns"),
        ({"form": "chat", "format": "lines"}, "format"),
        ({"form": "chat", "language": ""}, "language"),
        ({"form": "chat", "languages": {"ar": "arb"}}, "language"),
    ],
)
def test_contradictions_in_a_description(changes, problem):
    described = TaskConfig(**{"name": "t", "language": "en", "files": ("f",)} | changes)
    assert [found.field for found in described.validate()] == [problem]


@pytest.mark.real_data
@pytest.mark.parametrize("language", ["ar", "zh"])
def test_real_instructions_of_one_language(tokenizer, tmp_path, language):
    file = Path(os.environ["AYA_DATA"]) / "instruct" / "templated_multilingual.jsonl.gz"
    with gzip.open(file) as lines:
        wanted = [row for row in map(json.loads, lines) if row["lang"] == language]
    made = prepare.prepare(config(tmp_path, file, tokenizer, where=(("lang", language),)))
    assert sum(manifest.documents for manifest in made) == len(wanted) > 50
    chat = ChatTokenizer.open(str(tokenizer))
    said = {
        chat.decode(id_ for id_, weight in zip(ids, weights, strict=True) if weight)
        for split in ("train", "validation")
        for ids, weights in stored(tmp_path, split)
    }
    assert said == {row["response"] for row in wanted}


@pytest.mark.real_data
def test_rows_of_real_instructions_are_full(tokenizer, tmp_path):
    """At 2,048 at least 95 % of a pass's positions hold tokens."""
    file = Path(os.environ["AYA_DATA"]) / "instruct" / "templated_multilingual.jsonl.gz"
    prepare.prepare(config(tmp_path, file, tokenizer))
    opened = store.TokenStore.open(str(tmp_path / "sums" / "train"))
    steps = opened.manifest.tokens // (4 * 2048)
    loader = BatchLoader(data(tmp_path, sequence_length=2048), steps=steps)
    filled = [np.mean(loader.batch(step)["segment_ids"] > 0) for step in range(steps)]
    assert np.mean(filled) >= 0.95


SPOKEN = [
    {
        "prompt": f"{n}?",
        "response": "so",
        "lang": ("arb", "deu", "zho")[n % 3],
        "harm_category": str([f"kind {n % 2}", "any"]),
    }
    for n in range(60)
]


def spoken(tmp_path, rows, **task):
    file = tmp_path / "spoken.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return TaskConfig(name="spoken", files=(str(file),), form="chat", language_field="lang", **task)


def test_a_file_of_several_languages_is_a_task_for_each(tokenizer, tmp_path):
    described = spoken(tmp_path, SPOKEN, languages={"ar": "arb", "zh": "zho", "de": "deu"})
    wanted = config(tmp_path / "stores", "unused", tokenizer)
    made = prepare.prepare(dataclasses.replace(wanted, extra_tasks=(described,)))
    assert [(each.task, each.language, each.split) for each in made][::2] == [
        ("spoken_ar", "ar", "train"),
        ("spoken_zh", "zh", "train"),
        ("spoken_de", "de", "train"),
    ]
    assert [sum(each.documents for each in made[k : k + 2]) for k in (0, 2, 4)] == [20, 20, 20]


def test_a_language_that_is_not_known_is_named_or_counted(tokenizer, tmp_path):
    rows = [*SPOKEN[:4], SPOKEN[4] | {"lang": "tlh"}, *SPOKEN[5:]]
    described = spoken(tmp_path, rows, languages={"ar": "arb", "zh": "zho", "de": "deu"})
    wanted = config(tmp_path / "stores", "unused", tokenizer)
    with pytest.raises(UserError, match=r"spoken\.jsonl:5: lang is 'tlh', and known are arb, zho, deu"):
        prepare.prepare(dataclasses.replace(wanted, extra_tasks=(described,)))
    skipping = dataclasses.replace(described, on_bad_record="skip")
    made = prepare.prepare(dataclasses.replace(wanted, store_dir=str(tmp_path / "more"), extra_tasks=(skipping,)))
    assert sum(each.documents for each in made) == 59


def test_records_are_chosen_by_what_their_lists_hold(tokenizer, tmp_path):
    """As in aya_redteaming: a list of categories written out as text."""
    where = (("harm_category", "kind 1"), ("lang", "arb"))
    described = spoken(tmp_path, SPOKEN, language="ar", where=where)
    made = prepare.prepare(
        dataclasses.replace(config(tmp_path / "stores", "unused", tokenizer), extra_tasks=(described,))
    )
    assert sum(each.documents for each in made) == sum(n % 2 == 1 and n % 3 == 0 for n in range(60))


def test_of_two_answers_the_content_draws_one(tokenizer, tmp_path):
    rows = [{"prompt": f"{n}?", "chosen": "good", "rejected": f"bad {n}"} for n in range(400)]
    described = spoken(tmp_path, rows, language="en", turns=(("user", "prompt"), ("assistant", "chosen|rejected")))
    documents = [json.loads(record.text)["messages"] for record in described.source("train").records(0, 1)]
    good = sum(messages[1]["content"] == "good" for messages in documents)
    assert 150 < good < 250  # six standard deviations around half
    assert documents == [json.loads(record.text)["messages"] for record in described.source("train").records(0, 1)]
