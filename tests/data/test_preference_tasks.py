"""Pairs of answers prepared as tasks: what is stored, how rows hold them, and what becomes of long ones."""

from __future__ import annotations

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.data import store
from aya_jax.data.batches import BatchLoader, ordered_batches
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.data.prepare_config import TaskConfig
from tests.training import tuning

ROWS = [
    {
        "prompt": f"What is {n}? " * (1 + n % 3),
        "chosen": "Good! " * (n % 5) + str(n),
        "rejected": "Bad. " * (n % 7),
        "margin": n,
    }
    | ({"rejected": "No."} if n % 7 == 0 else {})
    for n in range(60)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    tuning.write_tokenizer(folder / "tokenizer")
    tuning.prepare_tasks(folder, tuning.task(folder, "pairs", "preference", ROWS), shards=2)
    return folder


def data(folder, length=256, long_documents="truncate"):
    return DataConfig(
        store_dir=str(folder / "stores"),
        mixture=MixtureConfig(rates={"pairs": 1.0}),
        sequence_length=length,
        global_batch=4,
        packing="documents",
        long_documents=long_documents,
    )


def opened(folder, split="train"):
    return store.TokenStore.open(store.store_path(str(folder / "stores"), "pairs", split))


def documents(found):
    """(ids, weights) of every document of a store."""
    begins, ends = found.document_ranges(np.arange(found.num_documents))
    return list(
        zip(
            *(map(np.ndarray.tolist, found.read_ranges(name, begins, ends)) for name in ("tokens", "loss_weights")),
            strict=True,
        )
    )


def expected(folder):
    """margin → (chosen, rejected), each as (ids, weights)."""
    chat = ChatTokenizer.open(str(folder / "tokenizer"))
    pairs = {}
    for row in ROWS:
        sides = [
            chat.encode_training([Message("user", row["prompt"]), Message("assistant", row[side])])
            for side in ("chosen", "rejected")
        ]
        pairs[float(row["margin"])] = [(list(ids), list(weights)) for ids, weights in sides]
    return pairs


def test_a_store_holds_both_answers_of_each_pair_side_by_side(folder):
    wanted, seen = expected(folder), []
    for split in ("train", "validation"):
        found = opened(folder, split)
        assert (found.manifest.group, found.manifest.loss_weights) == (2, True)
        margins, pairs = found.values(), documents(found)
        for at in range(0, len(pairs), 2):
            assert margins[at] == margins[at + 1]
            assert pairs[at : at + 2] == wanted[float(margins[at])]
            seen.append(float(margins[at]))
    assert sorted(seen) == sorted(wanted)


def segments(batch):
    """The rows' segments: tokens, and whether each is the last of a pair."""
    for row in range(len(batch["tokens"])):
        ids = batch["segment_ids"][row]
        yield [batch["tokens"][row][ids == segment].tolist() for segment in range(1, ids.max() + 1)], row


def test_a_row_holds_whole_pairs_chosen_first_with_their_numbers(folder):
    found = opened(folder)
    loader = BatchLoader(data(folder), steps=4)
    numbers = np.arange(found.num_documents, dtype=np.float32) + 0.5
    loader.attach("numbers", {"pairs": numbers})
    stored = [ids for ids, _ in documents(found)]
    seen = 0
    for step in range(3):
        batch = loader.batch(step)
        for row_of, row in segments(batch):
            assert len(row_of) % 2 == 0
            for at in range(0, len(row_of), 2):
                first = stored.index(row_of[at])
                assert first % 2 == 0
                assert row_of[at + 1] == stored[first + 1]
                for side in (0, 1):
                    inside = batch["segment_ids"][row] == at + side + 1
                    given = batch["numbers"][row][inside]
                    assert given[0] == numbers[first + side]
                    assert not given[1:].any()
                seen += 1
    assert seen > 20
    assert "numbers" in loader.identity()


def test_a_pass_in_order_has_every_pair_once(folder):
    found = opened(folder)
    stored = [ids for ids, _ in documents(found)]
    given = [
        tokens for batch in ordered_batches(found, data(folder)) for row_of, _ in segments(batch) for tokens in row_of
    ]
    assert sorted(given) == sorted(stored)


def test_long_answers_are_cut_to_half_a_row_and_pairs_without_a_lesson_left_out(folder, capsys):
    from rich.console import Console

    length = 48
    pairs = list(zip(*[iter(documents(opened(folder)))] * 2, strict=True))
    cut = [[(ids[:24], weights[:24]) for ids, weights in pair] for pair in pairs]
    kept = [pair for pair in cut if all(any(weights[1:]) for _, weights in pair)]
    assert 0 < len(kept) < len(pairs)
    loader = BatchLoader(data(folder, length), steps=1)
    given = [
        tokens
        for batch in ordered_batches(opened(folder), data(folder, length))
        for row_of, _ in segments(batch)
        for tokens in row_of
    ]
    assert sorted(given) == sorted(ids for pair in kept for ids, _ in pair)
    loader.print_table(Console(width=250))
    said = capsys.readouterr().out
    long = sum(len(ids) > 24 for pair in pairs for ids, _ in pair)
    assert f"pairs: {long} of {2 * len(pairs)} documents are longer than half a row" in said
    assert f"{2 * (len(pairs) - len(kept))} left out, for nothing to learn is left of them" in said


def test_dropping_takes_both_answers_of_a_pair(folder):
    pairs = list(zip(*[iter(documents(opened(folder)))] * 2, strict=True))
    kept = [pair for pair in pairs if all(len(ids) <= 24 for ids, _ in pair)]
    assert 0 < len(kept) < len(pairs)
    given = [
        tokens
        for batch in ordered_batches(opened(folder), data(folder, 48, "drop"))
        for row_of, _ in segments(batch)
        for tokens in row_of
    ]
    assert sorted(given) == sorted(ids for pair in kept for ids, _ in pair)


def test_pairs_are_not_split(folder):
    with pytest.raises(UserError, match="pairs of answers cannot be split over rows"):
        BatchLoader(data(folder, long_documents="split"), steps=1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"turns": (("user", "a"), ("chosen", "b"))}, "turns"),
        ({"turns": (("user", "a"), ("chosen", "b"), ("rejected", "c"), ("rejected", "d"))}, "turns"),
        ({"form": "chat", "turns": (("user", "a"), ("chosen", "b"))}, "turns"),
        ({"format": "text"}, "format"),
    ],
)
def test_contradictions_in_a_description(changes, problem):
    described = TaskConfig(**{"name": "t", "language": "en", "form": "preference", "files": ("f",)} | changes)
    assert [found.field for found in described.validate()] == [problem]
