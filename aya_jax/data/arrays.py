"""One-dimensional checksummed arrays and small JSON files, on a local disk, gs:// or s3://.

Arrays are zarr version 3: an outer chunk is one file, made of inner chunks that are read alone, each with its crc32c
(zarr-specs, sharding-indexed 1.0). The fill value is one that no element has, so a chunk that is gone is noticed when
it is read and never taken for data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorstore as ts

from aya_jax.config import UserError

INNER_CHUNK = 8192  # elements that are read and checked together: a few windows of the usual lengths
OUTER_CHUNK = 1 << 22  # elements in one file: what a writer holds in memory

# One context, so that memory:// stores are shared (tests) and a decoded chunk is not kept beyond the read it serves.
_CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
_CACHED = ts.Context({"cache_pool": {"total_bytes_limit": 16 << 20}})
_CHECKSUMMED = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
REMEDY = "delete the shard's directory and run `aya prepare` again, which rewrites that shard alone"
_AGAIN = "delete it and run `aya prepare` again"
_URL = re.compile(r"[a-z0-9]+://")


def is_remote(directory: str) -> bool:
    """Whether `directory` is a URL such as gs://bucket/path rather than a path on this machine."""
    return _URL.match(directory) is not None


def join(directory: str, *parts: str) -> str:
    """`directory` and the parts below it, with slashes: for paths and URLs alike."""
    return "/".join([directory.rstrip("/"), *parts])


def kvstore_spec(directory: str) -> dict[str, Any] | str:
    """TensorStore's name for a directory: of a local path, or a URL with its driver (gs://, s3://, memory://)."""
    path = f"{directory.rstrip('/')}/"
    return path if is_remote(directory) else {"driver": "file", "path": path}


def open_directory(directory: str) -> ts.KvStore:
    """The files under `directory`, by name."""
    return ts.KvStore.open(kvstore_spec(directory), context=_CONTEXT).result()


def read_bytes(directory: str, name: str) -> bytes | None:
    """Contents of one file, or None where there is no such file.

    Raises:
      UserError: it is there and cannot be read.
    """
    try:
        found = open_directory(directory).read(name).result()
    except Exception as error:
        raise UserError(f"{join(directory, name)}: cannot be read: {first_line(error)}") from error
    return None if found.state == "missing" else bytes(found.value)


def write_bytes(directory: str, name: str, data: bytes) -> None:
    """Writes one file whole or not at all.

    Raises:
      UserError: the directory cannot be written, or the disk is full.
    """
    try:
        open_directory(directory).write(name, data).result()
    except Exception as error:
        raise UserError(f"{join(directory, name)}: cannot be written: {first_line(error)}") from error


def read_json(directory: str, name: str) -> dict[str, Any] | None:
    """One JSON object, or None where there is no such file.

    Raises:
      UserError: it is there and is no JSON object.
    """
    data = read_bytes(directory, name)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError as error:
        raise UserError(f"{join(directory, name)}: broken JSON ({error}); {_AGAIN}") from error
    if not isinstance(value, dict):
        raise UserError(f"{join(directory, name)}: expected a JSON object; {_AGAIN}")
    return value


def write_json(directory: str, name: str, value: dict[str, Any]) -> None:
    """Writes one JSON object, indented, in the order of its keys; whole or not at all."""
    write_bytes(directory, name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def list_files(directory: str) -> list[str]:
    """Sorted names of all files under `directory`, with slashes."""
    return sorted(key.decode() for key in open_directory(directory).list().result())


def remove_files(directory: str) -> None:
    """Deletes all files under `directory`."""
    open_directory(directory).delete_range(ts.KvStore.KeyRange("", "")).result()


def first_line(error: BaseException) -> str:
    """What TensorStore says, without the source locations that follow."""
    return re.sub(r"\s*\[(source locations|tensorstore_spec)=.*", "", str(error).split("\n")[0]).strip()


def fill_value(dtype: np.dtype) -> int | float | str:
    """The value that marks a missing chunk: NaN, -1, or the largest unsigned integer. No element may have it."""
    if dtype.kind == "f":
        return "NaN"
    return -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)


class ArrayWriter:
    """Appends to a new array, holding at most one outer chunk."""

    def __init__(self, directory: str, dtype: np.dtype):
        self._directory, self._dtype = directory, np.dtype(dtype)
        self._buffer = np.empty(OUTER_CHUNK, self._dtype)
        self._filled = self._written = 0
        self._array = ts.open(
            {
                "driver": "zarr3",
                "kvstore": kvstore_spec(directory),
                "metadata": {
                    "shape": [0],
                    "data_type": self._dtype.name,
                    "fill_value": fill_value(self._dtype),
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [OUTER_CHUNK]}},
                    "codecs": [
                        {
                            "name": "sharding_indexed",
                            "configuration": {
                                "chunk_shape": [INNER_CHUNK],
                                "codecs": _CHECKSUMMED,
                                "index_codecs": _CHECKSUMMED,
                            },
                        }
                    ],
                },
            },
            create=True,
            delete_existing=True,
            context=_CONTEXT,
        ).result()

    def append(self, values: np.ndarray) -> None:
        """Adds the elements of `values` [n], converted to the array's type."""
        done = 0
        while done < len(values):
            count = min(len(values) - done, OUTER_CHUNK - self._filled)
            self._buffer[self._filled : self._filled + count] = values[done : done + count]
            self._filled, done = self._filled + count, done + count
            if self._filled == OUTER_CHUNK:
                self._flush()

    def close(self) -> None:
        """Writes what is left; the array is complete then."""
        if self._filled:
            self._flush()

    def _flush(self) -> None:
        stop = self._written + self._filled
        try:
            self._array = self._array.resize(exclusive_max=[stop]).result()
            self._array[self._written : stop].write(self._buffer[: self._filled]).result()
        except Exception as error:
            raise UserError(f"{self._directory}: cannot be written: {first_line(error)}") from error
        self._written, self._filled = stop, 0


def collect(reads: Iterable[tuple[ts.Future, str, np.ndarray]]) -> None:
    """Waits for what `ArrayReader.start` asked for, and copies each slice into its array, converting its type.

    Raises:
      UserError: a chunk is corrupt or missing; names the array.
    """
    for future, directory, target in reads:
        target[...] = _result(future, directory)


def _result(future: ts.Future, directory: str) -> np.ndarray:
    try:
        values = future.result()
    except Exception as error:
        raise UserError(f"{directory}: corrupt or unreadable ({first_line(error)}); {REMEDY}") from error
    if values.size and _has_fill(values):
        raise UserError(f"{directory}: a chunk file is missing under {directory}/c; {REMEDY}")
    return values


def _has_fill(values: np.ndarray) -> bool:
    if values.dtype.kind == "f":
        return bool(np.isnan(values).any())
    return bool(values.min() < 0) if values.dtype.kind == "i" else bool(values.max() == np.iinfo(values.dtype).max)


class ArrayReader:
    """A stored array [n], read by slices. Opening reads its metadata only."""

    def __init__(self, directory: str, expected: int, *, cached: bool = False):
        self.directory = directory
        try:
            self._array = ts.open(
                {"driver": "zarr3", "kvstore": kvstore_spec(directory), "recheck_cached_data": "open"},
                read=True,
                context=_CACHED if cached else _CONTEXT,
            ).result()
        except Exception as error:
            raise UserError(f"{directory}: missing or unreadable ({first_line(error)}); {REMEDY}") from error
        if self._array.shape != (expected,):
            raise UserError(f"{directory}: has shape {self._array.shape}, the manifest says [{expected}]; {REMEDY}")

    def start(self, begin: int, end: int, batch: ts.Batch) -> tuple[ts.Future, str]:
        """Asks for elements [begin, end); the reads of one `batch` go out together when it is left."""
        return self._array[begin:end].read(batch=batch), self.directory

    def read(self, begin: int, end: int) -> np.ndarray:
        """Elements [begin, end)."""
        return _result(self._array[begin:end].read(), self.directory)
