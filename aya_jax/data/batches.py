"""Batches of a run: `loader.batch(i)` is a pure function of (mixture, seed, i), for any number of processes.

Sequence i * global_batch + r of the run is row r of batch i. The order (`mixture.py`) says which task's n-th row it is, the
task's rows (`rows.py`) which tokens those are, and a process reads its own rows only. To resume is to ask for another i.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data import packing, store, tasks
from aya_jax.data.config import DataConfig, mixture_keys
from aya_jax.data.mixture import ORDER_VERSION, make_order
from aya_jax.data.rows import DocumentRows, WindowBatch, WindowRows, finish_windows, read_documents, read_windows
from aya_jax.data.store import TokenStore, VocabularyInfo
from aya_jax.data.token_table import TokenTable, make_table, render_table

Batch = dict[str, np.ndarray]
_WAIT_SECONDS = 1800.0  # for process 0 to prepare what is missing and small


class BatchLoader:
    """The batches of a run, for one of its processes.

    A batch is a dict of arrays [B, S], B being this process's rows: the fields of `packing.FIELDS` and `task_ids` int32,
    an index into `task_names`.

    Attributes:
      task_names: the tasks of the mixture and of its schedule, sorted.
      task_tags: (language, domain) of each.
      languages: the first of these tags.
      stores: the training store of each.
      vocabulary: the tokenizer of all of them.
      steps: batches in the run.
    """

    def __init__(
        self,
        config: DataConfig,
        stores: Mapping[str, TokenStore] | None = None,
        *,
        steps: int,
        process_index: int = 0,
        process_count: int = 1,
        prepares: bool | None = None,
    ):
        """Opens the stores and works out the order; reads no tokens.

        Args:
          config: what to read.
          stores: task → its training store, all that patterns may match; None takes those in `config.store_dir`, after
            preparing what is missing and small.
          steps: batches in the run.
          process_index: which part of the rows this process reads.
          process_count: how many parts there are; they divide the global batch.
          prepares: whether this process prepares what is missing, or waits for the one that does; None: part 0 prepares.

        Raises:
          UserError: no such task, a store is missing, too short or of another tokenizer, rates that cannot be met.
        """
        if config.global_batch % process_count:
            raise UserError(
                f"DataConfig.global_batch = {config.global_batch} cannot be divided over {process_count} processes; "
                f"make it a multiple of {process_count}"
            )
        self.config, self.steps = config, steps
        rows = config.global_batch // process_count
        self._rows = np.arange(process_index * rows, (process_index + 1) * rows)
        if stores is None:
            stores = _open_stores(config, process_index == 0 if prepares is None else prepares)
        tokens = {name: opened.num_tokens for name, opened in stores.items()}
        self._order = make_order(config.mixture, tokens, config.global_batch)
        self.task_names = self._order.tasks
        self.stores = [stores[name] for name in self.task_names]
        manifests = [opened.manifest for opened in self.stores]
        self.task_tags = tuple((manifest.language, manifest.domain) for manifest in manifests)
        self.languages = tuple(language for language, _ in self.task_tags)
        self.vocabulary = _shared_vocabulary(self.stores)
        make_rows, self._read = _PACKINGS[config.packing]
        self._sources = [make_rows(opened, config) for opened in self.stores]
        self._attached: dict[str, str] = {}  # field → digest of its numbers

    def batch(self, index: int) -> Batch:
        """This process's rows of batch `index`, at or after 0 and not only below `steps`.

        Raises:
          UserError: a store's file is corrupt or missing.
        """
        tasks, ordinals = self._order.locate(index * self.config.global_batch + self._rows)
        requests = []
        for task in np.unique(tasks):
            rows = np.flatnonzero(tasks == task)
            requests.append((self._sources[task], ordinals[rows], rows))
        length = self.config.sequence_length
        fields = self._read(requests, len(self._rows), length)
        fields["task_ids"] = np.repeat(tasks.astype(np.int32), length).reshape(-1, length)
        return fields

    def attach(self, field: str, values: Mapping[str, np.ndarray]) -> None:
        """Gives batches a field of numbers of whole documents: at each one's first position, 0 elsewhere.

        Args:
          field: its name in a batch.
          values: task → float32 [documents].
        """
        for name, source in zip(self.task_names, self._sources, strict=True):
            source.numbers[field] = values[name]
        contents = b"".join(np.ascontiguousarray(values[name], "<f4").tobytes() for name in self.task_names)
        self._attached[field] = hashlib.sha256(contents).hexdigest()

    def from_step(self, index: int) -> BatchStream:
        """Batches `index`, `index` + 1, ..., `steps` - 1, read ahead by threads; a context manager."""
        return BatchStream(self, index)

    def identity(self) -> dict[str, Any]:
        """What decides the batches, as JSON: two loaders with equal identities give the same ones."""
        return {
            "order_version": ORDER_VERSION,
            "seed": self.config.seed,
            "global_batch": self.config.global_batch,
            "sequence_length": self.config.sequence_length,
            "packing": self.config.packing,
            **({"long_documents": self.config.long_documents} if self.config.long_documents != "split" else {}),
            "mixture": [
                [stage.start, {self.task_names[task]: share for task, share in zip(stage.tasks, slots, strict=True)}]
                for stage in self._order.stages
                for slots in (stage.interleave.slots,)
            ],
            **({"numbers": self._attached} if self._attached else {}),
            "stores": {name: opened.manifest.digest for name, opened in zip(self.task_names, self.stores, strict=True)},
        }

    @functools.cache  # noqa: B019 - a loader lives as long as its run
    def table(self) -> TokenTable:
        """Tokens, epochs and share of each task, language and domain over the run's steps."""
        counts = self._order.counts(self.steps * self.config.global_batch).tolist()
        return make_table(
            [
                (name, *tags, opened.num_tokens, round(count * source.tokens_per_row))
                for name, tags, opened, count, source in zip(
                    self.task_names, self.task_tags, self.stores, counts, self._sources, strict=True
                )
            ]
        )

    def print_table(self, console: Console) -> None:
        """Shows `table()`."""
        config = self.config
        console.print(
            render_table(
                self.table(), f"{self.steps:,} steps of {config.global_batch:,} x {config.sequence_length:,} tokens"
            )
        )
        for name, opened, source in zip(self.task_names, self.stores, self._sources, strict=True):
            if source.long.documents:
                part = "a row" if opened.manifest.group == 1 else "half a row"
                left_out = f"; {source.long.unlearnable:,} left out, for nothing to learn is left of them"
                console.print(
                    f"{name}: {source.long.documents:,} of {opened.num_documents:,} documents are longer than {part}: "
                    f"{_LONG[config.long_documents]} ({source.long.lost_tokens:,} of {opened.num_tokens:,} tokens lost)"
                    f"{left_out if source.long.unlearnable else ''}",
                    soft_wrap=True,
                )


# How rows are made of a store, and how those of several are read together.
_PACKINGS: dict[str, tuple[Callable[[TokenStore, DataConfig], Any], Any]] = {
    "windows": (lambda opened, config: WindowRows(opened, config.sequence_length, config.seed), read_windows),
    "documents": (
        lambda opened, config: DocumentRows(opened, config.sequence_length, config.seed, config.long_documents),
        read_documents,
    ),
}
_LONG = {"split": "split over several", "truncate": "cut to their beginning", "drop": "left out"}


class BatchStream:
    """Batches in order, read ahead by Grain's threads. Leaving the `with` block, or `close()`, ends them."""

    def __init__(self, loader: BatchLoader, first: int):
        options = grain.ReadOptions(num_threads=loader.config.read_threads, prefetch_buffer_size=loader.config.prefetch)
        numbers = grain.MapDataset.range(first, max(first, loader.steps))
        self._iterator = iter(numbers.map(loader.batch).to_iter_dataset(options)) if len(numbers) else iter(())

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        return next(self._iterator)

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading ahead."""
        if hasattr(self._iterator, "close"):
            self._iterator.close()


def _open_stores(config: DataConfig, prepares: bool) -> dict[str, TokenStore]:
    """The training stores that are there, after what is missing and small was prepared by one of the processes."""
    from aya_jax.data import prepare  # reads text: what comes with it is not needed where stores are given

    _refuse_unknown(config)
    if prepares:
        prepare.ensure(config)
    else:
        _wait_for_stores(config, prepare.missing_tasks)
    names = store.names(config.store_dir)
    return {name: TokenStore.open(store.store_path(config.store_dir, name, "train")) for name in names}


def _refuse_unknown(config: DataConfig) -> None:
    """Names a mixture's key that is close to a task there is, and none itself, before anyone is told to prepare it."""
    known = {*store.names(config.store_dir), *tasks.TASK_TAGS}
    for key in mixture_keys(config.mixture):
        if key in known or any(character in key for character in "*?["):
            continue
        # What SeqIO has besides was registered by a module that imported it.
        if "seqio" in sys.modules and tasks.registered(key):
            continue
        if near := difflib.get_close_matches(key, sorted(known), n=3):
            raise UserError(f"mixture: there is no task {key!r}; did you mean {', '.join(near)}?")


def _wait_for_stores(config: DataConfig, missing_tasks: Any) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while missing := missing_tasks(config):
        if time.monotonic() > deadline:
            raise UserError(
                f"{config.store_dir}: process 0 has not prepared {', '.join(missing)}; do all processes see this directory?"
            )
        time.sleep(1.0)


def _shared_vocabulary(stores: list[TokenStore]) -> VocabularyInfo:
    """The tokenizer of all stores.

    Raises:
      UserError: two stores differ in theirs.
    """
    first = stores[0]
    for other in stores[1:]:
        if other.manifest.vocabulary.digest != first.manifest.vocabulary.digest:
            raise UserError(
                f"{first.directory} and {other.directory} were made with different tokenizers "
                f"({first.manifest.vocabulary.spec} and {other.manifest.vocabulary.spec}); prepare all with one"
            )
    return first.manifest.vocabulary


# All of a store, once -------------------------------------------------------------------------------------------------


def ordered_batches(
    opened: TokenStore,
    config: DataConfig,
    *,
    max_tokens: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    numbers: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Batch]:
    """A store's documents, once and in order: every token is predicted once but a document's first.

    Args:
      opened: the store.
      config: packing and sizes are those of training.
      max_tokens: at most so many tokens, rounded up to whole rows; None takes all.
      process_index: which process this is.
      process_count: how many there are; each gets as many batches as the others.
      numbers: field → float32 [documents], as for `BatchLoader.attach`.

    Yields:
      batches as `BatchLoader` gives, with task id 0; the last is filled with rows of padding.

    Raises:
      UserError: one of the store's files is corrupt.
    """
    length, rows = config.sequence_length, config.global_batch // process_count
    limit = math.inf if max_tokens is None else -(-max_tokens // length)
    if config.packing == "documents":
        read = _HeldOutDocuments(opened, length, config.long_documents, numbers or {})
    else:
        read = _HeldOutWindows(opened, length)
    count = int(min(read.count, limit))
    for first in range(
        process_index * rows, -(-count // config.global_batch) * config.global_batch, config.global_batch
    ):
        fields = read.rows(np.arange(first, max(first, min(first + rows, count))), rows)
        fields["task_ids"] = np.zeros((rows, length), np.int32)
        yield fields


def validation_batches(config: DataConfig, task: str, **options: Any) -> Iterator[Batch]:
    """`ordered_batches` of a task's held-out documents.

    Raises:
      UserError: the task has none, or as `ordered_batches`.
    """
    return ordered_batches(TokenStore.open(store.store_path(config.store_dir, task, "validation")), config, **options)


class _HeldOutWindows:
    """All windows of a store, the last one padded."""

    def __init__(self, opened: TokenStore, length: int):
        self._store, self._length = opened, length
        self.count = -(-max(opened.num_tokens - 1, 0) // length)

    def rows(self, numbers: np.ndarray, count: int) -> Batch:
        """Rows [count, S]: those of `numbers`, then padding."""
        vocabulary = self._store.manifest.vocabulary
        weighted = self._store.manifest.loss_weights
        shape = (count, self._length + 1)
        batch = WindowBatch(
            np.full(shape, vocabulary.pad_id, np.int32), np.zeros(shape, np.float32) if weighted else None
        )
        begins = numbers * self._length
        sizes = np.minimum(self._length + 1, self._store.num_tokens - begins)
        batch.collect.append(
            self._store.start_windows("tokens", begins, [batch.windows[k, :n] for k, n in enumerate(sizes)])
        )
        if batch.weights is not None:
            rows = [batch.weights[k, :n] for k, n in enumerate(sizes)]
            batch.collect.append(self._store.start_windows("loss_weights", begins, rows))
        fields = finish_windows(batch, self._store)
        for row in range(count):
            predicted = int(sizes[row]) - 1 if row < len(sizes) else 0
            packing.pad_from(fields, row, predicted, vocabulary.pad_id)
        return fields


class _HeldOutDocuments:
    """All documents of a store, packed in order."""

    def __init__(self, opened: TokenStore, length: int, long: str, numbers: Mapping[str, np.ndarray]):
        self._source, self._length = DocumentRows(opened, length, None, long), length
        self._source.numbers |= numbers
        self.count = self._source.count

    def rows(self, numbers: np.ndarray, count: int) -> Batch:
        """Rows [count, S]: those of `numbers`, then padding."""
        return read_documents([(self._source, numbers, np.arange(len(numbers)))], count, self._length)
