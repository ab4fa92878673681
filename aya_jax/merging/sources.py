"""The models that are merged, opened: each a reader of tensors by Hugging Face name, whatever it is on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from aya_jax.interop.convert import hugging_face_shape
from aya_jax.interop.model_dir import ModelDir, expected_tensors, find_model, weights_digest
from aya_jax.interop.tensors import SafetensorsReader, TensorReader
from aya_jax.models.config import TransformerConfig

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
"""Tensors with a row for each token."""
_BEGINNING = 16_384  # entries of a tensor


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to merge.

    Attributes:
      name: as the user named it.
      found: what it is.
      config: its shape, without rows that were added to its token table for a mesh.
      reader: its tensors.
      digest: of its weights.
    """

    name: str
    found: ModelDir
    config: TransformerConfig
    reader: TensorReader
    digest: str

    @functools.cached_property
    def identity(self) -> str:
        """What random masks are made of: a model that is trained again to the same bits has the same, though the files of a
        checkpoint never are the same bytes twice. Of a checkpoint it is made of the beginning of every tensor."""
        if self.found.kind != "checkpoint":
            return self.digest
        found = hashlib.sha256()
        for name, shape in self.shapes().items():
            beginning = self.read(name).reshape(-1)[:_BEGINNING]
            found.update(f"{name} {shape}".encode())
            found.update(beginning.astype(np.float32).tobytes())
        return found.hexdigest()

    def read(self, name: str) -> np.ndarray:
        """A tensor; of a table the rows that the model has."""
        array = self.reader.read(name)
        return array[: self.config.vocab_size] if name in TABLES else array

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of all its tensors, by layer."""
        return dict(sorted(expected_tensors(self.config).items(), key=lambda item: _place(item[0])))

    def file_of(self, name: str) -> Path:
        """Where a tensor lies."""
        if self.found.kind == "checkpoint":
            return self.found.path / "params"
        return SafetensorsReader(self.found.path).file_of(name)


def find_source(name: str, warn: Callable[[str], None]) -> ModelDir:
    """What a name means: a directory, or "MODEL+ADAPTER", a model's directory and an adapter's.

    Raises:
      UserError: as `find_model`.
    """
    model, plus, adapter = name.rpartition("+")
    if plus and not Path(name).exists():
        return find_model(model, warn, adapter)
    return find_model(name, warn)


def open_source(name: str, warn: Callable[[str], None]) -> Source:
    """Opens a model, and reads all of its files once for their digest.

    Raises:
      UserError: as `find_model`; or its tensors are damaged, or not those that its configuration says.
    """
    found = find_source(name, warn)
    reader = found.reader()
    return Source(name, found, hugging_face_shape(found), reader, weights_digest(found))


def _place(name: str) -> tuple[int, int]:
    """The token table, the layers, then what comes after them."""
    parts = name.split(".")
    if parts[1] == "layers":
        return 1, int(parts[2])
    return (0, 0) if "embed_tokens" in name else (2, 0)
