"""Token stores: what is written is read back, byte for byte the same each time, and damage is named."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data import arrays, store
from aya_jax.data.store import Manifest, SourceInfo, TokenStore, VocabularyInfo
from tests.data.stores import VOCABULARY, random_documents, write_store

GOLDEN = pathlib.Path(__file__).parent / "golden"


def _concatenation(shards):
    return np.concatenate([document.tokens for shard in shards for document in shard])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("store") / "text_en" / "train")
    shards = [random_documents(seed, 40, 300, weighted=True) for seed in range(3)]
    write_store(directory, shards)
    return directory, shards


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_windows_are_slices_of_the_concatenation(written, data):
    directory, shards = written
    tokens = _concatenation(shards)
    length = data.draw(st.integers(1, len(tokens)))
    starts = data.draw(st.lists(st.integers(0, len(tokens) - length), max_size=8))
    windows = TokenStore.open(directory).read_windows(np.array(starts, np.int64), length)
    assert windows.dtype == np.int32
    assert windows.shape == (len(starts), length)
    for start, window in zip(starts, windows, strict=True):
        np.testing.assert_array_equal(window, tokens[start : start + length])


def test_documents_come_back_whole_with_their_weights(written):
    directory, shards = written
    documents = [document for shard in shards for document in shard]
    opened = TokenStore.open(directory)
    ids = np.array([0, 39, 40, 119, 77])
    for i, found in zip(ids, opened.read_documents(ids), strict=True):
        np.testing.assert_array_equal(found, documents[i].tokens)
    begins, ends = opened.document_ranges(ids)
    for i, found in zip(ids, opened.read_ranges("loss_weights", begins, ends), strict=True):
        np.testing.assert_array_equal(found, documents[i].loss_weights)
    lengths = np.array([len(document.tokens) for document in documents])
    np.testing.assert_array_equal(np.diff(opened.document_bounds(0, 120)), lengths)
    np.testing.assert_array_equal(np.diff(opened.document_bounds(35, 85)), lengths[35:85])
    assert opened.num_documents == 120
    assert opened.num_tokens == lengths.sum() == len(_concatenation(shards))
    np.testing.assert_array_equal(opened.token_bytes, VOCABULARY.token_bytes)


def test_a_store_spans_files_larger_than_one_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "OUTER_CHUNK", 1024)
    monkeypatch.setattr(arrays, "INNER_CHUNK", 128)
    shards = [random_documents(5, 50, 200), random_documents(6, 1, 5), random_documents(7, 30, 200)]
    write_store(str(tmp_path), shards)
    files = arrays.list_files(store.shard_path(str(tmp_path), 0))
    tokens = _concatenation(shards)
    assert len([name for name in files if name.startswith("tokens/c/")]) > 3
    np.testing.assert_array_equal(TokenStore.open(str(tmp_path)).read_windows([0], len(tokens))[0], tokens)


def test_the_layout_is_pinned(tmp_path):
    """Golden file: a change of the layout must raise FORMAT_VERSION (to rewrite it, delete it and run this)."""
    directory = tmp_path / "text_en" / "train"
    write_store(str(directory), [random_documents(0, 5, 30, weighted=True), random_documents(1, 3, 30, weighted=True)])
    found = {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    golden = GOLDEN / "store_layout.json"
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"wrote {golden}: look at it and commit it")
    assert found == json.loads(golden.read_text())


def test_a_bucket_is_the_same_code_path():
    directory = "memory://bucket/text_en/train"
    shards = [random_documents(0, 10, 50)]
    write_store(directory, shards)
    store.write_shard(directory, 0, shards[0], token_bytes=VOCABULARY.token_bytes)
    assert store.names("memory://bucket") == ("text_en",)
    opened = TokenStore.open(directory)
    np.testing.assert_array_equal(opened.read_windows([0], opened.num_tokens)[0], _concatenation(shards))


def _read_start_of(opened, array):
    if array == "offsets":
        return opened.document_ranges(np.array([0]))
    return opened.read_ranges(array, [0], [10])


@pytest.fixture
def damaged(tmp_path):
    directory = tmp_path / "text_en" / "train"
    write_store(str(directory), [random_documents(0, 50, 200, weighted=True)])
    return directory


@pytest.mark.parametrize("array", ["tokens", "loss_weights", "offsets"])
def test_a_flipped_bit_is_named(damaged, array):
    path = damaged / "shard-00000" / array / "c" / "0"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    opened = TokenStore.open(str(damaged))
    with pytest.raises(UserError, match=rf"shard-00000/{array}: corrupt.*aya prepare"):
        _read_start_of(opened, array)
    with pytest.raises(UserError, match=f"shard-00000/{array}/c/0: not as it was written"):
        store.verify_shard(str(damaged), 0)


@pytest.mark.parametrize("array", ["tokens", "loss_weights", "offsets"])
def test_a_missing_chunk_is_never_read_as_data(damaged, array):
    (damaged / "shard-00000" / array / "c" / "0").unlink()
    opened = TokenStore.open(str(damaged))
    with pytest.raises(UserError, match=rf"chunk file is missing under .*shard-00000/{array}/c.*aya prepare"):
        _read_start_of(opened, array)


def test_a_truncated_file_and_a_missing_array_are_named(damaged):
    path = damaged / "shard-00000" / "tokens" / "c" / "0"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="shard-00000/tokens: corrupt"):
        TokenStore.open(str(damaged)).read_windows([0], 10)
    (damaged / "shard-00000" / "tokens" / "zarr.json").unlink()
    with pytest.raises(UserError, match="shard-00000/tokens: missing"):
        TokenStore.open(str(damaged)).read_windows([0], 10)


def test_an_array_of_another_length_than_the_manifest_says_is_refused(damaged):
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["shards"][0]["tokens"] += 1
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="shard-00000/tokens: has shape"):
        TokenStore.open(str(damaged)).read_windows([0], 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no finished token store.*aya prepare"),
        ("{", "broken JSON"),
        ("[]", "expected a JSON object"),
        ('{"format_version": 99}', "format_version 99"),
        ('{"format_version": 1}', "not a store's manifest"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        TokenStore.open(str(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_windows_outside_the_store_are_refused(written):
    opened = TokenStore.open(written[0])
    for start in (-1, opened.num_tokens - 9):
        with pytest.raises(IndexError):
            opened.read_windows([start], 10)
    with pytest.raises(IndexError):
        opened.read_documents(np.array([opened.num_documents]))


def test_an_empty_store_opens(tmp_path):
    write_store(str(tmp_path), [[], []])
    opened = TokenStore.open(str(tmp_path))
    assert (opened.num_tokens, opened.num_documents) == (0, 0)


def test_the_manifest_round_trips_and_its_digest_follows_content_and_tokenizer():
    info = store.ShardInfo(documents=1, tokens=2, bytes=3, sha256="ab")
    vocabulary = VocabularyInfo(digest="v", size=9, pad_id=0, bos_id=None, eos_id=2, spec="bytes")
    manifest = Manifest(
        task="t", split="train", language="en", domain="text", vocabulary=vocabulary,
        source=SourceInfo(description="a file", digest="d"), shards=(info, info),
    )  # fmt: skip
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), "m") == manifest
    assert (manifest.documents, manifest.tokens, manifest.bytes) == (2, 4, 6)
    other_task = dataclasses.replace(manifest, task="u", language="de")
    other_tokens = dataclasses.replace(manifest, shards=(info,))
    other_vocabulary = dataclasses.replace(manifest, vocabulary=dataclasses.replace(vocabulary, digest="w"))
    assert other_task.digest == manifest.digest
    assert len({manifest.digest, other_tokens.digest, other_vocabulary.digest}) == 3
