"""The device mesh."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from aya_jax.config.errors import UserError
from aya_jax.parallel.config import MESH_AXES, MeshConfig


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays the devices (all of them by default) out as a mesh with the axes slice, data, fsdp, context, tensor.

    Within a slice devices are laid out by the topology of its links. Devices that do not say which slice they are of
    (GPUs, CPUs) are dealt to slices in order, so that those of one machine stay together.

    Axis types are Auto: the compiler propagates shardings from the arguments and from `sharding.constrain`. (The
    default of `jax.make_mesh` became Explicit in JAX 0.11.)

    Raises:
      UserError: if the axes do not multiply to the number of devices, or the devices are of another number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = config.shape(len(devices))
    laid_out = [
        mesh_utils.create_device_mesh(shape[1:], group, allow_split_physical_axes=True)
        for group in _slices(devices, config.slice)
    ]
    return Mesh(np.stack(laid_out), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def platform() -> str:
    """The platform that is computed for: of the mesh in context (`jax.set_mesh`), else JAX's own; cpu, gpu or tpu.

    A step may be compiled for devices that this machine does not have.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def _slices(devices: Sequence[jax.Device], count: int) -> list[list[jax.Device]]:
    """The devices of each slice. A GPU's `slice_index` is its machine's, which FSDP may well reach across."""
    numbers = [getattr(device, "slice_index", 0) if device.platform == "tpu" else 0 for device in devices]
    found = sorted(set(numbers))
    if len(found) == 1:
        size = len(devices) // count
        return [list(devices[i * size : (i + 1) * size]) for i in range(count)]
    if len(found) != count:
        raise UserError(
            f"the devices are of {len(found)} slices and MeshConfig.slice is {count}: bind MeshConfig.slice = {len(found)}"
        )
    return [[device for device, own in zip(devices, numbers, strict=True) if own == number] for number in found]
