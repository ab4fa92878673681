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
from aya_jax.config.files import write_atomic
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
            return rule.to_theirs((array if layer is None else array[layer]).read().result())
        except ValueError as error:
            raise UserError(f"parameter {rule.path} cannot be read: {str(error).splitlines()[0]}") from error


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
    """Writes parameters in parts; several threads may write."""

    def __init__(self, params: Path, shapes: Mapping[str, TensorInfo]):
        """Makes empty arrays below `params`, one for each path."""
        self._params, self._shapes = params, shapes
        self._arrays = {path: self._create(path, info) for path, info in shapes.items()}

    def write(self, path: str, layer: int | None, array: np.ndarray) -> None:
        """Writes a parameter, or one layer of it, and waits for the disk."""
        target = self._arrays[path]
        (target if layer is None else target[layer]).write(array).result()

    def finish(self) -> None:
        """Writes what Orbax wants to know; before it, nothing takes the arrays for a checkpoint."""
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

    def _create(self, path: str, info: TensorInfo) -> ts.TensorStore:
        chunks = list(info.shape)
        for dim in range(len(chunks)):  # layers first, then rows
            rest = math.prod(info.shape[dim + 1 :]) * info.dtype.itemsize
            chunks[dim] = max(1, min(info.shape[dim], _CHUNK_BYTES // max(rest, 1)))
            if path.startswith("layers/") and dim == 0:
                chunks[dim] = 1
            elif chunks[dim] > 1 or rest <= _CHUNK_BYTES:
                break
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{self._params.absolute()}/{path.replace('/', '.')}/"},
            "metadata": {
                "shape": list(info.shape),
                "chunks": chunks,
                "dtype": _zarr_dtype(info.dtype),
                "compressor": None,
            },
            # Zeros are data too: without this a chunk of them is left out.
            "store_data_equal_to_fill_value": True,
        }
        return ts.open(spec, create=True, delete_existing=True).result()


def _zarr_dtype(dtype: np.dtype) -> str:
    return "bfloat16" if dtype.name == "bfloat16" else dtype.str
