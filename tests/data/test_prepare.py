"""Preparation from text to stores: what is written, that it is written the same every time, and what is refused."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from aya_jax.config import UserError
from aya_jax.data import prepare, store, vocabulary
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from tests.data import small_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus.write(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    specials = ["<PAD>", "<BOS_TOKEN>", "<EOS_TOKEN>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(small_corpus.TEXTS["de"], trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def settings(directory: Path, corpus: Path, **changes) -> PrepareConfig:
    values = {"store_dir": str(directory), "data_dir": str(corpus), "vocabulary": "bytes", "num_shards": 2}
    return PrepareConfig(**{**values, "tasks": ("text_*", "code_*"), **changes})


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """The stores that everything else must equal."""
    directory = tmp_path_factory.mktemp("prepared")
    prepare.prepare(settings(directory, corpus))
    return directory


def stored_texts(directory: Path, task: str, split: str) -> list[str]:
    tokens = store.TokenStore.open(str(directory / task / split))
    documents = tokens.read_documents(np.arange(tokens.num_documents))
    bos, eos = tokens.manifest.vocabulary.bos_id, tokens.manifest.vocabulary.eos_id
    assert all(document[0] == bos and document[-1] == eos for document in documents)
    return [vocabulary.load("bytes").decode(document[1:-1].tolist()) for document in documents]


@pytest.mark.parametrize(
    ("task", "texts"),
    [
        ("text_de", small_corpus.TEXTS["de"]),
        ("text_ja", small_corpus.TEXTS["ja"]),
        ("code_web", small_corpus.CODE["web_code"]),
    ],
)
def test_the_stores_hold_every_document_once(prepared, task, texts):
    train, validation = (stored_texts(prepared, task, split) for split in ("train", "validation"))
    assert sorted(train + validation) == sorted(texts)
    assert texts[0] in validation


def test_tokens_are_those_of_the_tokenizers_library(corpus, tokenizer_file, tmp_path):
    prepare.prepare(settings(tmp_path, corpus, vocabulary=str(tokenizer_file), tasks=("text_de",)))
    peer = Tokenizer.from_file(str(tokenizer_file))
    expected = [[1, *peer.encode(text).ids, 2] for text in small_corpus.TEXTS["de"]]
    documents = [
        document.tolist() for split in ("train", "validation") for document in _documents(f"{tmp_path}/text_de/{split}")
    ]
    assert sorted(documents) == sorted(expected)


def _documents(directory: str) -> list[np.ndarray]:
    tokens = store.TokenStore.open(directory)
    return tokens.read_documents(np.arange(tokens.num_documents))


def test_the_manifest_says_what_the_store_is(prepared):
    for split in ("train", "validation"):
        manifest = store.TokenStore.open(f"{prepared}/text_ja/{split}").manifest
        texts = stored_texts(prepared, "text_ja", split)
        assert (manifest.task, manifest.split, manifest.language, manifest.domain) == ("text_ja", split, "ja", "text")
        assert manifest.documents == len(texts)
        assert manifest.bytes == sum(len(text.encode()) for text in texts)
        assert manifest.tokens == manifest.bytes + 2 * len(texts)
        assert manifest.vocabulary.digest == vocabulary.load("bytes").digest
        assert len(manifest.source.digest) == 64
        assert "corpus/ja" in manifest.source.description
        assert len(manifest.shards) == 2


def test_the_vocabulary_lies_beside_the_stores(corpus, tokenizer_file, tmp_path):
    prepare.prepare(settings(tmp_path, corpus, vocabulary=str(tokenizer_file), tasks=("text_ja",)))
    opened = store.TokenStore.open(f"{tmp_path}/text_ja/train")
    copy = Path(opened.directory) / opened.manifest.vocabulary.spec
    assert copy.read_bytes() == tokenizer_file.read_bytes()
    assert copy.resolve() == (tmp_path / "vocabulary" / "tokenizer.json").resolve()
    assert vocabulary.load(str(copy)).digest == opened.manifest.vocabulary.digest


def test_two_runs_write_the_same_bytes_with_any_number_of_workers(prepared, corpus, tmp_path):
    prepare.prepare(settings(tmp_path, corpus, num_workers=2))
    assert small_corpus.tree_digests(tmp_path) == small_corpus.tree_digests(prepared)


def test_beam_writes_the_same_bytes(prepared, corpus, tmp_path):
    pytest.importorskip("apache_beam")
    prepare.prepare(settings(tmp_path, corpus, runner="beam"))
    assert small_corpus.tree_digests(tmp_path) == small_corpus.tree_digests(prepared)


def test_doing_it_twice_changes_nothing(prepared, corpus):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("shard-*/**/*")}
    prepare.prepare(settings(prepared, corpus))
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("shard-*/**/*")} == before


def test_what_is_missing_or_damaged_is_made_again(prepared, corpus, tmp_path):
    directory = tmp_path / "stores"
    shutil.copytree(prepared, directory)
    (directory / "text_de" / "train" / "manifest.json").unlink()
    shutil.rmtree(directory / "text_ja" / "train" / "shard-00001")
    chunk = directory / "code_web" / "train" / "shard-00000" / "tokens" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\x00")
    leftover = directory / "text_ja" / "train" / "shard-00001.partial"
    leftover.mkdir()
    (leftover / "half").write_text("written")
    prepare.prepare(settings(directory, corpus))
    assert small_corpus.tree_digests(directory) == small_corpus.tree_digests(prepared)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"num_shards": 3}, "num_shards"),
        ({"validation_permille": 99}, "validation_permille"),
        ({"validation_permille": 20, "validation_fold": 1}, "validation_fold"),
    ],
)
def test_other_settings_are_refused_by_name(prepared, corpus, changes, field):
    with pytest.raises(UserError, match=f"text_de/train: prepared with other settings: {field} was"):
        prepare.prepare(settings(prepared, corpus, **changes))


def test_another_vocabulary_or_source_is_refused(prepared, corpus, tokenizer_file, tmp_path):
    before = small_corpus.tree_digests(prepared)
    with pytest.raises(UserError, match="vocabulary was"):
        prepare.prepare(settings(prepared, corpus, vocabulary=str(tokenizer_file)))
    changed = tmp_path / "corpus"
    shutil.copytree(corpus, changed)
    small_corpus.write_jsonl(changed / "corpus" / "ja.jsonl", ["別の文書です。", "もう一つ。"])
    with pytest.raises(UserError, match="text_ja/train: prepared with other settings: source was"):
        prepare.prepare(settings(prepared, changed))
    assert small_corpus.tree_digests(prepared) == before


def test_a_corpus_that_moved_is_the_same_corpus(prepared, corpus, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(corpus, moved)
    before = shards_in(prepared)
    prepare.prepare(settings(prepared, moved))
    assert shards_in(prepared) == before


def shards_in(stores):
    """The content and the time of writing of every file of every shard: nothing was written again."""
    files = sorted(path for path in Path(stores).rglob("shard-*/**/*") if path.is_file())
    assert files
    return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"en\.jsonl.*the file is empty"),
        (b'{"text": "ok"}\n{"text": "cut', r"en\.jsonl:2.*broken JSON"),
        (b'{"text": "ok"}\n{"text": "\xff"}\n', r"en\.jsonl:2.*invalid UTF-8"),
        (b'{"body": "x"}\n', r"en\.jsonl:1.*no field 'text'"),
        (b'{"text": "  "}\n', r"task text_en has no train documents: \S*corpus/en\S* \([^;]*\)$"),
        (b'{"text": "alone"}\n', r"task text_en has no train documents: .*held out for validation"),
    ],
)
def test_bad_input_is_named(tmp_path, content, message):
    path = tmp_path / "data" / "corpus" / "en.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare.prepare(settings(tmp_path / "stores", tmp_path / "data", tasks=("text_en",), num_shards=1))
    assert not list((tmp_path / "stores").rglob("manifest.json"))


@pytest.mark.parametrize("changes", [{"num_workers": 2}, {"runner": "beam"}])
def test_a_workers_error_comes_through(tmp_path, changes):
    small_corpus.write_jsonl(tmp_path / "corpus" / "de.jsonl", ["eins", "zwei", "drei"])
    path = small_corpus.write_jsonl(tmp_path / "corpus" / "en.jsonl", ["one", "two"])
    path.write_text(path.read_text() + '{"text": "cut')
    with pytest.raises(UserError, match=r"^\S*en\.jsonl:3: broken JSON"):
        prepare.prepare(settings(tmp_path / "stores", tmp_path, tasks=("text_*",), num_shards=1, **changes))


def test_a_task_that_the_corpus_lacks_is_named(corpus, tmp_path):
    with pytest.raises(UserError, match="no task matches 'text_hi'"):
        prepare.prepare(settings(tmp_path, corpus, tasks=("text_hi",)))


def test_tasks_described_in_gin_are_prepared(corpus, tmp_path):
    files = tmp_path / "more.jsonl"
    small_corpus.write_jsonl(files, [f"rad {i}" for i in range(9)])
    extra = TaskConfig(name="text_sv", language="sv", files=(str(files),))
    manifests = prepare.prepare(settings(tmp_path / "stores", corpus, tasks=(), extra_tasks=(extra,)))
    assert [manifest.task for manifest in manifests] == ["text_sv", "text_sv"]
    assert sum(manifest.documents for manifest in manifests) == 9
    assert manifests[0].language == "sv"


def test_a_users_ids_and_weights_are_stored_as_they_are(corpus, tmp_path, monkeypatch):
    """The module registers the task; a pool's workers import it by name."""
    (tmp_path / "user_tasks.py").write_text(_USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = settings(tmp_path / "stores", corpus, tasks=("user_ids", "text_ja"), num_workers=2)
    manifest = prepare.prepare(config, modules=("user_tasks",))[0]
    assert manifest.loss_weights
    assert (manifest.vocabulary.size, manifest.vocabulary.eos_id, manifest.vocabulary.pad_id) == (50, 7, 0)
    assert (manifest.language, manifest.domain) == ("und", "other")
    found = {}
    for split in ("train", "validation"):
        tokens = store.TokenStore.open(f"{tmp_path}/stores/user_ids/{split}")
        begins, ends = tokens.document_ranges(np.arange(tokens.num_documents))
        for ids, weights in zip(
            tokens.read_ranges("tokens", begins, ends), tokens.read_ranges("loss_weights", begins, ends), strict=True
        ):
            found[ids[0]] = (ids.tolist(), weights.tolist())
    assert found == {i: ([i] * (i + 1) + [7], [0.5] * (i + 1) + [1.0]) for i in range(20)}


_USER_MODULE = """
import seqio
import tensorflow as tf


def examples(split, shuffle_files, seed=None):
    def one(i):
        return {
            "targets": tf.concat([tf.fill([i + 1], i), [7]], 0),
            "targets_loss_weights": tf.concat([tf.fill([i + 1], 0.5), [1.0]], 0),
        }

    return tf.data.Dataset.range(20).map(lambda i: one(tf.cast(i, tf.int32)))


features = {"targets": seqio.Feature(seqio.PassThroughVocabulary(50, eos_id=7), add_eos=False)}
seqio.TaskRegistry.add("user_ids", seqio.FunctionDataSource(examples, splits=["train"]), features, preprocessors=[])
"""


# Killed, and run again ------------------------------------------------------------------------------------------------

_KILLED = """
import sys
from aya_jax.data import prepare
from aya_jax.data.prepare_config import PrepareConfig

if __name__ == "__main__":
    prepare.prepare(PrepareConfig(
        store_dir=sys.argv[1], data_dir=sys.argv[2], vocabulary="bytes", tasks=("text_*",), num_shards=12, num_workers=2
    ))
"""


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_equals_undisturbed(tmp_path):
    corpus = tmp_path / "corpus"
    for language in ("de", "fr"):
        texts = [f"{language} {i} " + "Wort und noch ein Wort " * 40 for i in range(4000)]
        small_corpus.write_jsonl(corpus / "corpus" / f"{language}.jsonl.gz", texts)
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)

    def start(directory: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, str(script), str(directory), str(corpus)])

    killed_early = 0
    for _ in range(3):  # each time a little further on
        process = start(tmp_path / "killed")
        done = _finished(tmp_path / "killed")
        deadline = time.monotonic() + 120
        while _finished(tmp_path / "killed") < done + 2:
            assert time.monotonic() < deadline
            if process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        killed_early += process.wait() == -signal.SIGKILL
        time.sleep(0.5)  # orphaned workers notice within this time
    assert killed_early >= 1
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "undisturbed").wait() == 0
    assert small_corpus.tree_digests(tmp_path / "killed") == small_corpus.tree_digests(tmp_path / "undisturbed")


def _finished(directory: Path) -> int:
    return len(list(directory.glob("*/*/shard-?????/shard.json")))


# On demand ------------------------------------------------------------------------------------------------------------


def data_config(directory: Path, **changes) -> DataConfig:
    values = {"store_dir": str(directory), "sequence_length": 8, "global_batch": 2, "vocabulary": "bytes"}
    return DataConfig(**{**values, **changes})


def test_ensure_prepares_what_is_missing(prepared, corpus, tmp_path):
    config = data_config(tmp_path, data_dir=str(corpus), mixture=MixtureConfig(rates={"text_*": 1.0, "code_web": 0.5}))
    assert prepare.missing_tasks(config) == ("text_de", "text_ja", "code_web")
    prepare.ensure(config)
    assert prepare.missing_tasks(config) == ()
    assert stored_texts(tmp_path, "text_de", "train") == _in_file_order(stored_texts(prepared, "text_de", "train"))
    before = small_corpus.tree_digests(tmp_path)
    prepare.ensure(config)
    assert small_corpus.tree_digests(tmp_path) == before


def _in_file_order(texts: list[str]) -> list[str]:
    return sorted(texts, key=small_corpus.TEXTS["de"].index)


@pytest.mark.slow
def test_ensure_gives_the_command_where_there_is_too_much(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SMALL_BYTES", 100)
    config = data_config(tmp_path / "a store", data_dir=str(corpus), mixture=MixtureConfig(rates="text_de"))
    with pytest.raises(UserError) as raised:
        prepare.ensure(config)
    command = str(raised.value).splitlines()[-1]
    done = subprocess.run(command.strip(), shell=True, check=False, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr
    assert store.names(str(tmp_path / "a store")) == ("text_de",)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_ensure_without_a_corpus_gives_the_command(tmp_path):
    config = data_config(tmp_path, vocabulary=None, mixture=MixtureConfig(rates="text_de"))
    with pytest.raises(UserError, match=r"no token store of text_de[\s\S]*aya prepare .*DATA_DIR"):
        prepare.ensure(config)


def test_estimate_is_the_order_of_the_text(corpus, tmp_path):
    config = settings(tmp_path, corpus)
    true = sum(len(t.encode()) for texts in (*small_corpus.TEXTS.values(), *small_corpus.CODE.values()) for t in texts)
    assert true / 5 < prepare.estimate(config) < true * 5


def test_gin_imports_are_what_workers_import():
    text = "import user.tasks\nfrom more import names\n\nPrepareConfig.data_dir = 'import x'\n"
    assert prepare.imported_modules(text) == ("user.tasks", "more")


@pytest.mark.real_data
def test_real_text_comes_back_from_the_store(tmp_path):
    corpus = Path(os.environ["AYA_DATA"])
    prepare.prepare(settings(tmp_path, corpus, tasks=("text_hi", "code_markup"), num_shards=3))
    found = sorted(t for split in ("train", "validation") for t in stored_texts(tmp_path, "text_hi", split))
    with gzip.open(corpus / "corpus" / "hi.jsonl.gz") as lines:
        assert found == sorted(json.loads(line)["text"] for line in lines)
