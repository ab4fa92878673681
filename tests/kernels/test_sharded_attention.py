"""Attention over a mesh gives what it gives on one device; positions are dealt so that devices work alike."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.kernels.attention.sharded import chunk_order, to_shards
from aya_jax.parallel.config import LogicalAxes
from tests import eight_devices


def case(mesh, *, kv_heads=4, segments=True, window=None, **rules):
    return {"mesh": mesh, "kv_heads": kv_heads, "segments": segments, "window": window, "rules": rules}


CASES = [
    case({"fsdp": 2, "context": 4}),
    case({"fsdp": 2, "context": 4}, segments=False),
    case({"fsdp": 1, "context": 8}, window=9),
    case({"fsdp": 2, "context": 2, "tensor": 2}, window=20),
    case({"fsdp": 2, "tensor": 4}),
    case({"fsdp": 1, "tensor": 8}, kv_heads=2, kv_heads_=None),
    case({"fsdp": 2, "tensor": 4}, kv_heads=8),
    case({"fsdp": 1, "tensor": 4, "data": 2}, kv_heads=16, kv_heads_=None),
    case({"slice": 2, "fsdp": 2, "context": 2}, sequence=["context"]),
]


def test_a_mesh_gives_what_one_device_gives():
    """In a process of its own: the number of devices is fixed when JAX starts."""
    cases = [each | {"rules": {name.rstrip("_"): axes for name, axes in each["rules"].items()}} for each in CASES]
    printed = eight_devices.run("-m", "tests.kernels.emulated_sharded", json.dumps(cases))
    results = [json.loads(line) for line in printed.splitlines()]
    assert len(results) == len(cases)
    for each, result in zip(cases, results, strict=True):
        # Output, and gradients of query, key and value; entries are of order 1.
        assert max(result) < 2e-5, (each, result)


@given(st.integers(1, 64))
def test_every_device_has_the_same_causal_work(parts):
    order = chunk_order(parts)
    assert sorted(order) == list(range(2 * parts))
    # Chunk c of a causal sequence meets c whole chunks and half of itself.
    assert len({float(np.sum(pair + 0.5)) for pair in order.reshape(parts, 2)}) == 1


def test_without_a_mesh_positions_stay():
    array = jnp.arange(6).reshape(1, 6)
    assert to_shards(array, LogicalAxes()) is array


@pytest.mark.parametrize(
    ("mesh", "shape", "message"),
    [
        ({"context": 2}, (8, 6, 4, 8), "a sequence of 6 tokens does not divide into 4 chunks"),
        ({"tensor": 8}, (8, 8, 4, 8), "4 query heads do not divide over tensor = 8 devices"),
        ({"fsdp": 8}, (4, 8, 4, 8), r"4 rows of a batch do not divide over slice x data x fsdp = 8 devices"),
    ],
)
def test_what_does_not_divide_is_named(mesh, shape, message):
    import jax
    from jax.sharding import AbstractMesh, AxisType

    from aya_jax.config import UserError
    from aya_jax.kernels.attention.sharded import sharded_attention
    from aya_jax.parallel.config import MESH_AXES, MeshConfig

    abstract = AbstractMesh(MeshConfig(**mesh).shape(8), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
    rules = LogicalAxes()

    def run(array):
        array = to_shards(array, rules)
        return sharded_attention(array, array, array, rules=rules)

    with jax.sharding.use_abstract_mesh(abstract), pytest.raises(UserError, match=message):
        jax.eval_shape(run, jax.ShapeDtypeStruct(shape, jnp.float32))
