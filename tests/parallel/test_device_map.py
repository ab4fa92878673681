"""The lines that say which process has which devices."""

from __future__ import annotations

import types

import numpy as np

from aya_jax.parallel.device_map import device_map, places


def mesh(shape, per_process, kind="TPU v4"):
    """A mesh (data, fsdp, tensor) of devices that are dealt to processes in order."""
    devices = [types.SimpleNamespace(process_index=i // per_process, device_kind=kind) for i in range(np.prod(shape))]
    return types.SimpleNamespace(devices=np.array(devices).reshape(shape), axis_names=("data", "fsdp", "tensor"))


def test_two_processes():
    found = device_map(places(mesh((1, 2, 2), 2, "cpu"), {0: "left", 1: "right"}))
    assert found == ["process 0  left  2 x cpu  fsdp 0, tensor 0-1", "process 1  right  2 x cpu  fsdp 1, tensor 0-1"]


def test_a_pod_is_not_printed_whole():
    found = device_map(places(mesh((2, 512, 1), 4), {i: f"t-{i // 2}" for i in range(256)}))
    assert len(found) == 9
    assert found[0] == "process 0  t-0  4 x TPU v4  data 0, fsdp 0-3"
    assert found[6] == "... 248 more; 128 machines in all"
    assert found[-1] == "process 255  t-127  4 x TPU v4  data 1, fsdp 508-511"


def test_unequal_numbers_of_devices_are_a_warning():
    found = places(mesh((1, 10, 1), 4), {0: "a", 1: "b", 2: "c"})
    assert device_map(found)[-1] == "Warning: most processes have 4 device(s), but process 2 (c) has 2."
