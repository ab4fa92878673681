"""Run by test_sharded_attention.py with eight emulated devices: prints the largest difference from one device, per case."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from aya_jax.kernels.attention import attention
from aya_jax.kernels.attention.sharded import from_shards, sharded_attention, to_shards
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import partition_spec

BATCH, LENGTH, HEADS, WIDTH = 4, 64, 16, 8


def arrays(kv_heads):
    rng = np.random.default_rng(0)
    shapes = [(BATCH, LENGTH, heads, WIDTH) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    query, key, value, grad = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)
    segment_ids = jnp.asarray(1 + np.cumsum(rng.random((BATCH, LENGTH)) < 0.05, axis=1), jnp.int32)
    return query, key, value, grad, segment_ids


def worst(case):
    query, key, value, grad, segment_ids = arrays(case["kv_heads"])
    segment_ids = segment_ids if case["segments"] else None
    mask = {"causal": True, "window": case["window"]}
    rules = LogicalAxes(**{name: tuple(axes) if axes else None for name, axes in case["rules"].items()})
    mesh = make_mesh(MeshConfig(**case["mesh"]))

    def one(query, key, value):
        return attention(query, key, value, segment_ids=segment_ids, **mask)

    def many(query, key, value):
        inputs = (to_shards(array, rules) for array in (query, key, value))
        segments = None if segment_ids is None else to_shards(segment_ids, rules)
        return from_shards(sharded_attention(*inputs, rules=rules, segment_ids=segments, **mask), rules)

    def run(function, inputs):
        output, back = jax.vjp(function, *inputs)
        return output, *back(grad)

    expected = jax.jit(lambda *inputs: run(one, inputs))(query, key, value)
    names = ("heads", "kv_heads", "kv_heads")
    with jax.set_mesh(mesh):
        placed = [
            jax.device_put(array, NamedSharding(mesh, partition_spec(rules, ("batch", "sequence", heads, None))))
            for array, heads in zip((query, key, value), names, strict=True)
        ]
        found = jax.jit(lambda *inputs: run(many, inputs))(*placed)
    return [float(jnp.max(jnp.abs(a - jax.device_get(b)))) for a, b in zip(expected, found, strict=True)]


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        print(json.dumps(worst(case)), flush=True)
