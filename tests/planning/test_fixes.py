"""Which changes are looked at, and in which order."""

import contextlib

from aya_jax.config import ConfigError
from aya_jax.planning.fixes import changes
from tests.planning.plans import tiny


def test_one_knob_before_two_and_the_smallest_turn_first():
    found = [change.bindings for change in changes(tiny("v5e-16", batch=16))]
    assert found[:2] == [("PrecisionConfig.remat=dots",), ("PrecisionConfig.remat=full",)]
    assert found[2:6] == [(f"TrainConfig.accumulation={parts}",) for parts in (2, 4, 8, 16)]
    assert found[6:9] == [(f"MeshConfig.tensor={size}",) for size in (2, 4, 8)]
    assert found[12:16] == [(f"TARGET=v5e-{chips}",) for chips in (32, 64, 128, 256)]
    counts = [len(bindings) for bindings in found]
    assert counts == sorted(counts)
    assert len(set(found)) == len(found)


def test_a_change_is_what_its_bindings_say():
    """Resolved from the bindings, the plan is the one that was looked at; the batch is the user's."""
    looked_at = 0
    for change in list(changes(tiny("v5e-16", batch=64)))[::17]:
        with contextlib.suppress(ConfigError):  # a mesh that does not divide the batch
            assert tiny("v5e-16", *change.bindings, batch=64) == change.plan, change.bindings
            looked_at += 1
        assert change.plan.train.data.global_batch == 64
    assert looked_at > 10


def test_nothing_stronger_than_what_is_there():
    found = [change.bindings for change in changes(tiny("v5e-256", "PrecisionConfig.remat='full'", batch=256))]
    assert not [bindings for bindings in found if any("remat" in b or "TARGET" in b for b in bindings)]


def test_a_mesh_without_a_free_axis_keeps_its_axes():
    found = [change.bindings for change in changes(tiny("v5e-16", "MeshConfig.fsdp=16"))]
    assert not [bindings for bindings in found if any("MeshConfig" in binding for binding in bindings)]
