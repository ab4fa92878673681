"""The mesh on the devices at hand; eight emulated ones are tried in tests/models/test_devices.py."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from aya_jax.config import UserError
from aya_jax.parallel import mesh
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh, platform


def test_one_device():
    made = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(made.shape) == {"slice": 1, "data": 1, "fsdp": 1, "context": 1, "tensor": 1}
    assert set(made.axis_types) == {AxisType.Auto}


def test_too_few_devices():
    with pytest.raises(UserError, match=r"wants 16 devices and there are 1"):
        make_mesh(MeshConfig(data=16, fsdp=1), jax.devices()[:1])


class FakeTpu:
    """What `make_mesh` asks of a device of a TPU slice."""

    platform = "tpu"
    device_kind = "unknown to JAX"

    def __init__(self, number, slice_index):
        self.id, self.slice_index = number, slice_index


def test_slices_are_those_that_the_devices_are_of():
    devices = [FakeTpu(i, i % 2) for i in range(4)]
    assert [[d.id for d in group] for group in mesh._slices(devices, 2)] == [[0, 2], [1, 3]]
    with pytest.raises(UserError, match=r"of 2 slices and MeshConfig.slice is 1: bind MeshConfig.slice = 2"):
        mesh._slices(devices, 1)
    assert [len(group) for group in mesh._slices(devices[::2], 2)] == [1, 1]


def test_the_platform_is_that_of_the_mesh():
    assert platform() == "cpu"
    tpus = AbstractMesh((4,), ("fsdp",), abstract_device=AbstractDevice("TPU v5 lite", None, "tpu"))
    with jax.sharding.use_abstract_mesh(tpus):
        assert platform() == "tpu"
