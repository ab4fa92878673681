"""A model's tensors one at a time, by their Hugging Face names, wherever they lie."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from aya_jax.config import UserError

INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    Attributes:
      shape: of the tensor.
      dtype: NumPy's; bfloat16 is that of ml_dtypes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorReader(Protocol):
    """Gives a model's tensors by name, each read when it is asked for."""

    def entries(self) -> Mapping[str, TensorInfo]:
        """All tensors, in a fixed order."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor.

        Raises:
          UserError: there is no such tensor, or its file is damaged.
        """
        ...


class SafetensorsReader:
    """The tensors of a directory of safetensors files; several threads may read."""

    def __init__(self, directory: str | Path):
        """Reads the headers, and no tensor.

        Raises:
          UserError: there are no safetensors, the index names a file or tensor that is not there, or a file is damaged.
        """
        self._directory = Path(directory)
        self._entries: dict[str, TensorInfo] = {}
        self._places: dict[str, tuple[Path, int]] = {}
        for file, expected in self._find_files().items():
            with opened(file) as stream:
                offsets = _offsets(file)
                found = list(stream.keys())
                for name in sorted(found) if expected is None else expected:
                    if name not in found:
                        raise UserError(f"{file}: tensor {name} is missing, which {INDEX} says is there")
                    self._entries[name] = self._info(file, name, stream.get_slice(name))
                    self._places[name] = file, offsets[name]

    def entries(self) -> Mapping[str, TensorInfo]:
        """As `TensorReader.entries`."""
        return self._entries

    def read(self, name: str) -> np.ndarray:
        """As `TensorReader.read`; the array is the file's own pages, and cannot be written."""
        if name not in self._places:
            raise UserError(f"{self._directory}: there is no tensor {name}")
        (file, offset), info = self._places[name], self._entries[name]
        if not info.nbytes:
            return np.empty(info.shape, info.dtype)
        try:
            pages = np.memmap(file, np.uint8, "r", offset, (info.nbytes,))
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read any more ({error})") from error
        return np.asarray(pages).view(info.dtype).reshape(info.shape)

    def file_of(self, name: str) -> Path:
        """Where a tensor lies."""
        return self._places[name][0]

    def files(self) -> list[Path]:
        """The files, in order."""
        return list(dict.fromkeys(file for file, _ in self._places.values()))

    def _find_files(self) -> dict[Path, list[str] | None]:
        index = self._directory / INDEX
        if index.is_file():
            try:
                weight_map = json.loads(index.read_bytes())["weight_map"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{index}: not an index of safetensors files: {error!r}") from error
            files: dict[Path, list[str] | None] = {}
            for name, file in sorted(weight_map.items(), key=lambda item: (item[1], item[0])):
                if Path(file).name != file:
                    raise UserError(f"{index}: {name} is said to lie in {file!r}, which is no file of this directory")
                files.setdefault(self._directory / file, []).append(name)
            for file in files:
                if not file.is_file():
                    raise UserError(f"{file}: missing, and {INDEX} names it; fetch the model again")
            return files
        found = sorted(self._directory.glob("model*.safetensors")) or sorted(self._directory.glob("*.safetensors"))
        if found:
            return dict.fromkeys(found)
        pickles = [name for name in _PICKLES if (self._directory / name).exists()]
        if pickles:
            raise UserError(
                f"{self._directory / pickles[0]}: a pickle, which could run any code when it is opened and is never read here; "
                "save the model as safetensors (transformers: model.save_pretrained(DIR))"
            )
        raise UserError(f"{self._directory}: there are no .safetensors files")

    def _info(self, file: Path, name: str, part: Any) -> TensorInfo:
        kind = part.get_dtype()
        if kind not in _DTYPES:
            raise UserError(f"{file}: tensor {name} is {kind}; {', '.join(_DTYPES)} can be read")
        return TensorInfo(tuple(part.get_shape()), _DTYPES[kind])


def _offsets(file: Path) -> dict[str, int]:
    """Where each tensor's bytes begin in a safetensors file, whose header has been checked."""
    with open(file, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    return {name: 8 + size + part["data_offsets"][0] for name, part in header.items() if name != "__metadata__"}


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """An open safetensors file, whose header has been checked against its size.

    Raises:
      UserError: it is no such file, or not all of it is there.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: damaged, or no safetensors file ({error}); fetch or write it again") from error
