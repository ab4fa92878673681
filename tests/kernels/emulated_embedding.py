"""Run by test_embedding.py with eight emulated devices: prints, per case, the largest difference and the collectives."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from aya_jax.kernels.embedding import lookup
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import partition_spec

ROWS, WIDTH, BATCH, LENGTH = 48, 32, 8, 16


def compare(case):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.standard_normal((ROWS, WIDTH)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, ROWS, (BATCH, LENGTH)), jnp.int32)
    grad = jnp.asarray(rng.standard_normal((BATCH, LENGTH, WIDTH)), jnp.float32)
    rules = LogicalAxes(**{name: tuple(axes) if axes else None for name, axes in case["rules"].items()})
    mesh = make_mesh(MeshConfig(**case["mesh"]))

    def run(table, tokens):
        rows, back = jax.vjp(lambda table: lookup(table, tokens, rules=rules, dtype=jnp.float32), table)
        return rows, back(grad)[0]

    places = NamedSharding(mesh, partition_spec(rules, ("vocab", "embed")))
    with jax.set_mesh(mesh):
        placed = jax.device_put(table, places)
        split = jax.device_put(tokens, NamedSharding(mesh, partition_spec(rules, ("batch", "sequence"))))
        compiled = jax.jit(run, out_shardings=(None, places)).lower(placed, split).compile()
        rows, gradient = jax.device_get(compiled(placed, split))
    expected = np.zeros_like(table)
    np.add.at(expected, tokens, grad)
    found = set(re.findall(r"\b(all-gather|all-to-all|all-reduce|reduce-scatter)(?:-start)?\(", compiled.as_text()))
    whole = f"f32[{ROWS},{WIDTH}]" in compiled.as_text()
    return {
        "rows": float(np.max(np.abs(rows - np.asarray(table)[tokens]))),
        "gradient": float(np.max(np.abs(gradient - expected))),
        "collectives": sorted(found),
        "whole table": whole,
    }


if __name__ == "__main__":
    for case in json.loads(sys.argv[1]):
        print(json.dumps(compare(case)), flush=True)
