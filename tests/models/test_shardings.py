"""Every parameter's and activation's sharding under every preset, pinned.

`python -m tests.models.presets > tests/models/golden/shardings.json` writes them anew.
"""

import json
import math

import pytest

from tests.models.presets import DEVICES, GOLDEN, PRESETS, mesh_config, shardings


def test_every_preset_is_pinned():
    assert sorted(json.loads(GOLDEN.read_text())) == sorted(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_shardings_are_those_of_the_golden_file(preset):
    assert shardings(preset) == json.loads(GOLDEN.read_text())[preset]


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset != "replicated"])
def test_every_matrix_is_divided_over_all_devices_of_a_slice(preset):
    """What FSDP is for: no device holds a whole copy of anything large."""
    found = shardings(preset)
    within = DEVICES // found["mesh"]["slice"]
    for parameters in found["parameters"].values():
        for name, spec in parameters.items():
            if "norm" in name:
                continue
            axes = spec.replace("+", " ").replace("-", "").split()
            parts = math.prod(found["mesh"][axis] for axis in axes)
            assert parts == within, (name, spec)


def test_a_preset_says_which_dims_it_moves():
    assert mesh_config("fsdp_context").logical_axes.embed == ("fsdp", "context")
    assert mesh_config("fsdp").logical_axes.embed == "fsdp"
