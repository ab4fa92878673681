"""SeqIO on top of this project's readers. Importing this module imports TensorFlow: done where text is read, no sooner.

TensorFlow takes seconds to import, logs to the terminal while it does, and would claim an accelerator's memory; here it
is imported once per process, quietly, and sees no accelerator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from aya_jax.config import UserError
from aya_jax.data.held_out import NOTHING_HELD_OUT, OF, HeldOutShare
from aya_jax.data.sources import Source

SPLITS = ("train", "validation")
_WEIGHTS = ("targets_loss_weights", "loss_weights")
# Documents that pass from Python to tf.data at once: a call per document would cost as much as tokenising it.
_CHUNK = 128
_READ_DOCUMENTS = 64  # and from tf.data to Python


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Sets environment variables for the span of an import, unless the user has set them."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Sends what C++ writes to stderr nowhere: TensorFlow logs before its log level can be set."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _environment(TF_CPP_MIN_LOG_LEVEL="3", GRPC_VERBOSITY="NONE"), _quiet():
    import seqio
    import tensorflow as tf

tf.config.set_visible_devices([], "GPU")
with contextlib.suppress(ValueError, tf.errors.NotFoundError):  # builds without TPU support do not know the name
    tf.config.set_visible_devices([], "TPU")


class HeldOut:
    """Which documents are for validation: a pure function of a document's content and the source's first document.

    A document is held out where BLAKE2b(content) mod 1000 lies in a range, or, where that is not one of several folds, its
    content is that of the source's first document. So a text that occurs twice is never on both sides, no shard needs to know
    of another, and the smallest source has a validation document.
    """

    def __init__(self, share: HeldOutShare, first: Callable[[], bytes | None]):
        """`first` gives the content of the source's first document; it is asked once, when the rule is first used."""
        self.share = share
        self._first_content = first
        self._first: tuple[int, ...] | None = None

    def __call__(self, content: bytes) -> bool:
        if self._first is None and self.share.fold is not None:
            self._first = ()
        if self._first is None:
            content_of_first = self._first_content()
            self._first = () if content_of_first is None else (_hash(content_of_first),)
        point = _hash(content)
        return point % OF in self.share.range or point in self._first


def _hash(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


class DocumentSource(seqio.DataSource):
    """A source of documents as a SeqIO source with the splits `train` and `validation`.

    Elements are `{"text": string}`. Documents of nothing but white space are left out. Order is the source's, whatever
    `shuffle` says: training permutes. A failure to read is kept in `failure`, because TensorFlow hides the exception.
    """

    def __init__(self, train: Source, validation: Source | None = None, share: HeldOutShare = NOTHING_HELD_OUT):
        """With a `validation` source the splits are the two sources; else `share` of `train` is held out."""
        super().__init__(splits=SPLITS, caching_permitted=False)
        self.train, self.validation = train, validation
        self.failure: Exception | None = None
        self._held_out = HeldOut(share, self._first_text)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return True

    def list_shards(self, split: str) -> list[str]:
        return [split]

    def of(self, split: str) -> Source:
        """Where a split's documents come from.

        Raises:
          ValueError: there is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}")
        return self.validation if split == "validation" and self.validation is not None else self.train

    def documents(self, splits: Sequence[str], shard: int, num_shards: int) -> Iterator[tuple[str, bytes]]:
        """Split and UTF-8 text of each of a shard's documents in the splits; what two splits share is read once."""
        if self.validation is not None:
            for split in splits:
                yield from ((split, text) for text in _texts(self.of(split), shard, num_shards))
            return
        for text in _texts(self.train, shard, num_shards):
            split = "validation" if self._held_out(text) else "train"
            if split in splits:
                yield split, text

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = False,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        self.of(split)
        self.failure = None
        index, num_shards = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)

        def chunks() -> Iterator[dict[str, list[bytes]]]:
            texts = (text for _, text in self.documents((split,), index, num_shards))
            try:
                while chunk := list(itertools.islice(texts, _CHUNK)):
                    yield {"text": chunk}
            except Exception as error:
                self.failure = error
                raise

        signature = {"text": tf.TensorSpec([None], tf.string)}
        return tf.data.Dataset.from_generator(chunks, output_signature=signature).unbatch()

    def _first_text(self) -> bytes | None:
        return next(_texts(self.train, 0, 1), None)


def _texts(source: Source, shard: int, num_shards: int) -> Iterator[bytes]:
    """The texts of a shard that are more than white space."""
    for record in source.records(shard, num_shards):
        if record.text and not record.text.isspace():
            yield record.text.encode()


def text_task(name: str, source: DocumentSource) -> seqio.Task:
    """A task whose one output feature, `text`, is a string: `prepare` tokenises it, many documents at a time."""
    feature = seqio.Feature(seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, rank=0)
    return seqio.Task(name, source, output_features={"text": feature}, preprocessors=[])


@dataclasses.dataclass(frozen=True)
class OutputForm:
    """What a task gives.

    Attributes:
      feature: the output feature that becomes the document, `targets` or `text`.
      vocabulary: the vocabulary of its ids, or None where the feature is text.
    """

    feature: str
    vocabulary: seqio.Vocabulary | None


def output_form(task: seqio.Task) -> OutputForm:
    """Whether a task gives text to tokenise or ids of its own.

    Raises:
      UserError: it has neither `targets` nor `text`, or has `inputs` beside them, which a decoder would lose.
    """
    features = task.output_features
    name = next((name for name in ("targets", "text") if name in features), None)
    if name is None or "inputs" in features:
        raise UserError(
            f"task {task.name} gives {', '.join(features)}; a decoder-only model needs one feature, targets or text: "
            "add a preprocessor that joins inputs and targets (and gives loss_weights, 0 for the inputs)"
        )
    feature = features[name]
    if feature.dtype == tf.string:
        return OutputForm(name, None)
    if not feature.dtype.is_integer or feature.rank != 1:
        raise UserError(f"task {task.name}: {name} is {feature.dtype.name} of rank {feature.rank}, not text or 1-D ids")
    return OutputForm(name, feature.vocabulary)


class Example(NamedTuple):
    """A document of a task: its split; its UTF-8 bytes or its ids, int [n]; a weight per id, float [n], or None."""

    split: str
    content: Any
    loss_weights: Any = None


def read(
    task: seqio.Task, splits: Sequence[str], shard: int, num_shards: int, *, share: HeldOutShare
) -> Iterator[Example]:
    """A shard's examples of the splits as the task's preprocessors leave them, in a fixed order within each split.

    A task without a validation split has `share` of `train` held out, by the rule of `HeldOut`; both splits come of
    one reading then. A task of this project that does nothing to its documents is read as its dataset would give them,
    but without TensorFlow between: that costs more than reading does.

    Raises:
      UserError: the task has no such split, or what its source raised.
    """
    for split in splits:
        if "train" not in task.splits or split not in SPLITS:
            raise UserError(f"task {task.name} has no split {split!r}; it has {', '.join(task.splits)}")
    if isinstance(task.source, DocumentSource) and not task.preprocessors:
        for split, text in task.source.documents(splits, shard, num_shards):
            yield Example(split, text)
    elif "validation" in task.splits:
        for split in splits:
            yield from _examples(task, split, shard, num_shards)
    else:
        held_out = HeldOut(share, lambda: _first_content(task))
        for example in _examples(task, "train", shard, num_shards):
            split = "validation" if held_out(_as_bytes(example.content)) else "train"
            if split in splits:
                yield example._replace(split=split)


def _first_content(task: seqio.Task) -> bytes | None:
    return next((_as_bytes(example.content) for example in _examples(task, "train", 0, 1, batch_size=1)), None)


def _as_bytes(content: bytes | np.ndarray) -> bytes:
    return content if isinstance(content, bytes) else content.astype("<i4").tobytes()


def loss_weights_key(task: seqio.Task, split: str) -> str | None:
    """The feature that holds a weight for each id of the document, or None."""
    if output_form(task).vocabulary is None:
        return None
    return _weights_key(_dataset(task, split if split in task.splits else "train", 0, 1))


def _weights_key(dataset: tf.data.Dataset) -> str | None:
    return next((key for key in _WEIGHTS if key in dataset.element_spec), None)


def _dataset(task: seqio.Task, split: str, shard: int, num_shards: int) -> tf.data.Dataset:
    shard_info = seqio.ShardInfo(shard, num_shards)
    return task.get_dataset(
        sequence_length=None, split=split, shuffle=False, seed=0, shard_info=shard_info, try_in_mem_cache=False
    )


def _examples(
    task: seqio.Task, split: str, shard: int, num_shards: int, batch_size: int = _READ_DOCUMENTS
) -> Iterator[Example]:
    """Every example of a split that the task has, through tf.data; `batch_size` leave it at once."""
    form = output_form(task)
    feature = form.feature
    dataset = _dataset(task, split, shard, num_shards)
    weights = None if form.vocabulary is None else _weights_key(dataset)
    keys = (feature, weights) if weights else (feature,)
    if set(dataset.element_spec) != set(keys):
        dataset = dataset.map(lambda example: {key: example[key] for key in keys})
    try:
        # No prefetch: tokenising runs ahead already, and tf.data's prefetch thread at times slept for seconds at the end.
        for batch in dataset.ragged_batch(batch_size):
            contents = _rows(batch[feature])
            for content, weight in zip(
                contents, _rows(batch[weights]) if weights else [None] * len(contents), strict=True
            ):
                yield Example(split, content, weight)
    except tf.errors.OpError as error:
        failure = getattr(task.source, "failure", None)
        if failure is not None:
            raise failure from None
        raise UserError(f"task {task.name}, split {split}: reading it failed: {error.message}") from error


def _rows(value: Any) -> list[Any]:
    if isinstance(value, tf.RaggedTensor):
        flat, limits = value.flat_values.numpy(), value.row_splits.numpy()
        return [flat[start:end] for start, end in itertools.pairwise(limits)]
    return list(value.numpy())
