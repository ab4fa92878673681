"""Batches: pure in their number, the same for any number of processes, complete, and clear about what is wrong."""

import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data import packing, store
from aya_jax.data.batches import BatchLoader, validation_batches
from aya_jax.data.config import DataConfig, MixtureConfig
from tests.data.stores import VOCABULARY, ByteVocabulary, document, random_documents, write_store

GOLDEN = pathlib.Path(__file__).parent / "golden"
TASKS = {"code_web": ("code", "web_code"), "text_de": ("de", "text"), "text_en": ("en", "text")}


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
    """Three tasks; code_web has loss weights."""
    directory = str(tmp_path_factory.mktemp("stores"))
    for number, (task, (language, domain)) in enumerate(TASKS.items()):
        for split in ("train", "validation"):
            weighted = task == "code_web"
            shards = [
                random_documents(10 * number + s + 100 * (split == "train"), 60, 90, weighted=weighted)
                for s in range(1 + number)
            ]
            path = store.store_path(directory, task, split)
            write_store(path, shards, task=task, split=split, language=language, domain=domain)
    return directory


def config(store_dir, **changes):
    values = {
        "store_dir": store_dir,
        "mixture": MixtureConfig(rates={"text_*": 0.75, "code_web": 0.25}),
        "sequence_length": 32,
        "global_batch": 12,
        "seed": 5,
    }
    return DataConfig(**values | changes)


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


PACKINGS = pytest.mark.parametrize("kind", ["windows", "documents"])


@PACKINGS
def test_a_batch_has_the_contract_s_fields(store_dir, kind):
    loader = BatchLoader(config(store_dir, packing=kind), steps=3)
    batch = loader.batch(0)
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        name: ((12, 32), "float32" if name == "loss_weights" else "int32")
        for name in ("tokens", "targets", "loss_weights", "segment_ids", "positions", "task_ids")
    }
    assert loader.task_names == tuple(TASKS)
    assert loader.task_tags == tuple(TASKS.values())
    assert loader.vocabulary == VOCABULARY.info()
    inside = (batch["segment_ids"][:, 1:] == batch["segment_ids"][:, :-1]) & (batch["segment_ids"][:, 1:] > 0)
    np.testing.assert_array_equal(batch["targets"][:, :-1][inside], batch["tokens"][:, 1:][inside])
    assert not batch["loss_weights"][batch["tokens"] == VOCABULARY.eos_id].any()
    assert (batch["loss_weights"][batch["segment_ids"] == 0] == 0).all()
    assert (batch["tokens"][batch["segment_ids"] == 0] == VOCABULARY.pad_id).all()


@PACKINGS
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 12])
def test_processes_together_have_the_whole_batch(store_dir, kind, count):
    whole = BatchLoader(config(store_dir, packing=kind), steps=9)
    parts = [
        BatchLoader(config(store_dir, packing=kind), steps=9, process_index=p, process_count=count)
        for p in range(count)
    ]
    for i in (0, 7):
        batches = [part.batch(i) for part in parts]
        assert_equal({name: np.concatenate([b[name] for b in batches]) for name in batches[0]}, whole.batch(i))


@PACKINGS
def test_a_batch_depends_on_its_number_alone(store_dir, kind):
    first, second = (BatchLoader(config(store_dir, packing=kind), steps=20) for _ in range(2))
    expected = [first.batch(i) for i in range(20)]
    for i in (19, 3, 3, 0, 11):
        assert_equal(second.batch(i), expected[i])
    with second.from_step(13) as stream:  # resuming
        streamed = list(stream)
    assert len(streamed) == 7
    for found, wanted in zip(streamed, expected[13:], strict=True):
        assert_equal(found, wanted)
    other = BatchLoader(config(store_dir, packing=kind, seed=6), steps=20).batch(0)
    assert not np.array_equal(other["tokens"], expected[0]["tokens"])


def test_an_epoch_reads_every_window_once(store_dir):
    """The text of one task over an epoch, laid end to end, is its store (but for the part of a window left over)."""
    loader = BatchLoader(config(store_dir, mixture=MixtureConfig(rates="text_en"), global_batch=1), steps=1)
    opened = loader.stores[0]
    tokens = opened.read_windows([0], opened.num_tokens)[0]
    rows, spare = divmod(opened.num_tokens - 1, 32)
    for epoch in (0, 1, 2):
        found = sorted(tuple(loader.batch(epoch * rows + i)["tokens"][0]) for i in range(rows))
        offsets = [
            offset
            for offset in range(spare + 1)
            if found == sorted(tuple(tokens[offset + 32 * k : offset + 32 * (k + 1)]) for k in range(rows))
        ]
        assert len(offsets) == 1


def test_an_epoch_of_documents_reads_every_token_once(store_dir):
    loader = BatchLoader(
        config(store_dir, mixture=MixtureConfig(rates="text_en"), global_batch=1, packing="documents"), steps=1
    )
    opened, source = loader.stores[0], loader._sources[0]
    seen = np.zeros(opened.num_tokens, int)
    for ordinal in range(source.count):
        for _, begin, size, *_ in source.pieces(ordinal):
            seen[begin : begin + size] += 1
    assert (seen == 1).all()
    text = [loader.batch(i) for i in range(source.count)]
    found = np.concatenate([b["tokens"][b["segment_ids"] > 0] for b in text])
    np.testing.assert_array_equal(np.bincount(found), np.bincount(opened.read_windows([0], opened.num_tokens)[0]))
    predicted = sum(b["loss_weights"].sum() for b in text)
    assert predicted == opened.num_tokens - opened.num_documents


@PACKINGS
def test_the_store_s_loss_weights_belong_to_the_targets(tmp_path, kind):
    """A document whose weights are its tokens / 128: wherever one is predicted, its own weight counts."""
    bodies = [np.random.default_rng(k).integers(1, 128, 20) for k in range(40)]
    documents = [document(body, weights=np.array([0, *body / 128, 1], np.float32)) for body in bodies]
    for split in ("train", "validation"):
        write_store(str(tmp_path / "text_en" / split), [documents], split=split)
    changed = config(str(tmp_path), mixture=MixtureConfig(rates="text_en"), packing=kind)
    batches = [BatchLoader(changed, steps=1).batch(0), *validation_batches(changed, "text_en")]
    for batch in batches:
        ends = (batch["tokens"] == VOCABULARY.eos_id) | (batch["segment_ids"] == 0)
        weights = np.where(batch["targets"] == VOCABULARY.eos_id, 1, batch["targets"] / 128)
        np.testing.assert_array_equal(batch["loss_weights"], np.where(ends, 0, weights).astype(np.float32))


def test_tasks_come_at_their_rates(store_dir):
    loader = BatchLoader(config(store_dir), steps=40)
    tasks = np.concatenate([loader.batch(i)["task_ids"][:, 0] for i in range(40)])
    assert (tasks == loader.task_names.index("code_web")).sum() == 120
    table = loader.table()
    assert [row.planned for row in table.tasks] == (np.bincount(tasks) * 32).tolist()
    assert [row.available for row in table.tasks] == [opened.num_tokens for opened in loader.stores]
    assert table.total.planned == 40 * 12 * 32
    assert table.tasks[0].share == 0.25
    assert {row.language: row.share for row in table.languages}["code"] == 0.25
    assert {row.domain: row.planned for row in table.domains} == {"web_code": 3840, "text": 11520}
    assert table.tasks[0].epochs == 3840 / loader.stores[0].num_tokens


def test_rates_change_with_the_schedule(store_dir):
    mixture = MixtureConfig(rates={"text_*": 1.0}, schedule=((2, {"code_web": 1.0}),))
    loader = BatchLoader(config(store_dir, mixture=mixture), steps=4)
    code = loader.task_names.index("code_web")
    assert [(loader.batch(i)["task_ids"] == code).mean() for i in range(4)] == [0, 0, 1, 1]


def test_the_identity_is_json_and_follows_what_decides_the_batches(store_dir):
    base = BatchLoader(config(store_dir), steps=4).identity()
    assert json.loads(json.dumps(base)) == base
    assert BatchLoader(config(store_dir, prefetch=9, read_threads=1), steps=99).identity() == base
    changes = {
        "seed": 6,
        "global_batch": 6,
        "sequence_length": 16,
        "packing": "documents",
        "mixture": MixtureConfig(rates={"text_*": 0.5, "code_web": 0.5}),
    }
    for name, value in changes.items():
        other = BatchLoader(config(store_dir, **{name: value}), steps=4).identity()
        assert {key for key in base if base[key] != other[key]} == {name}


@PACKINGS
def test_the_batches_are_pinned(store_dir, kind):
    """Golden file. A change here gives running runs other batches: raise ORDER_VERSION with it."""
    loader = BatchLoader(config(store_dir, packing=kind), steps=4)
    digest = hashlib.sha256()
    for i in (0, 1, 50):
        for name, array in sorted(loader.batch(i).items()):
            digest.update(name.encode() + array.astype(array.dtype.newbyteorder("<")).tobytes())
    golden = GOLDEN / f"batches_{kind}.txt"
    if not golden.exists():
        golden.write_text(digest.hexdigest() + "\n")
        pytest.fail(f"wrote {golden}: commit it")
    assert digest.hexdigest() == golden.read_text().strip()


# Held-out text


@PACKINGS
@pytest.mark.parametrize("count", [1, 3])
def test_validation_predicts_every_token_once(store_dir, kind, count):
    opened = store.TokenStore.open(store.store_path(store_dir, "text_de", "validation"))
    parts = [
        list(validation_batches(config(store_dir, packing=kind), "text_de", process_index=p, process_count=count))
        for p in range(count)
    ]
    assert len({len(part) for part in parts}) == 1
    batches = [{n: np.concatenate([b[n] for b in step]) for n in step[0]} for step in zip(*parts, strict=True)]
    assert all(batch["tokens"].shape == (12, 32) for batch in batches)
    targets = np.concatenate([b["targets"][b["loss_weights"] > 0] for b in batches])
    text = [d[1:] for d in opened.read_documents(np.arange(opened.num_documents))]
    if kind == "windows":
        np.testing.assert_array_equal(targets, np.concatenate(text))
    np.testing.assert_array_equal(np.bincount(targets), np.bincount(np.concatenate(text)))
    assert_equal(batches[0], next(validation_batches(config(store_dir, packing=kind), "text_de")))


def test_validation_can_be_cut_short(store_dir):
    batches = list(validation_batches(config(store_dir), "text_de", max_tokens=13 * 32 - 5))
    assert len(batches) == 2
    assert (batches[1]["segment_ids"] > 0).any(axis=1).tolist() == [True] + [False] * 11


def test_a_validation_store_shorter_than_a_row_is_padded(tmp_path):
    write_store(str(tmp_path / "text_en" / "validation"), [[document([1, 2, 3])]], split="validation")
    (batch,) = validation_batches(config(str(tmp_path), mixture=MixtureConfig(rates="text_en")), "text_en")
    assert batch["loss_weights"].sum() == 4
    assert batch["targets"][0, :4].tolist() == [1, 2, 3, VOCABULARY.eos_id]


# Streams


def test_leaving_a_stream_ends_its_threads(store_dir):
    before = threading.active_count()
    with BatchLoader(config(store_dir), steps=1000).from_step(0) as stream:
        next(stream)
        assert threading.active_count() > before
    for thread in threading.enumerate():
        if thread.name.startswith("grain-prefetch"):
            thread.join(5)
    assert threading.active_count() == before


def test_a_stream_past_the_end_is_empty(store_dir):
    with BatchLoader(config(store_dir), steps=3).from_step(3) as stream:
        assert list(stream) == []


def test_damage_found_while_reading_ahead_reaches_the_reader(tmp_path):
    for split in ("train", "validation"):
        write_store(str(tmp_path / "text_en" / split), [random_documents(0, 50, 90)], split=split)
    loader = BatchLoader(config(str(tmp_path), mixture=MixtureConfig(rates="text_en")), steps=5)
    (tmp_path / "text_en" / "train" / "shard-00000" / "tokens" / "c" / "0").unlink()
    with loader.from_step(0) as stream, pytest.raises(UserError, match="shard-00000/tokens"):
        next(stream)


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": 100_000}, "cannot fill a sequence of 100000.*lower DataConfig.sequence_length"),
        ({"mixture": MixtureConfig(rates={"text_en": 1.0, "text_d?x": 1.0})}, "did you mean text_de"),
        ({"mixture": MixtureConfig(rates="text_em")}, "no task 'text_em'; did you mean text_"),
    ],
)
def test_what_the_stores_cannot_give_is_named(store_dir, changes, message):
    with pytest.raises(UserError, match=message):
        BatchLoader(config(store_dir, **changes), steps=1)


def test_a_batch_that_processes_cannot_share_is_refused(store_dir):
    with pytest.raises(UserError, match="global_batch = 12 cannot be divided over 5 processes"):
        BatchLoader(config(store_dir), steps=1, process_count=5)


def test_a_missing_store_says_how_to_prepare_it(store_dir):
    with pytest.raises(UserError, match="aya prepare"):
        BatchLoader(config(store_dir, mixture=MixtureConfig(rates="text_fr")), steps=1)


def test_stores_of_two_tokenizers_are_refused(store_dir, tmp_path):
    path = str(tmp_path / "text_fr" / "train")
    other = write_store(path, [random_documents(0, 50, 90)], task="text_fr", vocabulary=VOCABULARY.info("another"))
    stores = {"text_fr": other} | {
        name: store.TokenStore.open(store.store_path(store_dir, name, "train")) for name in TASKS
    }
    with pytest.raises(UserError, match="different tokenizers"):
        BatchLoader(config(store_dir, mixture=MixtureConfig(rates="text_*")), stores, steps=1)


def test_documents_without_bos_are_divided_at_their_eos(tmp_path):
    vocabulary = dataclasses.replace(VOCABULARY, bos_id=None)
    assert isinstance(vocabulary, ByteVocabulary)
    opened = write_store(str(tmp_path), [random_documents(0, 50, 20, bos_id=None)], vocabulary=vocabulary.info())
    loader = BatchLoader(config("unused", mixture=MixtureConfig(rates="text_en")), {"text_en": opened}, steps=1)
    batch = loader.batch(0)
    ends = batch["tokens"] == vocabulary.eos_id
    np.testing.assert_array_equal(batch["loss_weights"] == 0, ends)
    assert set(batch) == {*packing.FIELDS, "task_ids"}


def test_other_processes_wait_for_the_first_to_prepare(store_dir, monkeypatch):
    monkeypatch.setattr("aya_jax.data.batches._WAIT_SECONDS", 0.0)
    waiting = config(store_dir, mixture=MixtureConfig(rates="text_fr"))
    with pytest.raises(UserError, match="process 0 has not prepared text_fr"):
        BatchLoader(waiting, steps=1, process_index=1, process_count=2)
    assert BatchLoader(config(store_dir), steps=1, process_index=1, process_count=2).batch(0)["tokens"].shape == (6, 32)


def test_reading_prepared_stores_needs_no_tensorflow(store_dir):
    code = f"""
import sys
from aya_jax.data.batches import BatchLoader
from aya_jax.data.config import DataConfig, MixtureConfig
config = DataConfig(
    store_dir={store_dir!r}, mixture=MixtureConfig(rates={{"text_*": 1.0}}), sequence_length=8, global_batch=2
)
BatchLoader(config, steps=1).batch(0)
print([name for name in ("tensorflow", "seqio", "apache_beam") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("policy", ["split", "truncate", "drop"])
def test_documents_longer_than_a_row(tmp_path, policy, capsys):
    """In one epoch each document is there whole or in parts, by its beginning, or not at all, and is counted."""
    documents = random_documents(3, 50, 90)
    for split in ("train", "validation"):
        path = store.store_path(str(tmp_path), "text_de", split)
        write_store(path, [documents], task="text_de", split=split, language="de")
    data = config(
        str(tmp_path), mixture=MixtureConfig(rates={"text_de": 1.0}), packing="documents", long_documents=policy
    )
    loader = BatchLoader(data, steps=4)
    source = loader._sources[0]
    found = []
    for batch in (loader.batch(step) for step in range(-(-source.count // 12))):
        for row in range(12):
            segments = batch["segment_ids"][row]
            found += [tuple(batch["tokens"][row][segments == s].tolist()) for s in range(1, segments.max() + 1)]
    tokens = [each.tokens.tolist() for each in documents]
    long = [each for each in tokens if len(each) > 32]
    assert len(long) > 10
    expected = {
        "split": [tuple(each[at : at + 32]) for each in tokens for at in range(0, len(each), 32)],
        "truncate": [tuple(each[:32]) for each in tokens],
        "drop": [tuple(each) for each in tokens if len(each) <= 32],
    }[policy]
    # Rows beyond the epoch are of the next.
    assert set(found) == set(expected)
    assert len(found) >= len(expected)
    kept = sum(map(len, expected))
    assert source.long == (len(long), sum(map(len, tokens)) - kept, 0)
    assert source.tokens_per_row == pytest.approx(kept / source.count)
    loader.print_table(Console(width=200))
    assert f"text_de: {len(long)} of 50 documents are longer than a row" in capsys.readouterr().out
    assert loader.identity().get("long_documents", "split") == policy
