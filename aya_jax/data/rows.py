"""Rows of one token store by number: what the order of a run points at.

A row number means the same tokens on every process and in every run with the same seed. Reads of all stores of a batch
are asked for before any is waited for: together they are five times as fast as one after the other.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from aya_jax.config import UserError
from aya_jax.data import packing
from aya_jax.data.mixture import ORDER_VERSION, Permutation, draw, permutation
from aya_jax.data.store import TokenStore

BLOCK = 256  # documents that are packed together
_KEPT_BLOCKS = 1024  # blocks whose packing is kept: about 40 MB
Fields = dict[str, np.ndarray]


@dataclass
class WindowBatch:
    """A batch of windows that is being read.

    Attributes:
      windows: int32 [N, S + 1].
      weights: float32 [N, S + 1]; made when a store of the batch has loss weights.
    """

    windows: np.ndarray
    weights: np.ndarray | None = None
    collect: list[Callable[[], None]] = field(default_factory=list)


class LongDocuments(NamedTuple):
    """How many documents of a store are longer than a row, and how many of their tokens no row has."""

    documents: int = 0
    lost_tokens: int = 0


class WindowRows:
    """Windows of S + 1 tokens, each beginning where the predictions of the one before end.

    An epoch's windows leave out up to S tokens of the store. Each epoch begins at another of those, so that all tokens
    are seen in the long run.
    """

    long = LongDocuments()  # windows are cut anywhere

    def __init__(self, store: TokenStore, length: int, seed: int):
        self.store, self._length = store, length
        name = store.manifest.task
        self.count = (store.num_tokens - 1) // length
        if self.count < 1:
            raise UserError(
                f"{store.directory}: {store.num_tokens} tokens cannot fill a sequence of {length} and the token after it; "
                "lower DataConfig.sequence_length, or leave the task out of the mixture"
            )
        self.tokens_per_row = float(length)
        self._spare = (store.num_tokens - 1) % length
        self._key = f"{ORDER_VERSION}:{seed}:{name}:offset"
        self._permutation = Permutation(seed, name, self.count)

    def starts(self, ordinals: np.ndarray) -> np.ndarray:
        """First tokens of the task's n-th windows; int64 [N] → int64 [N]."""
        epochs, indices = self._permutation.locate(ordinals)
        offsets = {epoch: draw(f"{self._key}:{epoch}", self._spare + 1) for epoch in np.unique(epochs).tolist()}
        return indices * self._length + np.array([offsets[epoch] for epoch in epochs.tolist()], np.int64)

    def start_read(self, ordinals: np.ndarray, rows: np.ndarray, batch: WindowBatch) -> None:
        """Asks for the task's n-th windows, to be put into `rows` of the batch."""
        self.start_read_at(self.starts(ordinals), rows, batch)

    def start_read_at(self, starts: np.ndarray, rows: np.ndarray, batch: WindowBatch) -> None:
        """Asks for the windows that begin at tokens `starts`."""
        batch.collect.append(self.store.start_windows("tokens", starts, [batch.windows[row] for row in rows]))
        if self.store.manifest.loss_weights:
            if batch.weights is None:
                batch.weights = np.ones(batch.windows.shape, np.float32)
            batch.collect.append(self.store.start_windows("loss_weights", starts, [batch.weights[row] for row in rows]))


def read_windows(requests: list[tuple[WindowRows, np.ndarray, np.ndarray]], count: int, length: int) -> Fields:
    """Rows [count, length] of several stores: (store's rows, their numbers, rows of the batch that they become)."""
    batch = WindowBatch(np.empty((count, length + 1), np.int32))
    for source, ordinals, rows in requests:
        source.start_read(ordinals, rows, batch)
    return finish_windows(batch, requests[0][0].store)


def finish_windows(batch: WindowBatch, store: TokenStore) -> Fields:
    """Waits for the reads and packs; `store` is one of the batch's, for its vocabulary."""
    for collect in batch.collect:
        collect()
    vocabulary = store.manifest.vocabulary
    return packing.pack_windows(
        batch.windows, bos_id=vocabulary.bos_id, eos_id=vocabulary.eos_id, weights=batch.weights
    )


class DocumentRows:
    """Whole documents, packed first-fit within blocks of `BLOCK` neighbours of the store.

    A seed shuffles each block's documents before they are packed, and the rows of all blocks in every epoch. Finding how
    many rows each block has takes one pass over the documents' offsets, once; only the counts are kept.
    """

    def __init__(self, store: TokenStore, length: int, seed: int | None, long: str = "split"):
        """`seed` None keeps the documents and the rows in the order of the store; `long` is `DataConfig.long_documents`."""
        self.store, self._length, self._seed, self._policy = store, length, seed, long
        self._blocks: OrderedDict[int, list[list[tuple[int, int, int, bool]]]] = OrderedDict()
        self._lock = threading.Lock()
        num_blocks = -(-store.num_documents // BLOCK)
        counts, long = np.zeros(num_blocks, np.int64), [LongDocuments()]
        for block in range(num_blocks):
            bounds = self._bounds(block)
            counts[block] = len(self._pack(block, bounds))
            long.append(self._long(bounds))
        self.long = LongDocuments(*map(sum, zip(*long, strict=True)))
        self._first_rows = np.concatenate([[0], np.cumsum(counts)])
        self.count = int(self._first_rows[-1])
        if self.count < 1:
            dropped = f" of at most {length} tokens; raise DataConfig.sequence_length" if self.long.documents else ""
            raise UserError(f"{store.directory}: no documents to train on{dropped}")
        self.tokens_per_row = (store.num_tokens - self.long.lost_tokens) / self.count
        self._permutation = None if seed is None else Permutation(seed, store.manifest.task, self.count)

    def pieces(self, ordinal: int) -> list[tuple[int, int, int, bool]]:
        """(position in the row, first token in the store, tokens, whether its document ends there) of the n-th row."""
        row = ordinal
        if self._permutation is not None:
            row = int(self._permutation.locate(np.array([ordinal]))[1][0])
        block = bisect.bisect_right(self._first_rows, row) - 1
        return self._block(block)[row - int(self._first_rows[block])]

    def _block(self, block: int) -> list[list[tuple[int, int, int, bool]]]:
        with self._lock:
            if block not in self._blocks:
                self._blocks[block] = self._pack(block, self._bounds(block))
                if len(self._blocks) > _KEPT_BLOCKS:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(block)
            return self._blocks[block]

    def _bounds(self, block: int) -> np.ndarray:
        """Where the documents of a block begin, and the last ends."""
        return self.store.document_bounds(block * BLOCK, min((block + 1) * BLOCK, self.store.num_documents))

    def _long(self, bounds: np.ndarray) -> LongDocuments:
        lengths = np.diff(bounds)
        lengths = lengths[lengths > self._length]
        lost = {"split": 0, "drop": lengths.sum(), "truncate": (lengths - self._length).sum()}[self._policy]
        return LongDocuments(len(lengths), int(lost))

    def _pack(self, block: int, bounds: np.ndarray) -> list[list[tuple[int, int, int, bool]]]:
        order = np.arange(len(bounds) - 1)
        if self._seed is not None:
            order = permutation(f"{ORDER_VERSION}:{self._seed}:{self.store.manifest.task}:block:{block}", len(order))
        lengths = np.diff(bounds)
        if self._policy == "drop":
            order = order[lengths[order] <= self._length]
        elif self._policy == "truncate":
            lengths = np.minimum(lengths, self._length)
        begins, lengths = bounds[:-1][order].tolist(), lengths[order].tolist()
        rows = []
        for pieces in packing.first_fit(lengths, self._length):
            ends = np.cumsum([0, *(piece.length for piece in pieces)]).tolist()
            rows.append(
                [(at, begins[p.document] + p.start, p.length, p.last) for at, p in zip(ends, pieces, strict=False)]
            )
        return rows


def read_documents(requests: list[tuple[DocumentRows, np.ndarray, np.ndarray]], count: int, length: int) -> Fields:
    """Rows [count, length] of several stores; see `read_windows`."""
    fields = packing.empty_rows(count, length, requests[0][0].store.manifest.vocabulary.pad_id)
    reads = []
    for source, ordinals, rows in requests:
        pieces = [source.pieces(ordinal) for ordinal in ordinals.tolist()]
        begins = [begin for row in pieces for _, begin, _, _ in row]
        # The token after a piece is the target of its last, unless its document ends there.
        ends = [begin + size + (not last) for row in pieces for _, begin, size, last in row]
        arrays = ("tokens", "loss_weights") if source.store.manifest.loss_weights else ("tokens",)
        reads.append((rows, pieces, [source.store.start_ranges(array, begins, ends) for array in arrays]))
    for rows, pieces, pending in reads:
        tokens, *weights = [collect() for collect in pending]
        part = 0
        for row, of_row in zip(rows.tolist(), pieces, strict=True):
            for segment, (at, _, size, _) in enumerate(of_row, 1):
                weight = weights[0][part] if weights else None
                packing.place_piece(fields, row, at, segment, tokens[part], size, weight)
                part += 1
    return fields
