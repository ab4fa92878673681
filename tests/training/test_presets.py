"""Every mesh preset on eight emulated devices trains as one device does: packed, in two parts, twenty steps.

Tolerances, absolute in float32: 1e-5 on a loss of about 5, 1e-4 on parameters that moved by about 0.1. Rounding alone
differs by a tenth of that; one row, mask or sum that is missing, by more than a thousand times as much.
"""

import json

import pytest

from tests import eight_devices
from tests.models.presets import PRESETS


def check_trains_as_one_device(block, presets):
    printed = eight_devices.run("-m", "tests.training.emulated_presets", block, *presets, timeout=900)
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["preset"] for result in results] == list(presets)
    for result in results:
        assert result["fell"] > 1, "the model learned nothing: there is nothing to compare"
        assert result["loss"] < 1e-5, result
        assert result["params"] < 1e-4, result


@pytest.mark.parametrize(
    ("block", "preset"),
    [pytest.param("cohere2", "fsdp_context", marks=pytest.mark.slow), ("llama", "fsdp_tensor")],
)
def test_a_preset_that_divides_layers_equals_one_device(block, preset):
    check_trains_as_one_device(block, (preset,))


@pytest.mark.slow
@pytest.mark.parametrize("block", ["cohere", "cohere2", "llama"])
def test_every_preset_equals_one_device(block):
    check_trains_as_one_device(block, PRESETS)
