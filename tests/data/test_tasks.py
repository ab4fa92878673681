"""Names, tags, look-ups, and reading documents through the registered SeqIO tasks."""

import hashlib
import os
import subprocess
import sys

import pytest

from aya_jax.config import UserError
from aya_jax.data import tasks
from aya_jax.data.held_out import HeldOutShare
from aya_jax.data.prepare_config import TaskConfig
from tests.data import small_corpus


def documents(name: str, split: str, data_dir, **options) -> list[str]:
    return [document["text"] for document in tasks.documents(name, split, str(data_dir), **options)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus.write(tmp_path_factory.mktemp("corpus"))


def test_there_are_23_languages_and_4_kinds_of_code():
    domains = [tags.domain for tags in tasks.TASK_TAGS.values()]
    assert domains.count("text") == 23
    assert {domain for domain in domains if domain != "text"} == {"web_code", "markup", "quality_code", "code_adjacent"}
    assert tasks.TASK_TAGS["text_vi"] == tasks.Tags("vi", "text")
    assert tasks.TASK_TAGS["code_markup"] == tasks.Tags("code", "markup")


def test_names_come_without_tensorflow():
    code = (
        "import sys; from aya_jax.data import tasks; tasks.match(('text_*',), tasks.available('sample'));"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'seqio', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_match_keeps_the_patterns_order_and_each_name_once():
    names = ("text_de", "text_el", "code_web")
    assert tasks.match(("code_*", "text_e?", "text_*"), names) == ("code_web", "text_el", "text_de")


def test_match_names_what_was_perhaps_meant():
    with pytest.raises(UserError, match="no task matches 'text_dee'; did you mean text_de"):
        tasks.match(("text_dee",), tasks.TASK_TAGS)


def test_available_is_what_has_files(corpus):
    assert tasks.available(str(corpus)) == ("text_de", "text_ja", "code_web")


def test_the_sample_has_every_task():
    assert tasks.available("sample") == tuple(tasks.TASK_TAGS)


def test_documents_carry_their_tags(corpus):
    document = next(tasks.documents("text_ja", "train", str(corpus)))
    assert document.keys() == {"text", "language", "domain"}
    assert (document["language"], document["domain"]) == ("ja", "text")


def test_splits_are_by_content_and_together_are_everything(corpus):
    """Against the rule applied to the list of texts: BLAKE2b mod 1000 below the share, or the first document."""
    everything = small_corpus.TEXTS["de"]
    held_out = [
        text
        for i, text in enumerate(everything)
        if i == 0 or int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") % 1000 < 200
    ]
    assert documents("text_de", "validation", corpus, share=HeldOutShare(200)) == held_out
    assert documents("text_de", "train", corpus, share=HeldOutShare(200)) == [
        t for t in everything if t not in held_out
    ]
    assert 3 < len(held_out) < 30


def test_folds_hold_every_document_out_once(corpus):
    everything = small_corpus.TEXTS["de"]
    folds = [documents("text_de", "validation", corpus, share=HeldOutShare(200, fold)) for fold in range(5)]
    assert sorted(text for fold in folds for text in fold) == sorted(everything)
    assert all(3 < len(fold) < 40 for fold in folds)
    for fold, held_out in enumerate(folds):
        kept = documents("text_de", "train", corpus, share=HeldOutShare(200, fold))
        assert kept == [text for text in everything if text not in held_out]


@pytest.mark.parametrize("num_shards", [2, 3, 7])
@pytest.mark.parametrize("name", ["text_de", "code_web"])
def test_shards_partition_a_split(corpus, name, num_shards):
    for split in ("train", "validation"):
        parts = [documents(name, split, corpus, shard=i, num_shards=num_shards) for i in range(num_shards)]
        assert sorted(text for part in parts for text in part) == sorted(documents(name, split, corpus))


def test_a_text_that_occurs_twice_is_on_one_side(tmp_path):
    small_corpus.write_jsonl(tmp_path / "corpus" / "en.jsonl", [f"text {i % 25}" for i in range(100)])
    train, validation = (
        set(documents("text_en", split, tmp_path, share=HeldOutShare(300))) for split in ("train", "validation")
    )
    assert not train & validation
    assert len(train | validation) == 25
    assert "text 0" in validation  # the first document, and all its copies


def test_blank_documents_are_left_out(tmp_path):
    small_corpus.write_jsonl(tmp_path / "corpus" / "en.jsonl", ["", " \n", "one", "two"])
    assert documents("text_en", "validation", tmp_path, share=HeldOutShare(1)) == ["one"]
    assert documents("text_en", "train", tmp_path, share=HeldOutShare(1)) == ["two"]


def test_another_data_directory_replaces_the_task(tmp_path, corpus):
    assert "Satz" in documents("text_de", "train", corpus)[0]
    small_corpus.write_jsonl(tmp_path / "corpus" / "de.jsonl", ["eins", "zwei", "drei"])
    assert set(documents("text_de", "train", tmp_path)) <= {"zwei", "drei"}
    assert "Satz" in documents("text_de", "train", corpus)[0]


def test_registered_tasks_are_seqio_tasks(corpus):
    from aya_jax.data.seqio_source import seqio

    assert tasks.register(str(corpus)) == tasks.register(str(corpus)) == ("text_de", "text_ja", "code_web")
    for split in ("train", "validation"):
        for shard in range(3):
            # Our own reading goes round TensorFlow; the dataset that SeqIO users get must hold the same.
            info = seqio.ShardInfo(shard, 3)
            dataset = seqio.get_mixture_or_task("text_de").get_dataset(split=split, shuffle=False, shard_info=info)
            found = [example["text"].numpy().decode() for example in dataset]
            assert found == documents("text_de", split, corpus, shard=shard, num_shards=3)


def test_a_task_described_in_gin(tmp_path):
    small_corpus.write_jsonl(tmp_path / "train.jsonl", ["a", "b"])
    small_corpus.write_jsonl(tmp_path / "held_out.jsonl", ["c"])
    config = TaskConfig(
        name="text_sv", language="sv", files=(f"{tmp_path}/train.jsonl",), validation_files=(f"{tmp_path}/held_*",)
    )
    found = list(tasks.documents("text_sv", "train", "sample", extra=(config,)))
    assert found == [{"text": text, "language": "sv", "domain": "text"} for text in "ab"]
    assert documents("text_sv", "validation", "sample", extra=(config,)) == ["c"]


def test_a_users_seqio_task_is_read_as_it_is(tmp_path):
    from aya_jax.data.seqio_source import seqio, tf

    lines = [f"line {i}" for i in range(50)]

    def upper(dataset):
        return dataset.map(lambda example: {"targets": tf.strings.upper(example["targets"])})

    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({"targets": lines}),
        splits=["train"],
    )
    features = {"targets": seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, rank=0)}
    seqio.TaskRegistry.add("test_tasks_upper", source, features, preprocessors=[upper])
    try:
        train = documents("test_tasks_upper", "train", "sample", share=HeldOutShare(200))
        validation = documents("test_tasks_upper", "validation", "sample", share=HeldOutShare(200))
        assert sorted(train + validation) == sorted(line.upper() for line in lines)
        assert "LINE 0" in validation
        parts = [
            documents("test_tasks_upper", "train", "sample", share=HeldOutShare(200), shard=i, num_shards=3)
            for i in range(3)
        ]
        assert sorted(text for part in parts for text in part) == sorted(train)
    finally:
        seqio.TaskRegistry.remove("test_tasks_upper")


def test_a_broken_line_is_named(tmp_path):
    path = small_corpus.write_jsonl(tmp_path / "corpus" / "en.jsonl", ["fine"] * 3)
    path.write_text(path.read_text() + '{"text": "cut')
    with pytest.raises(UserError, match=r"^\S*en\.jsonl:4: broken JSON"):
        documents("text_en", "train", tmp_path, share=HeldOutShare(1))


def test_a_field_that_is_missing_is_named(tmp_path):
    path = tmp_path / "corpus" / "en.jsonl"
    path.parent.mkdir()
    path.write_text('{"content": "x"}\n')
    with pytest.raises(UserError, match="no field 'text'"):
        documents("text_en", "train", tmp_path)


def test_an_unknown_task_is_named_with_near_ones():
    with pytest.raises(UserError, match="there is no task 'text_dd'; did you mean text_"):
        documents("text_dd", "train", "sample")


@pytest.mark.real_data
def test_every_real_task_has_both_splits():
    aya_data = os.environ["AYA_DATA"]
    for name in tasks.available(aya_data):
        assert documents(name, "validation", aya_data)
        assert next(tasks.documents(name, "train", aya_data))
