"""Memory of the head and its loss on TPUs, as libtpu compiles them; no TPU is needed, and nothing runs.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost python tools/bench/cross_entropy_tpu.py

Temporary memory (beside inputs and gradients) of loss and gradients with z-loss, 256,000 rows, bfloat16 activations: one device
with a bfloat16 table, then eight chips with a float32 one. Prints the tables of docs/kernels.md. Needs the extra `tpu`.
"""

from __future__ import annotations

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aya_jax.kernels.cross_entropy import linear_cross_entropy
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import partition_spec

VOCAB, GIB = 256_000, 2**30
SHAPES = (("v5e:2x2", 8192, 1024), ("v5e:2x2", 8192, 4096), ("v5p:2x2x1", 8192, 8192), ("v5p:2x2x1", 32768, 4096))
MESHES = ({"fsdp": 8}, {"fsdp": 4, "tensor": 2}, {"fsdp": 2, "tensor": 4})


def main() -> None:
    """Prints both tables."""
    print(f"libtpu {importlib.metadata.version('libtpu')}, JAX {jax.__version__}\n")
    print("| tokens x width | `pallas_tpu` | `tiled` |\n|---|---|---|")
    for topology, tokens, width in SHAPES:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:1]
        mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        cells = [size(mesh, None, (1, tokens), width, jnp.bfloat16, name) for name in ("pallas_tpu", "tiled")]
        print(f"| {tokens:,} x {width:,} ({topology.partition(':')[0]}) | " + " | ".join(cells) + " |", flush=True)
    print("\n| mesh | `pallas_tpu` | `tiled` | `tiled`, divided by the compiler |\n|---|---|---|---|")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
    for shape in MESHES:
        mesh = make_mesh(MeshConfig(**shape), devices)
        options = (("pallas_tpu", True), ("tiled", True), ("tiled", False))
        cells = [size(mesh, LogicalAxes(), (8, 8192), 4096, jnp.float32, name, ours) for name, ours in options]
        print(f"| {' x '.join(f'{axis}={n}' for axis, n in shape.items())} | " + " | ".join(cells) + " |", flush=True)


def size(mesh, rules, tokens, width, table_dtype, name, ours=True) -> str:
    """GiB of temporaries on one device; `ours`: divided by the operation and not by the compiler."""

    def place(dims, dtype, *logical):
        spec = PartitionSpec() if rules is None else partition_spec(rules, logical)
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, spec))

    arguments = (
        place((*tokens, width), jnp.bfloat16, "batch", "sequence", None),
        place((VOCAB, width), table_dtype, "vocab", "embed"),
        place(tokens, jnp.int32, "batch", "sequence"),
    )

    def loss(hidden, table, targets):
        given = rules if ours else None
        log_probs, lse = linear_cross_entropy(hidden, table, targets, rules=given, implementation=name)
        return jnp.sum(1e-4 * lse**2 - log_probs)

    shardings = tuple(argument.sharding for argument in arguments[:2])
    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=shardings)
        memory = step.lower(*arguments).compile().memory_analysis()
    return f"{memory.temp_size_in_bytes / GIB:.2f} GiB"


if __name__ == "__main__":
    main()
