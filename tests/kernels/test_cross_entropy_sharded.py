"""The head over eight emulated devices: values and gradients of one device, and less memory than on one."""

from __future__ import annotations

import json

import pytest

from tests import eight_devices

MESHES = [
    {"fsdp": 8},
    {"fsdp": 4, "tensor": 2},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"fsdp": 4, "context": 2},
    {"fsdp": 2, "context": 2, "tensor": 2},
]
# Rules that are not the default: the width at rest over more axes and in another order, over axes that do not divide the
# tokens, and the vocabulary over axes that do.
RULES = [
    ({"fsdp": 2, "context": 2, "tensor": 2}, {"embed": ["context", "fsdp"]}),
    ({"data": 2, "fsdp": 4}, {"batch": ["data"]}),
    ({"data": 2, "fsdp": 2, "tensor": 2}, {"vocab": ["fsdp", "tensor"], "embed": None}),
    ({"fsdp": 4, "tensor": 2}, {"vocab": None, "embed": ["fsdp", "tensor"]}),
    ({"fsdp": 2, "tensor": 4}, {"vocab": ["tensor"], "embed": None}),
]


def emulated(cases):
    """What the script of the eight devices prints: their number is fixed when JAX starts."""
    printed = eight_devices.run("-m", "tests.kernels.emulated_cross_entropy", json.dumps(cases), timeout=900)
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.parametrize("name", ["dense", "tiled", "pallas_tpu"])
def test_eight_devices_equal_the_closed_form(name):
    """float32 against float64: 1e-5 of the largest entry, through log_probs alone, lse alone and both."""
    cases = [{"mesh": mesh, "name": name} for mesh in MESHES[1 if name == "pallas_tpu" else 0 :]]
    if name == "tiled":
        cases += [{"mesh": mesh, "rules": rules, "name": name} for mesh, rules in RULES]
    # Rows that do not divide over the devices that divide the width.
    cases += [{"mesh": {"fsdp": 8}, "vocab": 100, "name": name}] if name != "dense" else []
    results = emulated([{"what": "compare", **case} for case in cases])
    assert len(results) == len(cases)
    for case, result in zip(cases, results, strict=True):
        assert max(result[part] for part in ("log_probs", "lse", "both")) < 1e-5, (case, result)
        assert (result["wrong"], result["entropy"] < 1e-5) == (0, True), (case, result)
        assert not result["whole logits"], case


def test_memory_and_refusals():
    *results, said = emulated([*({"what": "memory", "mesh": mesh} for mesh in MESHES[:2]), "refusals"])
    for result in results:
        assert result["sharded"] < 0.5 * result["one device"], result
    patterns = [
        "UserError: linear + cross-entropy: 7 rows of the token table do not divide over tensor = 2 devices",
        "UserError: linear + cross-entropy: 3 columns of the token table do not divide over fsdp = 2 devices",
        "UserError: linear + cross-entropy: 3 rows of a batch do not divide over slice x data x fsdp = 2 devices",
        "UserError: linear + cross-entropy: 5 positions do not divide over context = 2 devices",
    ]
    for message, pattern in zip(said, patterns, strict=True):
        assert message.startswith(pattern)
        assert "choose a MeshConfig that divides them, or bind LogicalAxes." in message
