"""The device mesh."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh

from aya_jax.parallel.config import MESH_AXES, MeshConfig


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays the devices (all of them by default) out as a mesh with the axes data, fsdp, context, tensor.

    Axis types are Auto: the compiler propagates shardings from the arguments and from `sharding.constrain`. (The
    default of `jax.make_mesh` became Explicit in JAX 0.11.)

    Raises:
      UserError: if the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = config.shape(len(devices))
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)
