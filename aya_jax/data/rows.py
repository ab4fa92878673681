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
    """Documents of a store that are longer than their part of a row.

    Attributes:
      documents: how many there are.
      lost_tokens: tokens that no row has.
      unlearnable: documents left out because nothing that has weight is left of them, or of the other answer of their pair.
    """

    documents: int = 0
    lost_tokens: int = 0
    unlearnable: int = 0


class Placed(NamedTuple):
    """A document, or a piece of one, in a row.

    Attributes:
      at: its position in the row.
      begin: its first token in the store.
      length: its tokens.
      last: whether its document ends with it.
      document: its number in the store.
    """

    at: int
    begin: int
    length: int
    last: bool
    document: int


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

    Documents that belong together (`Manifest.group`) are placed side by side in one row, each with its share of it at most.
    A seed shuffles each block's documents before they are packed, and the rows of all blocks in every epoch. Finding how
    many rows each block has takes one pass over the documents' offsets, once; only the counts are kept.
    """

    def __init__(self, store: TokenStore, length: int, seed: int | None, long: str = "split"):
        """`seed` None keeps the documents and the rows in the order of the store; `long` is `DataConfig.long_documents`."""
        self.store, self._seed, self._policy = store, seed, long
        self._length, self._group = length, store.manifest.group
        self._limit = length // self._group
        if self._group > 1 and long == "split":
            raise UserError(
                f"{store.directory}: pairs of answers cannot be split over rows; bind DataConfig.long_documents = "
                "'truncate' or 'drop'"
            )
        self.numbers: dict[str, np.ndarray] = {}  # field → float32 [documents], a number of each
        self._blocks: OrderedDict[int, list[list[Placed]]] = OrderedDict()
        self._lock = threading.Lock()
        num_blocks = -(-store.num_documents // BLOCK)
        counts, long = np.zeros(num_blocks, np.int64), [LongDocuments()]
        for block in range(num_blocks):
            bounds = self._bounds(block)
            kept = self._kept(bounds)
            counts[block] = len(self._pack(block, bounds, kept))
            long.append(self._long(np.diff(bounds), kept))
        self.long = LongDocuments(*map(sum, zip(*long, strict=True)))
        self._first_rows = np.concatenate([[0], np.cumsum(counts)])
        self.count = int(self._first_rows[-1])
        if self.count < 1:
            dropped = (
                f" of at most {self._limit} tokens; raise DataConfig.sequence_length" if self.long.documents else ""
            )
            raise UserError(f"{store.directory}: no documents to train on{dropped}")
        self.tokens_per_row = (store.num_tokens - self.long.lost_tokens) / self.count
        self._permutation = None if seed is None else Permutation(seed, store.manifest.task, self.count)

    def pieces(self, ordinal: int) -> list[Placed]:
        """What lies in the n-th row, in order."""
        row = ordinal
        if self._permutation is not None:
            row = int(self._permutation.locate(np.array([ordinal]))[1][0])
        block = bisect.bisect_right(self._first_rows, row) - 1
        return self._block(block)[row - int(self._first_rows[block])]

    def _block(self, block: int) -> list[list[Placed]]:
        with self._lock:
            if block not in self._blocks:
                bounds = self._bounds(block)
                self._blocks[block] = self._pack(block, bounds, self._kept(bounds))
                if len(self._blocks) > _KEPT_BLOCKS:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(block)
            return self._blocks[block]

    def _bounds(self, block: int) -> np.ndarray:
        """Where the documents of a block begin, and the last ends."""
        return self.store.document_bounds(block * BLOCK, min((block + 1) * BLOCK, self.store.num_documents))

    def _kept(self, bounds: np.ndarray) -> np.ndarray:
        """How many tokens of each document of a block rows have; 0 where it is left out, and those of its group with it."""
        lengths = np.diff(bounds)
        long = np.flatnonzero(lengths > self._limit)
        if self._policy == "split" or not len(long):
            return lengths
        kept = np.minimum(lengths, self._limit)
        if self._policy == "drop":
            kept[long] = 0
        elif self.store.manifest.loss_weights:
            begins = bounds[:-1][long]
            weights = self.store.read_ranges("loss_weights", begins, begins + self._limit)
            kept[long] *= np.array([of_one[1:].any() for of_one in weights])
        whole = kept.reshape(-1, self._group).all(axis=1)
        return np.where(np.repeat(whole, self._group), kept, 0)

    def _long(self, lengths: np.ndarray, kept: np.ndarray) -> LongDocuments:
        unlearnable = np.sum(kept == 0) if self._policy == "truncate" else 0
        return LongDocuments(int(np.sum(lengths > self._limit)), int(np.sum(lengths - kept)), int(unlearnable))

    def _pack(self, block: int, bounds: np.ndarray, kept: np.ndarray) -> list[list[Placed]]:
        groups = kept.reshape(-1, self._group)
        order = np.arange(len(groups))
        if self._seed is not None:
            order = permutation(f"{ORDER_VERSION}:{self._seed}:{self.store.manifest.task}:block:{block}", len(order))
        order = order[groups[order].all(axis=1)]
        rows = []
        for pieces in packing.first_fit(groups[order].sum(axis=1).tolist(), self._length):
            row, at = [], 0
            for piece in pieces:
                first = int(order[piece.document]) * self._group
                # Only a document that is alone is ever in pieces.
                for document in range(first, first + self._group):
                    length = piece.length if self._group == 1 else int(kept[document])
                    begin = int(bounds[document]) + piece.start
                    row.append(Placed(at, begin, length, piece.last, block * BLOCK + document))
                    at += length
            rows.append(row)
        return rows


def read_documents(requests: list[tuple[DocumentRows, np.ndarray, np.ndarray]], count: int, length: int) -> Fields:
    """Rows [count, length] of several stores; see `read_windows`.

    Numbers of a document (`DocumentRows.numbers`) stand at its first position, 0 at all others.
    """
    fields = packing.empty_rows(count, length, requests[0][0].store.manifest.vocabulary.pad_id)
    names = {name for source, _, _ in requests for name in source.numbers}
    fields |= {name: np.zeros((count, length), np.float32) for name in sorted(names)}
    reads = []
    for source, ordinals, rows in requests:
        pieces = [source.pieces(ordinal) for ordinal in ordinals.tolist()]
        begins = [piece.begin for row in pieces for piece in row]
        # The token after a piece is the target of its last, unless its document ends there.
        ends = [piece.begin + piece.length + (not piece.last) for row in pieces for piece in row]
        arrays = ("tokens", "loss_weights") if source.store.manifest.loss_weights else ("tokens",)
        reads.append((source, rows, pieces, [source.store.start_ranges(array, begins, ends) for array in arrays]))
    for source, rows, pieces, pending in reads:
        tokens, *weights = [collect() for collect in pending]
        part = 0
        for row, of_row in zip(rows.tolist(), pieces, strict=True):
            for segment, piece in enumerate(of_row, 1):
                weight = weights[0][part] if weights else None
                packing.place_piece(fields, row, piece.at, segment, tokens[part], piece.length, weight)
                for name, values in source.numbers.items():
                    fields[name][row, piece.at] = values[piece.document]
                part += 1
    return fields
