"""The decode engine's programs as libtpu compiles them; no TPU is needed, and nothing runs.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost python tools/bench/engine_tpu.py \
        [gin/models/aya_expanse_8b.gin] [--topology v5e:2x4] [--slots 32] [--length 8192]

bfloat16, matrices divided over all chips. For each program, memory of one chip: what it is given (weights, cache), what it
takes beside that, and what of its output lies where its input lay. Needs the extra `tpu`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from train_step import read_model

from aya_jax.inference.decoder import Decoder
from aya_jax.inference.engine import MAX_STOP_IDS
from aya_jax.inference.programs import Chunk, Options, Programs, Slots
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.state import abstract_params

MIB, CHUNK = 2**20, 128


def main() -> None:
    """Prints a line for each program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="gin/models/aya_expanse_8b.gin")
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--length", type=int, default=8192)
    arguments = parser.parse_args()
    devices = topologies.get_topology_desc(platform="tpu", topology_name=arguments.topology).devices
    mesh = make_mesh(MeshConfig(fsdp=1, tensor=-1), devices)
    print(f"{Path(arguments.model).stem}, {arguments.slots} slots of {arguments.length:,}, {arguments.topology}")
    print(f"libtpu {importlib.metadata.version('libtpu')}, JAX {jax.__version__}\n")
    print("| program | given | beside that | output in place |\n| --- | ---: | ---: | ---: |")
    for name, compiled in compile_programs(read_model(arguments.model), mesh, arguments.slots, arguments.length):
        memory = compiled.memory_analysis()
        sizes = (memory.argument_size_in_bytes, memory.temp_size_in_bytes, memory.alias_size_in_bytes)
        print(f"| {name} | " + " | ".join(f"{size / MIB:,.0f} MiB" for size in sizes) + " |", flush=True)


def compile_programs(config: TransformerConfig, mesh: Mesh, slots: int, length: int) -> Iterator[tuple[str, Any]]:
    """(name, compiled) of each of the engine's programs over a mesh of devices that need not be here."""
    model = Transformer(config, PrecisionConfig(params="bfloat16", compute="bfloat16"), MeshConfig().logical_axes)
    like = abstract_params(model, mesh, "bfloat16")  # before the mesh is set: it makes a key, on a device
    with jax.set_mesh(mesh):
        decoder = Decoder.of(model)
        programs = Programs(decoder, slots, decode_steps=8)
        params = _result(decoder.lay_out, like)
        state = _result(lambda: programs.empty_state(length, CHUNK, "bfloat16"))
        standing = _standing(slots)
        for name, top in (("decode", None), ("decode with log-probabilities", 0)):
            yield name, programs.decode.lower(params, state, standing, False, span=length, top=top).compile()
        chunk = Chunk(*np.zeros((2, 1, CHUNK), np.int32), *np.zeros((3, 1), np.int32))
        for name, scored in (("read a prompt", False), ("read and score a prompt", True)):
            yield name, programs.prefill.lower(params, state, chunk, span=length, scored=scored).compile()
        yield "copy a slot", programs.copy.lower(state, np.int32(0), np.int32(1)).compile()


def _result(function: Any, *arguments: Any) -> Any:
    """What a function of arrays would give, as shapes with the shardings that the compiler chooses."""
    shardings = jax.jit(function).lower(*arguments).compile().output_shardings
    return jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        jax.eval_shape(function, *arguments),
        shardings,
    )


def _standing(slots: int) -> Slots:
    whole, real = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
    options = Options(real, whole, real, real, real, np.zeros((slots, 2), np.uint32))
    return Slots(whole, np.zeros(slots, bool), whole, whole, np.zeros((slots, MAX_STOP_IDS), np.int32), options)


if __name__ == "__main__":
    main()
