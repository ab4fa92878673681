"""Eight emulated devices give the loss and gradients of one, however the mesh is laid out."""

from __future__ import annotations

import json

import pytest

from tests import eight_devices

MESHES = [
    {"data": 8, "fsdp": 1},
    {"fsdp": 8},
    {"fsdp": 4, "tensor": 2},
    {"data": 2, "fsdp": 1, "context": 2, "tensor": 2},
]


@pytest.mark.parametrize(
    ("name", "meshes"),
    [
        ("cohere2", MESHES[3:]),
        pytest.param("llama", MESHES[2:3], marks=pytest.mark.slow),
        pytest.param("cohere2", MESHES[:3], marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(name, meshes):
    """In a process of its own: the number of devices is fixed when JAX starts."""
    printed = eight_devices.run("-m", "tests.models.emulated_devices", name, json.dumps(meshes), timeout=300)
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["axes"] for result in results] == meshes
    for result in results:
        # Rounding, which deep products amplify; a missing sum or a wrong mask is off by tenths.
        assert result["worst"] < 3e-4, result
        assert result["devices"] == [8]
        assert result["gather"]
