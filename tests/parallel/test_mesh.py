"""The mesh on the devices at hand; eight emulated ones are tried in tests/models/test_devices.py."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import AxisType

from aya_jax.config import UserError
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh


def test_one_device():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_too_few_devices():
    with pytest.raises(UserError, match=r"wants 16 devices and there are 1"):
        make_mesh(MeshConfig(data=16, fsdp=1), jax.devices()[:1])
