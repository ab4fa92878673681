"""Batches from hosts to devices."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import batch_sharding


def place(batch: Mapping[str, np.ndarray], mesh: Mesh, rules: LogicalAxes) -> dict[str, jax.Array]:
    """Puts this process's rows of a batch, arrays [B / processes, S], on its devices, as arrays [B, S]."""
    sharding = batch_sharding(mesh, rules)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
