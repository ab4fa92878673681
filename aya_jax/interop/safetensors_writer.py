"""Safetensors files written tensor by tensor: the sizes are known ahead, so no file is held in memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from aya_jax.config.files import Syncing, unwritable, write_atomic
from aya_jax.interop.tensors import INDEX, TensorInfo

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_SINGLE = "model.safetensors"
_SYNC_BYTES = 64 << 20


def write_tensors(
    directory: Path,
    entries: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray | Iterable[np.ndarray]],
    *,
    shard_bytes: int,
    tell: Callable[[int], None] = lambda size: None,
    resume: bool = False,
) -> None:
    """Writes `model.safetensors`, or shards of at most `shard_bytes` (or one tensor) with their index.

    A file has its name when all of it is on the disk.

    Args:
      directory: to write into; it exists.
      entries: what is written, in this order.
      read: gives a tensor, of the type and shape in `entries`, or its entries in flat pieces.
      shard_bytes: the largest file's data.
      tell: is told of every tensor's bytes as it is written.
      resume: leave the files that are there as they are.

    Raises:
      UserError: the disk is full or not writable.
    """
    shards = shard_files(entries, shard_bytes)
    for name, shard in shards.items():
        if resume and (directory / name).is_file():
            continue
        beside = directory / f"{name}.part"
        _write_file(beside, {tensor: entries[tensor] for tensor in shard}, read, tell)
        beside.rename(directory / name)
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in shards.items() for tensor in shard}
        total = sum(info.nbytes for info in entries.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_atomic(directory / INDEX, json.dumps(index, indent=2) + "\n")


def shard_files(entries: Mapping[str, TensorInfo], shard_bytes: int) -> dict[str, list[str]]:
    """The names of the files that `write_tensors` writes, and the tensors in each."""
    shards = _divide(entries, shard_bytes)
    names = [_SINGLE] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    return dict(zip(names, shards, strict=True))


def _divide(entries: Mapping[str, TensorInfo], shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in entries.items():
        if shards[-1] and size + info.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    return shards


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _write_file(
    file: Path,
    entries: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray | Iterable[np.ndarray]],
    tell: Callable[[int], None],
) -> None:
    """The format: a length, that much JSON, then the tensors' bytes in the order of their offsets."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, info in entries.items():
        header[name] = {
            "dtype": _NAMES[info.dtype.name],
            "shape": list(info.shape),
            "data_offsets": [at, at + info.nbytes],
        }
        at += info.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    try:
        with open(file, "wb") as stream:
            disk, unsynced = Syncing(most=2), 0
            stream.write(struct.pack("<Q", len(text)) + text)
            for name, info in entries.items():
                for piece in _pieces(name, info, read(name)):
                    stream.write(piece)
                    tell(piece.nbytes)
                    unsynced += piece.nbytes
                    if unsynced > _SYNC_BYTES:  # the disk works while the next tensors are made
                        disk.later(stream)
                        unsynced = 0
            disk.later(stream)
            disk.wait()
    except OSError as error:
        raise unwritable(file, error) from error


def _pieces(name: str, info: TensorInfo, given: np.ndarray | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The bytes of a tensor, which must be as many as were announced."""
    whole = isinstance(given, np.ndarray)
    if whole and given.shape != info.shape:
        raise AssertionError(f"{name}: {given.shape}, and {info} was announced")
    size = 0
    for piece in [given] if whole else given:
        if piece.dtype != info.dtype:
            raise AssertionError(f"{name}: {piece.dtype}, and {info} was announced")
        yield np.ascontiguousarray(piece).view(np.uint8).reshape(-1)
        size += piece.nbytes
    if size != info.nbytes:
        raise AssertionError(f"{name}: {size} bytes, and {info} was announced")
