"""Documents from datasets known by name: on the Hugging Face hub or its local cache, and in TensorFlow Datasets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.sources.record import BadRecord, Record, check_shard, make_record, missing_field

_SAME_NAMES = (("train", "train"), ("validation", "validation"))


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
    """A dataset of the Hugging Face hub, of its local cache (HF_HUB_OFFLINE is honoured), or in a local directory.

    Row j belongs to shard j % num_shards. Rows are read from the cached Arrow files a few at a time.

    Attributes:
      name: "owner/dataset", or a directory with data files.
      config: the dataset's configuration, where it has several.
      split_map: for each of our splits, the dataset's own, slices included: (("train", "train[:99%]"), ...).
      text_field: the column with the text; None keeps all columns, and no text.
      revision: commit, tag or branch; pin it, the hub's files can change.
      split: which of ours `records` reads; `dataclasses.replace(source, split="validation")` reads another.
    """

    name: str
    config: str | None = None
    split_map: tuple[tuple[str, str], ...] = _SAME_NAMES
    text_field: str | None = "text"
    revision: str | None = None
    split: str = "train"

    @property
    def description(self) -> str:
        """Name, configuration, revision and split."""
        return f"hf:{_joined(self.name, self.config)}@{self.revision or 'latest'}[{_own_split(self)}]"

    def digest(self) -> str:
        """sha256 of name, revision, split, columns and sizes; the rows themselves are not read.

        Raises:
          UserError: the dataset or its split cannot be loaded.
        """
        rows = self._rows()
        facts = (self.description, self.text_field, len(rows), rows.info.dataset_size, str(rows.features))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def records(self, shard: int, num_shards: int) -> Iterator[Record]:
        """The shard's rows in order.

        Raises:
          UserError: `datasets` is missing, the dataset or column does not exist, or a row has no text.
        """
        check_shard(shard, num_shards)
        rows = self._rows()
        if self.text_field is not None and self.text_field not in rows.column_names:
            raise UserError(f"{self.description}: {missing_field(self.text_field, tuple(rows.column_names))}")
        place = f"{_joined(self.name, self.config)}/{_own_split(self)}"
        for i, row in enumerate(rows.shard(num_shards, shard, contiguous=False)):
            number = i * num_shards + shard + 1
            yield _checked(f"{place}:{number}", row, self.text_field)

    def _rows(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError(f"{self.description}: reading it needs `pip install datasets`") from error
        try:
            return datasets.load_dataset(self.name, self.config, split=_own_split(self), revision=self.revision)
        except Exception as error:  # the library raises its own, the hub client's and the file systems' exceptions
            raise UserError(f"{self.description}: cannot be loaded: {_first_line(error)}") from error


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A dataset of TensorFlow Datasets that is prepared on this machine or on a file system that TFDS reads.

    Example j, in the order of the dataset's files, belongs to shard j % num_shards.

    Attributes:
      name: "dataset", "dataset/config" or "dataset/config:version".
      split_map: for each of our splits, the dataset's own, slices included.
      text_field: the feature with the text; None keeps all features, and no text.
      data_dir: where TFDS keeps its datasets; None is its own default.
      split: which of ours `records` reads.
    """

    name: str
    split_map: tuple[tuple[str, str], ...] = _SAME_NAMES
    text_field: str | None = "text"
    data_dir: str | None = None
    split: str = "train"

    @property
    def description(self) -> str:
        """Name and split."""
        return f"tfds:{self.name}[{_own_split(self)}]"

    def digest(self) -> str:
        """sha256 of full name with version, split, features and sizes; the examples themselves are not read.

        Raises:
          UserError: the dataset or its split cannot be loaded.
        """
        info = self._builder().info
        split = self._split_info(info)
        facts = (
            info.full_name,
            _own_split(self),
            self.text_field,
            str(info.features),
            split.num_examples,
            split.num_bytes,
        )
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def records(self, shard: int, num_shards: int) -> Iterator[Record]:
        """The shard's examples in order.

        Raises:
          UserError: the dataset is not prepared here, has no such split or feature, or an example has no text.
        """
        check_shard(shard, num_shards)
        import tensorflow_datasets as tfds

        builder = self._builder()
        self._split_info(builder.info)
        if self.text_field is not None and self.text_field not in builder.info.features:
            raise UserError(f"{self.description}: {missing_field(self.text_field, tuple(builder.info.features))}")
        in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        examples = builder.as_dataset(split=_own_split(self), shuffle_files=False, read_config=in_order)
        place = f"{builder.info.full_name}/{_own_split(self)}"
        for i, example in enumerate(tfds.as_numpy(examples.shard(num_shards, shard))):
            number = i * num_shards + shard + 1
            yield _checked(f"{place}:{number}", example, self.text_field)

    def _builder(self) -> Any:
        try:
            import tensorflow_datasets as tfds

            builder = tfds.builder(self.name, data_dir=self.data_dir)
        except ImportError as error:
            raise UserError(f"{self.description}: reading it needs TensorFlow and tensorflow-datasets") from error
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            raise UserError(f"{self.description}: cannot be loaded: {_first_line(error)}") from error
        if not builder.is_prepared():
            where = f" --data_dir={self.data_dir}" if self.data_dir else ""
            raise UserError(f"{self.description}: not prepared here; run `tfds build {self.name}{where}` first")
        return builder

    def _split_info(self, info: Any) -> Any:
        try:
            return info.splits[_own_split(self)]
        except (KeyError, ValueError) as error:
            present = ", ".join(info.splits)
            raise UserError(f"{self.description}: no such split; there are: {present}") from error


def _own_split(source: HuggingFaceSource | TfdsSource) -> str:
    """The dataset's own name of our split."""
    names = dict(source.split_map)
    if source.split not in names:
        raise UserError(f"{source.name}: split_map says nothing of {source.split!r}; it has: {', '.join(names)}")
    return names[source.split]


def _checked(location: str, fields: Mapping[str, Any], text_field: str | None) -> Record:
    record = make_record(location, location, fields, text_field)
    if isinstance(record, BadRecord):
        raise record
    return record


def _joined(name: str, config: str | None) -> str:
    return f"{name}/{config}" if config else name


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
