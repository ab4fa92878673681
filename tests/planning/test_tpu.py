"""Compiling for TPUs with libtpu, which has to be installed beside JAX (the extra `tpu`)."""

import importlib.util
import io

import pytest
from rich.console import Console

from aya_jax.planning.plan import look_at, plan
from tests.planning.plans import tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (the extra `tpu`)"),
]
QUIET = Console(file=io.StringIO())


@pytest.mark.parametrize(("target", "batch"), [("v4-16", 8), ("v5e-4", 8), ("v5p-8", 8), ("v6e-1", 8)])
def test_every_kind_of_chip(target, batch):
    found = look_at(tiny(target, hardware="tpu", batch=batch), QUIET)
    compiled = found["compiled"]
    assert (compiled["outcome"], found["by"], found["fits"]) == ("compiled", "compiled", True)
    # Tiles of 8 x 128 pad the small arrays of a model of width 64.
    assert found["estimate"]["arguments"] <= compiled["arguments"] < 4 * found["estimate"]["arguments"] + 2**20
    assert compiled["aliased"] > 0.9 * (compiled["output"] - 2**16)


def test_too_large_is_a_result_with_the_exact_figure():
    config = tiny(
        "v5e-1", "TransformerConfig.vocab_size=16000000", "PlanConfig.look_for_fix=False", hardware="tpu", batch=1
    )
    found = plan(config, QUIET)
    assert found["compiled"]["outcome"] == "out of memory"
    assert (found["compiled"]["limit"], found["fits"]) == (15.75 * 2**30, False)
    assert found["peak"] > 15.75 * 2**30


def test_two_slices_share_the_slower_network():
    found = look_at(tiny("v5e-4", "MeshConfig.slice=2", hardware="tpu", batch=8), QUIET)
    assert found["devices"] == 8
    assert found["roofline"]["network_bytes"] > 0
