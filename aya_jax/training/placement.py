"""Batches from hosts to devices."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import batch_sharding


def place(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: LogicalAxes) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch, arrays [B / processes, S], on its devices, as arrays [B, S]."""
    sharding = batch_sharding(mesh, rules)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


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
            f"this machine's {mesh.size} devices ({axes}); change them or MeshConfig."
        ) from None
