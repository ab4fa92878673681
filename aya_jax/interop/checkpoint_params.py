"""The parameters of our checkpoints, layer by layer, without holding a stacked array whole.

Read by TensorStore from what Orbax wrote; written as arrays that Orbax reads (`StandardCheckpointer`), one chunk of at most
64 MiB after the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from aya_jax.config import UserError
from aya_jax.config.files import Syncing, checksum, write_atomic
from aya_jax.interop.architectures import Rule, rules
from aya_jax.interop.tensors import TensorInfo
from aya_jax.models.config import TransformerConfig

_METADATA = "_METADATA"
_CHUNK_BYTES = 64 << 20


class CheckpointReader:
    """A `TensorReader` over the parameters of one of our checkpoints."""

    def __init__(self, checkpoint: Path, config: TransformerConfig):
        """Opens the arrays of `checkpoint`, a model of `config`.

        Raises:
          UserError: a parameter is missing or cannot be opened.
        """
        self._rules: dict[str, tuple[Rule, int | None]] = {}
        self._arrays: dict[str, ts.TensorStore] = {}
        self._entries: dict[str, TensorInfo] = {}
        for rule in rules(config):
            array = self._arrays[rule.path] = open_array(checkpoint / "params", rule.path)
            dtype = np.dtype(array.dtype.numpy_dtype)
            for layer in range(config.num_layers) if rule.stacked else (None,):
                name = rule.name.format(layer)
                shape = tuple(array.shape[1:] if rule.stacked else array.shape)
                self._rules[name] = rule, layer
                self._entries[name] = TensorInfo(rule.their_shape(shape), dtype)

    def entries(self) -> Mapping[str, TensorInfo]:
        """As `TensorReader.entries`."""
        return self._entries

    def read(self, name: str) -> np.ndarray:
        """As `TensorReader.read`."""
        if name not in self._rules:
            raise UserError(f"there is no tensor {name}")
        rule, layer = self._rules[name]
        array = self._arrays[rule.path]
        try:
            found = _pages(array, layer)
            if found is None:
                found = (array if layer is None else array[layer]).read().result()
            return rule.to_theirs(found)
        except ValueError as error:
            raise UserError(f"parameter {rule.path} cannot be read: {str(error).splitlines()[0]}") from error


def _pages(array: ts.TensorStore, layer: int | None) -> np.ndarray | None:
    """An array, or one layer of it, as the pages of the one uncompressed file that holds it; None where none does."""
    spec = array.spec().to_json()
    metadata, shape = spec["metadata"], tuple(array.shape)
    own = shape if layer is None else (1, *shape[1:])
    plain = (
        spec["driver"] == "zarr"
        and metadata["compressor"] is None
        and not metadata["filters"]
        and metadata["order"] == "C"
    )
    if not plain or tuple(metadata["chunks"]) != own or spec["kvstore"]["driver"] != "file":
        return None
    name = metadata.get("dimension_separator", ".").join(map(str, (layer or 0, *(len(own) - 1) * [0])))
    file, dtype = Path(spec["kvstore"]["path"]) / name, np.dtype(array.dtype.numpy_dtype)
    if not file.is_file() or file.stat().st_size != math.prod(own) * dtype.itemsize:
        return None
    pages = np.memmap(file, np.uint8, "r")
    return np.asarray(pages).view(dtype).reshape(own if layer is None else own[1:])


def open_array(params: Path, path: str) -> ts.TensorStore:
    """A parameter "layers/mlp/gate" below a checkpoint's `params/`, whichever way Orbax laid it out.

    Raises:
      UserError: it is not there.
    """
    try:
        metadata = json.loads((params / _METADATA).read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{params}: no parameters of a checkpoint: {error}") from error
    name = path.replace("/", ".")
    if metadata.get("use_ocdbt"):
        store: dict[str, Any] = {"driver": "ocdbt", "base": f"file://{params.absolute()}/", "path": f"{name}/"}
    else:
        store = {"driver": "file", "path": f"{params.absolute()}/{name}/"}
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    try:
        return ts.open({"driver": driver, "kvstore": store}, read=True, open=True).result()
    except ValueError as error:
        raise UserError(
            f"{params}: parameter {path} is missing or cannot be read ({str(error).splitlines()[0]})"
        ) from error


class CheckpointWriter:
    """Writes parameters in parts; several threads may write.

    Attributes:
      checksums: of the files so far, by their names below `params`.
    """

    def __init__(self, params: Path, shapes: Mapping[str, TensorInfo]):
        """Makes empty arrays below `params`, one for each path."""
        self._params, self._shapes = params, shapes
        self._chunks = {path: _chunks(path, info) for path, info in shapes.items()}
        for path, info in shapes.items():
            _create(self._folder(path), info, self._chunks[path])
        self._disk = Syncing()
        self.checksums: dict[str, str] = {}

    def write(self, path: str, layer: int | None, array: np.ndarray) -> None:
        """Writes a parameter, or one layer of it; `finish` sees that it is on the disk.

        The files of an array without compression are its chunks' bytes. Written from here each is hashed while the processor
        has it at hand, and goes to the disk while the next is made.
        """
        chunk = self._chunks[path]
        array = array if layer is None else array[None]
        for index in np.ndindex(*(-(-size // each) for size, each in zip(array.shape, chunk, strict=True))):
            part = array[tuple(slice(i * each, (i + 1) * each) for i, each in zip(index, chunk, strict=True))]
            if part.shape != chunk:  # the last one is as large as the others
                whole = np.zeros(chunk, array.dtype)
                whole[tuple(map(slice, part.shape))] = part
                part = whole
            name = ".".join(map(str, (index[0] + (layer or 0), *index[1:])))
            self._write_file(self._folder(path) / name, np.ascontiguousarray(part).view(np.uint8).reshape(-1))

    def finish(self) -> None:
        """Sees all that was written onto the disk, then writes what Orbax wants to know: before, it is no checkpoint."""
        self._disk.wait()
        tree = {}
        for path, info in self._shapes.items():
            keys = path.split("/")
            tree[str(tuple(keys))] = {
                "key_metadata": [{"key": key, "key_type": 2} for key in keys],
                "value_metadata": {
                    "value_type": "jax.Array",
                    "skip_deserialize": False,
                    "write_shape": list(info.shape),
                },
            }
        metadata = {"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": False, "custom_metadata": None}
        write_atomic(self._params / _METADATA, json.dumps(metadata))

    def _folder(self, path: str) -> Path:
        return self._params / path.replace("/", ".")

    def _write_file(self, file: Path, content: np.ndarray) -> None:
        with open(file, "wb") as stream:
            stream.write(content)
            self._disk.later(stream)
        self.checksums[str(file.relative_to(self._params))] = checksum(content)


def _chunks(path: str, info: TensorInfo) -> tuple[int, ...]:
    """Of at most _CHUNK_BYTES, cut through layers first, then rows."""
    chunks = list(info.shape)
    for dim in range(len(chunks)):
        rest = math.prod(info.shape[dim + 1 :]) * info.dtype.itemsize
        chunks[dim] = max(1, min(info.shape[dim], _CHUNK_BYTES // max(rest, 1)))
        if path.startswith("layers/") and dim == 0:
            chunks[dim] = 1
        elif chunks[dim] > 1 or rest <= _CHUNK_BYTES:
            break
    return tuple(chunks)


def _create(folder: Path, info: TensorInfo, chunks: tuple[int, ...]) -> None:
    """An array without chunks."""
    metadata = {
        "shape": list(info.shape),
        "chunks": list(chunks),
        "dtype": _zarr_dtype(info.dtype),
        "compressor": None,
    }
    kvstore = {"driver": "file", "path": f"{folder.absolute()}/"}
    ts.open({"driver": "zarr", "kvstore": kvstore, "metadata": metadata}, create=True, delete_existing=True).result()


def _zarr_dtype(dtype: np.dtype) -> str:
    return "bfloat16" if dtype.name == "bfloat16" else dtype.str
