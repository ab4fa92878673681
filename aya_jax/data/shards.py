"""One shard of a task, from text to stored tokens of each split: the unit of work of `aya prepare`.

`prepare_shard` is a pure function of its job. A pool of processes and Apache Beam run the same function; what it writes
does not depend on which, on the machine, or on how often it was interrupted.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import importlib
import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from aya_jax.data import tasks, vocabulary
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.data.held_out import HeldOutShare
from aya_jax.data.manifest import ShardInfo, SourceInfo, VocabularyInfo
from aya_jax.data.prepare_config import TaskConfig
from aya_jax.data.shard_files import Document, ShardWriter
from aya_jax.data.sources.preferences import SIDES

if TYPE_CHECKING:
    import seqio

    from aya_jax.data.seqio_source import Example

_BATCH = 1 << 20  # bytes of text that are tokenised at once (or ids): enough to keep every core busy, little to hold
_IN_FLIGHT = 3  # batches being tokenised: one makes Python numbers while others are in the tokenizer

Report = Callable[[int, int, int], None]  # documents, bytes of text and tokens since the last report


def import_modules(modules: Sequence[str]) -> None:
    """Imports the modules that register the user's tasks, after SeqIO itself (`seqio_source` says why)."""
    if modules:
        importlib.import_module("aya_jax.data.seqio_source")
    for module in modules:
        importlib.import_module(module)


@dataclass(frozen=True)
class TaskSpec:
    """Where a task comes from; with the modules imported, `task()` is the same in every process.

    Attributes:
      name: the task's.
      data_dir: as in `PrepareConfig`.
      share: what is held out.
      described: the task's description where gin gives it.
      modules: modules to import first, which register SeqIO tasks.
    """

    name: str
    data_dir: str
    share: HeldOutShare
    described: TaskConfig | None = None
    modules: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        """What its documents are: `TaskConfig.form`."""
        return "text" if self.described is None else self.described.form

    def task(self) -> seqio.Task:
        """The registered SeqIO task.

        Raises:
          UserError: there is none of this name.
        """
        import_modules(self.modules)
        extra = (self.described,) if self.described else ()
        return tasks.find(self.name, self.data_dir, extra=extra, share=self.share)


_registering = threading.Lock()  # SeqIO's registry is one for all threads


@dataclass(frozen=True)
class ShardJob:
    """Everything that `prepare_shard` needs to know; it pickles.

    Attributes:
      task: the task.
      stores: the directory of the store of each split that lacks the shard.
      shard, num_shards: which part of the task.
      vocabulary: spec of the tokenizer, for tasks that give text.
      parallel: tokenises on every core; changes nothing that is written.
    """

    task: TaskSpec
    stores: Mapping[str, str]
    shard: int
    num_shards: int
    vocabulary: str
    parallel: bool = False


def prepare_shard(job: ShardJob, report: Report | None = None) -> dict[str, ShardInfo]:
    """Reads the shard through its SeqIO task, tokenises what is text, and writes each split's; whole or not at all.

    Returns:
      the totals of each split's shard.

    Raises:
      UserError: the source cannot be read, or a store not written.
    """
    with _registering:
        task = job.task.task()
    own = own_vocabulary(task)
    token_bytes = _token_bytes(job.vocabulary) if own is None else own[1]
    writers = {
        split: ShardWriter(directory, job.shard, token_bytes=token_bytes) for split, directory in job.stores.items()
    }
    for batch in _ready_documents(job, task) if own is not None else _tokenised_documents(job, task):
        for split, document, _ in batch:
            writers[split].append(document)
        if report is not None:
            report(len(batch), sum(each.num_bytes for each in batch), sum(len(each.document.tokens) for each in batch))
    return {split: writer.finish() for split, writer in writers.items()}


@functools.lru_cache(maxsize=2)
def load_vocabulary(spec: str) -> vocabulary.Vocabulary:
    """`vocabulary.load`, once per process."""
    return vocabulary.load(spec)


@functools.lru_cache(maxsize=2)
def load_tokenizer(spec: str) -> ChatTokenizer:
    """`ChatTokenizer.open`, once per process."""
    return ChatTokenizer.open(spec)


@functools.lru_cache(maxsize=2)
def _token_bytes(spec: str) -> np.ndarray:
    return load_vocabulary(spec).token_bytes()


# Documents ----------------------------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    """A document on its way to a split's store; `num_bytes` of text were tokenised for it."""

    split: str
    document: Document
    num_bytes: int


def _ready_documents(job: ShardJob, task: seqio.Task) -> Iterator[list[_Stored]]:
    """Ids, and weights where there are any, as the task gives them."""
    for batch in _batches(_read(job, task)):
        yield [_Stored(split, Document(np.asarray(ids, np.int32), weights), 0) for split, ids, weights in batch]


def _tokenised_documents(job: ShardJob, task: seqio.Task) -> Iterator[list[_Stored]]:
    """The tokens of each document; further batches are read and tokenised while one is being written."""
    if job.task.form in _ENCODE:
        encode = functools.partial(_ENCODE[job.task.form], load_tokenizer(job.vocabulary))
    else:
        encode = functools.partial(_encode, load_vocabulary(job.vocabulary), job.parallel)
    with ThreadPoolExecutor(_IN_FLIGHT) as background:
        pending: collections.deque[Future[list[_Stored]]] = collections.deque()
        for examples in _batches(_read(job, task)):
            pending.append(background.submit(encode, examples))
            if len(pending) > _IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _encode_conversations(tokenizer: ChatTokenizer, examples: Sequence[Example]) -> list[_Stored]:
    """Each as its chat template renders it, with a weight for each token."""
    stored = []
    for example in examples:
        messages = [Message(**message) for message in json.loads(example.content)["messages"]]
        stored.append(_Stored(example.split, _learnt(tokenizer, messages), len(example.content)))
    return stored


def _encode_preferences(tokenizer: ChatTokenizer, examples: Sequence[Example]) -> list[_Stored]:
    """Each as two documents, prompt with chosen and prompt with rejected answer; the answers are what has weight."""
    stored = []
    for example in examples:
        pair = json.loads(example.content)
        for side in SIDES:
            messages = [Message(**message) for message in [*pair["prompt"], *pair[side]]]
            document = _learnt(tokenizer, messages, len(pair["prompt"]), pair.get("margin", 0.0))
            stored.append(_Stored(example.split, document, len(example.content) // 2))
    return stored


def _learnt(
    tokenizer: ChatTokenizer, messages: Sequence[Message], first: int = 0, value: float | None = None
) -> Document:
    ids, weights = tokenizer.encode_training(messages, first)
    return Document(np.asarray(ids, np.int32), np.asarray(weights, np.float32), value)


def _encode_scored(tokenizer: ChatTokenizer, examples: Sequence[Example]) -> list[_Stored]:
    """Each as a document with its value; the answer is what has weight."""
    stored = []
    for example in examples:
        record = json.loads(example.content)
        messages = [Message(**message) for message in [*record["prompt"], *record["answer"]]]
        document = _learnt(tokenizer, messages, len(record["prompt"]), record["value"])
        stored.append(_Stored(example.split, document, len(example.content)))
    return stored


_ENCODE = {"chat": _encode_conversations, "preference": _encode_preferences, "scored": _encode_scored}


def _encode(vocab: vocabulary.Vocabulary, parallel: bool, examples: Sequence[Example]) -> list[_Stored]:
    """`[bos] ids eos` of each."""
    head = () if vocab.bos_id is None else (vocab.bos_id,)
    encoded = vocab.encode_batch([example.content.decode() for example in examples], parallel=parallel)
    ends = np.cumsum([len(head) + len(ids) + 1 for ids in encoded])
    pieces = itertools.chain.from_iterable((head, ids, (vocab.eos_id,)) for ids in encoded)
    flat = np.fromiter(itertools.chain.from_iterable(pieces), np.int32, int(ends[-1]))
    return [
        _Stored(example.split, Document(tokens), len(example.content))
        for example, tokens in zip(examples, np.split(flat, ends[:-1]), strict=True)
    ]


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Some documents at a time: about a megabyte of text, or a million ids."""
    batch: list[Example] = []
    size = 0
    for example in examples:
        batch.append(example)
        size += len(example.content)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(job: ShardJob, task: seqio.Task) -> Iterator[Example]:
    from aya_jax.data import seqio_source

    return seqio_source.read(task, tuple(job.stores), job.shard, job.num_shards, share=job.task.share)


# Vocabularies of a task's own ---------------------------------------------------------------------------------------


def own_vocabulary(task: seqio.Task) -> tuple[VocabularyInfo, np.ndarray] | None:
    """The vocabulary of a task that gives ids, and the bytes of text behind each id, int32 [V]; None if it gives text.

    Bytes are known for SeqIO's SentencePiece and byte vocabularies; for others they are 0, and bits per byte are not
    defined.
    """
    from aya_jax.data import seqio_source

    theirs = seqio_source.output_form(task).vocabulary
    if theirs is None:
        return None
    size = theirs.vocab_size
    token_bytes = np.zeros(size, np.int32)
    known, digest = _known_bytes(theirs)
    token_bytes[: len(known)] = known[:size]
    description = f"{type(theirs).__name__}, {size} ids, {digest}"
    info = VocabularyInfo(
        digest=hashlib.sha256(description.encode()).hexdigest(),
        size=size,
        pad_id=theirs.pad_id,
        bos_id=_bos_id(theirs),
        eos_id=theirs.pad_id if theirs.eos_id is None else theirs.eos_id,
        spec=f"seqio:{type(theirs).__name__}",
    )
    return info, token_bytes


def _known_bytes(theirs: seqio.Vocabulary) -> tuple[np.ndarray, str]:
    """Bytes behind the vocabulary's first ids, and a fingerprint of its content."""
    import seqio

    if isinstance(theirs, seqio.SentencePieceVocabulary) and os.path.isfile(theirs.sentencepiece_model_file):
        model = vocabulary.load(theirs.sentencepiece_model_file)
        return model.token_bytes(), model.digest
    if isinstance(theirs, seqio.ByteVocabulary):
        return np.repeat(np.array([0, 1], np.int32), [3, 256]), "bytes from id 3"
    return np.zeros(0, np.int32), str(theirs)


def _bos_id(theirs: seqio.Vocabulary) -> int | None:
    try:
        return theirs.bos_id
    except NotImplementedError:
        return None


# Where it came from ---------------------------------------------------------------------------------------------------


def source_info(task: seqio.Task, split: str) -> SourceInfo:
    """Description and fingerprint of a task's source.

    Of a SeqIO source of another kind the content is not known beforehand: its fingerprint covers its description and
    the names of the preprocessors.
    """
    from aya_jax.data import seqio_source

    if isinstance(task.source, seqio_source.DocumentSource):
        documents = task.source.of(split)
        return SourceInfo(description=documents.description, digest=documents.digest())
    steps = [getattr(step, "__qualname__", type(step).__qualname__) for step in task.preprocessors]
    text = re.sub(r"0x[0-9a-f]+", "", f"{task.source} {split} {steps}")  # a memory address says nothing
    return SourceInfo(description=f"seqio task {task.name}", digest=hashlib.sha256(text.encode()).hexdigest())
