"""Token stores: a task's documents as token arrays on a disk or in a bucket, read by random access.

`STORE_DIR/<task>/<split>/` holds `manifest.json`, the tokenizer, `token_bytes/`, and for each shard

    shard-00000/tokens/        the documents one after another, each `[bos] tokens eos`; the smallest type that holds V
    shard-00000/offsets/       int64 [documents + 1], where each begins in the shard
    shard-00000/loss_weights/  float32, one per token, where the task has them
    shard-00000/values/        float32, one per document, where the task has them
    shard-00000/shard.json     totals and digests, written last

A store is immutable, and the same documents give the same files byte for byte.
"""

from __future__ import annotations

import bisect
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tensorstore as ts

from aya_jax.config import UserError
from aya_jax.data import arrays
from aya_jax.data.arrays import ArrayReader, ArrayWriter
from aya_jax.data.manifest import MANIFEST, Manifest, ShardInfo, SourceInfo, VocabularyInfo
from aya_jax.data.shard_files import Document, read_shard_info, shard_path, verify_shard, write_shard

__all__ = [
    "Document",
    "Manifest",
    "ShardInfo",
    "SourceInfo",
    "TokenStore",
    "VocabularyInfo",
    "exists",
    "names",
    "read_shard_info",
    "store_path",
    "verify_shard",
    "write_manifest",
    "write_shard",
]

_TOKEN_BYTES = "token_bytes"


# Names ---------------------------------------------------------------------------------------------------------------


def store_path(store_dir: str, task: str, split: str) -> str:
    """The directory of one store."""
    return arrays.join(store_dir, task, split)


def exists(directory: str) -> bool:
    """Whether a finished store is there."""
    return arrays.read_bytes(directory, MANIFEST) is not None


def names(store_dir: str, split: str = "train") -> tuple[str, ...]:
    """Sorted names of the tasks that have a finished store of `split` in `store_dir`."""
    if arrays.is_remote(store_dir):
        suffix = f"/{split}/{MANIFEST}"
        found = (name.removesuffix(suffix) for name in arrays.list_files(store_dir) if name.endswith(suffix))
        return tuple(sorted(name for name in found if "/" not in name))
    if not os.path.isdir(store_dir):
        return ()
    return tuple(sorted(name for name in os.listdir(store_dir) if exists(store_path(store_dir, name, split))))


# Writing -------------------------------------------------------------------------------------------------------------


def write_manifest(directory: str, manifest: Manifest, *, token_bytes: np.ndarray) -> None:
    """Finishes a store: writes `token_bytes` int32 [V], then `manifest.json`."""
    writer = ArrayWriter(arrays.join(directory, _TOKEN_BYTES), np.dtype(np.int32))
    writer.append(np.asarray(token_bytes, np.int32))
    writer.close()
    arrays.write_json(directory, MANIFEST, manifest.to_json())


# Reading -------------------------------------------------------------------------------------------------------------


class TokenStore:
    """The documents of one task and split, read by position. Opening reads the manifest only."""

    def __init__(self, directory: str, manifest: Manifest):
        self.directory, self.manifest = directory, manifest
        self.num_tokens, self.num_documents = manifest.tokens, manifest.documents
        self._token_starts = np.cumsum([0, *(shard.tokens for shard in manifest.shards)])
        self._document_starts = np.cumsum([0, *(shard.documents for shard in manifest.shards)])
        self._readers: dict[tuple[str, int], ArrayReader] = {}

    @classmethod
    def open(cls, directory: str) -> TokenStore:
        """Opens a finished store.

        Raises:
          UserError: there is none, it is unfinished, or of another format version.
        """
        value = arrays.read_json(directory, MANIFEST)
        if value is None:
            raise UserError(f"{directory}: no finished token store ({MANIFEST} is missing); run `aya prepare` first")
        return cls(directory, Manifest.from_json(value, arrays.join(directory, MANIFEST)))

    @functools.cached_property
    def token_bytes(self) -> np.ndarray:
        """int32 [V], UTF-8 bytes of text that each id stands for; 0 for special ids."""
        size = self.manifest.vocabulary.size
        return ArrayReader(arrays.join(self.directory, _TOKEN_BYTES), size).read(0, size)

    def read_windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows over the concatenation of all documents, across shards, all read together.

        Args:
          starts: int64 [N], first tokens.
          length: tokens in each.

        Returns:
          int32 [N, length].

        Raises:
          UserError: a file is corrupt or missing; names it.
          IndexError: a window reaches outside the store.
        """
        windows = np.empty((len(starts), length), np.int32)
        self.start_windows("tokens", starts, list(windows))()
        return windows

    def start_windows(self, array: str, starts: Sequence[int], rows: Sequence[np.ndarray]) -> Callable[[], None]:
        """Asks for windows and returns at once, so that several stores read together.

        Args:
          array: "tokens" or "loss_weights".
          starts: first tokens, [N].
          rows: N arrays, each filled with as many elements as it is long.

        Returns:
          a function that waits, and fills them; it raises as `read_windows` does.
        """
        ranges = [(int(start), int(start) + len(row), row) for start, row in zip(starts, rows, strict=True)]
        return self._start(array, ranges)

    def read_documents(self, ids: np.ndarray) -> list[np.ndarray]:
        """Whole documents by their numbers; int64 [N] → N arrays int32 [n]. Raises as `read_windows` does."""
        begins, ends = self.document_ranges(ids)
        return self.read_ranges("tokens", begins, ends)

    def read_ranges(self, array: str, begins: Sequence[int], ends: Sequence[int]) -> list[np.ndarray]:
        """Tokens (int32) or loss weights (float32) in [begins[i], ends[i]) of the concatenation, read together."""
        return self.start_ranges(array, begins, ends)()

    def start_ranges(self, array: str, begins: Sequence[int], ends: Sequence[int]) -> Callable[[], list[np.ndarray]]:
        """Asks for what `read_ranges` gives and returns at once, with a function that waits for it."""
        dtype = np.float32 if array == "loss_weights" else np.int32
        ranges = [(int(b), int(e), np.empty(int(e - b), dtype)) for b, e in zip(begins, ends, strict=True)]
        collect = self._start(array, ranges)

        def result() -> list[np.ndarray]:
            collect()
            return [part for _, _, part in ranges]

        return result

    def document_ranges(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where documents begin and end in the concatenation of all; int64 [N] → two int64 [N]."""
        ids = np.asarray(ids, np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.num_documents:
            raise IndexError(f"{self.directory}: documents are numbered 0 to {self.num_documents - 1}")
        bounds = np.empty((len(ids), 2), np.int64)
        reads = []
        shards = np.searchsorted(self._document_starts, ids, side="right") - 1
        with ts.Batch() as batch:
            for shard, number, bound in zip(
                shards.tolist(), (ids - self._document_starts[shards]).tolist(), bounds, strict=True
            ):
                reads.append((*self._reader("offsets", shard).start(number, number + 2, batch), bound))
        arrays.collect(reads)
        bounds += self._token_starts[shards][:, None]
        return bounds[:, 0], bounds[:, 1]

    def document_bounds(self, first: int, stop: int) -> np.ndarray:
        """int64 [stop - first + 1]: where documents first, ..., stop - 1 begin, and the last ends."""
        pieces = []
        while first < stop:
            shard = bisect.bisect_right(self._document_starts, first) - 1
            begin = first - int(self._document_starts[shard])
            count = min(stop, int(self._document_starts[shard + 1])) - first
            bounds = self._reader("offsets", shard).read(begin, begin + count + 1) + self._token_starts[shard]
            first += count
            pieces.append(bounds if first == stop else bounds[:-1])
        return np.concatenate(pieces)

    def values(self) -> np.ndarray:
        """float32 [documents], the value of each; read whole. Raises as `read_windows` does."""
        sizes = enumerate(shard.documents for shard in self.manifest.shards)
        return np.concatenate([self._reader("values", shard).read(0, size) for shard, size in sizes if size])

    def _start(self, array: str, ranges: Iterable[tuple[int, int, np.ndarray]]) -> Callable[[], None]:
        """Issues the reads of [begin, end) into each array, in one TensorStore batch."""
        reads = []
        with ts.Batch() as batch:
            for begin, end, target in ranges:
                for shard, low, high, at in self._split(begin, end):
                    future, directory = self._reader(array, shard).start(low, high, batch)
                    reads.append((future, directory, target[at : at + high - low]))
        return functools.partial(arrays.collect, reads)

    def _split(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(shard, first, end in it, position in the range) of the pieces of a range."""
        if not 0 <= begin <= end <= self.num_tokens:
            raise IndexError(f"{self.directory}: tokens {begin} to {end} of {self.num_tokens}")
        shard, position = bisect.bisect_right(self._token_starts, begin) - 1, begin
        while position < end:
            base, limit = int(self._token_starts[shard]), int(self._token_starts[shard + 1])
            stop = min(end, limit)
            if stop > position:
                yield shard, position - base, stop - base, position - begin
            position, shard = stop, shard + 1

    def _reader(self, array: str, shard: int) -> ArrayReader:
        key = (array, shard)
        if key not in self._readers:
            info = self.manifest.shards[shard]
            expected = {"offsets": info.documents + 1, "values": info.documents}.get(array, info.tokens)
            directory = arrays.join(shard_path(self.directory, shard), array)
            self._readers[key] = ArrayReader(directory, expected, cached=array == "offsets")
        return self._readers[key]
