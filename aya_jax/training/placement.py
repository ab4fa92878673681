"""Batches from hosts to devices."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import batch_sharding


@dataclass(frozen=True)
class RowShare:
    """Which rows of a batch this process reads, and where they lie.

    The mesh cuts a batch's rows into blocks. Processes whose devices hold the same blocks (they share a sequence, or the
    model within a row) read the same rows.

    Attributes:
      index: which of the `count` equal parts of the batch, in the order of reading, this process reads.
      count: how many parts are read apart.
      blocks: the blocks that the part's rows go to.
      order: the block that each is in the order of reading; not ascending where the mesh follows a torus of links.
    """

    index: int
    count: int
    blocks: tuple[int, ...]
    order: tuple[int, ...]


def row_share(mesh: Mesh, rules: LogicalAxes) -> RowShare:
    """This process's share of every batch.

    Raises:
      UserError: the rows of one process are partly those of another.
    """
    return _row_share(mesh, rules, jax.process_index())


@functools.lru_cache(maxsize=8)
def _row_share(mesh: Mesh, rules: LogicalAxes, process: int) -> RowShare:
    sharding, cuts = batch_sharding(mesh, rules), []
    for axes in (*sharding.spec, None, None)[:2]:
        axes = () if axes is None else (axes,) if isinstance(axes, str) else axes
        cuts.append(math.prod(mesh.shape[axis] for axis in axes))
    # One row and one position to a device: its row is then the number of its block.
    placed = sharding.devices_indices_map(tuple(cuts)).items()
    return divide_rows(((device.process_index, index[0].start or 0) for device, index in placed), process)


def divide_rows(placed: Iterable[tuple[int, int]], process: int) -> RowShare:
    """The share of a process.

    Args:
      placed: (process, block of rows) of every device.
      process: whose share.

    Raises:
      UserError: as `row_share`.
    """
    held: dict[int, set[int]] = {}
    for owner, block in placed:
        held.setdefault(owner, set()).add(block)
    parts = sorted({tuple(sorted(blocks)) for blocks in held.values()})
    order = tuple(block for part in parts for block in part)
    if len(set(order)) != len(order) or len({len(part) for part in parts}) != 1:
        raise UserError(
            "the mesh gives a process some of another's rows, but not all: choose mesh axes whose products fit the devices "
            "of a process (MeshConfig), the last axes being those of neighbouring devices."
        )
    own = tuple(sorted(held[process]))
    return RowShare(parts.index(own), len(parts), own, order)


def place(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: LogicalAxes) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch, arrays [B / `row_share().count`, S], on its devices, as arrays [B, S]."""
    share, sharding = row_share(mesh, rules), batch_sharding(mesh, rules)

    def put(array: np.ndarray) -> jax.Array:
        rows = len(array) // len(share.blocks)
        shape = (len(array) * share.count, *array.shape[1:])

        def part(index: tuple[slice, ...]) -> np.ndarray:
            first = share.blocks.index((index[0].start or 0) // rows) * rows
            return array[(slice(first, first + rows), *index[1:])]

        return jax.make_array_from_callback(shape, sharding, part)

    return {name: put(array) for name, array in batch.items()}


def place_whole(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: LogicalAxes) -> dict[str, jax.Array]:
    """Puts a batch that every process has whole, arrays [B, S], on the devices."""
    sharding = batch_sharding(mesh, rules)
    return {
        name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__) for name, array in batch.items()
    }


def in_reading_order(rows: Any, share: RowShare) -> Any:
    """Rows [B, ...] of a placed batch, on the host, in the order in which they were read."""
    if share.order == tuple(range(len(share.order))):
        return rows
    return rows.reshape(len(share.order), -1, *rows.shape[1:])[list(share.order)].reshape(rows.shape)


def batch_shards(mesh: Mesh, rules: LogicalAxes) -> int:
    """Over how many devices the rows of a batch are divided."""
    axes = batch_sharding(mesh, rules).spec[0] or ()
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def check_divides(mesh: Mesh, rules: LogicalAxes, rows: int, length: int) -> None:
    """Refuses rows of `length` tokens that the devices found here cannot share (an axis of -1 is known only now).

    Raises:
      UserError: the mesh does not divide them.
    """
    try:
        batch_sharding(mesh, rules).shard_shape((rows, length))
    except ValueError:
        axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1)
        raise UserError(
            f"{rows} rows of {length} tokens (GLOBAL_BATCH / accumulation, SEQUENCE_LENGTH) do not divide over the mesh of "
            f"the run's {mesh.size} devices ({axes}); change them or MeshConfig."
        ) from None
