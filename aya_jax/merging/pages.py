"""Tensors that are pages of files, and go from memory while they are read: a token table may be larger than what is free."""

from __future__ import annotations

import mmap

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.merging.tensor import HostBlocks

_KEPT = 4  # blocks of a tensor that stay in memory


def release(array: np.ndarray) -> None:
    """Lets go of the pages of a file that an array is a view of, if it is one: they come back when they are looked at again."""
    owner = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = getattr(owner, "base", None)
    if owner is not None:
        owner.madvise(mmap.MADV_DONTNEED)


class FileBlocks(HostBlocks):
    """As `HostBlocks`; of a tensor that is pages of a file, those of a few blocks are in memory."""

    def __init__(self, array: np.ndarray, mesh: Mesh | None = None, *, by_rows: bool = False):
        super().__init__(array, mesh, by_rows=by_rows)
        self._array = array

    def block(self, number: int) -> jax.Array:
        """As `Blocks.block`."""
        if number % _KEPT == 0:
            release(self._array)
        return super().block(number)
