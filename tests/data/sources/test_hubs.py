"""Datasets by name: a local Hugging Face dataset, read again from its cache alone, and a TFDS dataset made here."""

from __future__ import annotations

import dataclasses
import importlib.resources.abc
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.data.prepare_config import TaskConfig
from aya_jax.data.sources import HuggingFaceSource, TfdsSource

datasets = pytest.importorskip("datasets")

TRAIN = [f"document {n} ü" for n in range(11)]
HELD_OUT = ["held out"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HuggingFaceSource:
    """A dataset directory with two splits, its cache in a folder of its own, and the hub switched off."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    for name, documents in (("train", TRAIN), ("test", HELD_OUT)):
        lines = [json.dumps({"body": text, "n": n}) + "\n" for n, text in enumerate(documents)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return HuggingFaceSource(str(folder), split_map=(("train", "train"), ("validation", "test")), text_field="body")


def test_hugging_face_splits_and_shards(hub: HuggingFaceSource) -> None:
    records = list(hub.records(0, 1))
    assert [record.text for record in records] == TRAIN
    assert records[2].id == f"{hub.name}/train:3"
    assert records[2].fields == {"n": 2}
    for shard in range(4):
        assert [record.text for record in hub.records(shard, 4)] == TRAIN[shard::4]
    assert [record.id for record in hub.records(3, 4)] == [f"{hub.name}/train:{row}" for row in (4, 8)]
    held_out = dataclasses.replace(hub, split="validation")
    assert [[record.text for record in held_out.records(shard, 2)] for shard in range(2)] == [HELD_OUT, []]


@pytest.mark.parametrize("of_structs", [False, True])
def test_pairs_of_a_hugging_face_dataset(hub: HuggingFaceSource, of_structs: bool) -> None:
    """Lists of messages as the hub's preference sets have them, whichever way `datasets` gives them back."""
    asked = [{"role": "user", "content": "Where is Lima?"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("In Peru.", "In Spain.")]
    turns = [asked + answer for answer in answers]
    if of_structs:
        turns = [{key: [turn[key] for turn in side] for key in ("role", "content")} for side in turns]
    rows = [{"prompt": "Where is Lima?", "chosen": turns[0], "rejected": turns[1], "lang": "en"}] * 3
    folder = Path(hub.name).with_name("pairs")
    folder.mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    source = TaskConfig(
        name="pairs", language="en", form="preference", huggingface=str(folder), splits=(("train", "train"),)
    ).source("train")
    found = [json.loads(record.text) for record in source.records(0, 1)]
    assert found == [{"prompt": asked, "chosen": answers[0], "rejected": answers[1]}] * 3


def test_hugging_face_digest(hub: HuggingFaceSource) -> None:
    assert hub.digest() == dataclasses.replace(hub).digest()
    assert hub.digest() != dataclasses.replace(hub, split="validation").digest()


def test_hugging_face_mistakes_are_named(hub: HuggingFaceSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no field 'text' \(there are: body, n\)"):
        next(dataclasses.replace(hub, text_field="text").records(0, 1))
    with pytest.raises(UserError, match="field 'n' is int, not a string"):
        next(dataclasses.replace(hub, text_field="n").records(0, 1))
    with pytest.raises(UserError, match=r"cannot be loaded: Unknown split \"dev\""):
        next(dataclasses.replace(hub, split_map=(("train", "dev"),)).records(0, 1))
    with pytest.raises(UserError, match="split_map says nothing of 'validation'; it has: train"):
        next(dataclasses.replace(hub, split_map=(("train", "train"),), split="validation").records(0, 1))
    with pytest.raises(UserError, match=r"hf:nobody/nothing@latest.train.: cannot be loaded"):
        next(dataclasses.replace(hub, name="nobody/nothing").records(0, 1))


@pytest.fixture(scope="module")
def tfds_source(tmp_path_factory: pytest.TempPathFactory) -> TfdsSource:
    tfds = pytest.importorskip("tensorflow_datasets")

    class AyaTinyTexts(tfds.core.GeneratorBasedBuilder):
        """A dataset of a few texts."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"body": tfds.features.Text(), "n": tfds.features.Scalar(np.int32)})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._examples(TRAIN), "test": self._examples(HELD_OUT)}

        def _generate_examples(self):
            raise NotImplementedError("the splits are given above")

        def _examples(self, documents):
            for n, text in enumerate(documents):
                yield n, {"body": text, "n": n}

    data_dir = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        # When it builds a dataset (not when it reads one) TFDS uses the back-port, which it does not require.
        patch.setitem(sys.modules, "importlib_resources", importlib.resources)
        AyaTinyTexts(data_dir=str(data_dir)).download_and_prepare()
    split_map = (("train", "train"), ("validation", "test[:100%]"))
    return TfdsSource("aya_tiny_texts", split_map, text_field="body", data_dir=str(data_dir))


def test_tfds_splits_and_shards(tfds_source: TfdsSource) -> None:
    records = list(tfds_source.records(0, 1))
    assert sorted(record.text for record in records) == sorted(TRAIN)  # TFDS keeps its own order
    assert records[2].id == "aya_tiny_texts/1.0.0/train:3"
    for shard in range(3):
        assert list(tfds_source.records(shard, 3)) == records[shard::3]
    held_out = dataclasses.replace(tfds_source, split="validation")
    assert [record.text for record in held_out.records(0, 1)] == HELD_OUT
    assert tfds_source.digest() != held_out.digest()
    assert tfds_source.digest() == dataclasses.replace(tfds_source).digest()


def test_tfds_mistakes_are_named(tfds_source: TfdsSource, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no field 'text' \(there are: .*body"):
        next(dataclasses.replace(tfds_source, text_field="text").records(0, 1))
    with pytest.raises(UserError, match="no such split; there are: "):
        next(dataclasses.replace(tfds_source, split_map=(("train", "dev"),)).records(0, 1))
    with pytest.raises(UserError, match=r"not prepared here; run `tfds build aya_tiny_texts --data_dir="):
        next(dataclasses.replace(tfds_source, data_dir=str(tmp_path)).records(0, 1))
    with pytest.raises(UserError, match=r"tfds:aya_no_such_set\[train\]: cannot be loaded"):
        next(dataclasses.replace(tfds_source, name="aya_no_such_set").records(0, 1))
