"""Compiling the real step for devices that this machine does not have, and reading what the compiler says of it."""

from __future__ import annotations

import collections
import dataclasses
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, Mesh

from aya_jax.config.errors import UserError
from aya_jax.parallel.config import MESH_AXES
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import batch_sharding
from aya_jax.planning.hlo import Collective, collectives, parse
from aya_jax.planning.targets import GIB, Target
from aya_jax.training.config import TrainConfig
from aya_jax.training.objective import make_model
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.placement import check_divides
from aya_jax.training.state import abstract_state, state_shardings
from aya_jax.training.train import compile_step

Outcome = Literal["compiled", "out of memory", "refused"]

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
# "... required for HLO temporaries (24.00G) exceeds available HBM (15.75G)", where the former is arguments, output and
# temporaries together (as programs that do fit show), and libtpu's older "Used 17.44G of 15.75G hbm".
_SIZE = r"([\d.]+)([BKMGT])"
_OUT_OF_MEMORY = re.compile(rf"\(?{_SIZE}\)? (?:exceeds available HBM|of) \(?{_SIZE}(?:\)| hbm)")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compilation said; bytes on one device.

    Attributes:
      outcome: "compiled"; "out of memory": the compiler says that the program does not fit, and how large it is; "refused":
        it says something else, in `message`.
      compiler: what compiled: "libtpu 0.0.52 for v5e:8x8", "XLA on 8 emulated CPU devices".
      seconds: how long it took.
      message: the compiler's own first sentence where it did not compile.
      arguments: state and batch.
      output: the new state and the metrics.
      aliased: the part of the output that lies where arguments lay.
      temporaries: what exists within the step at its fullest moment.
      code: the program itself.
      host: arguments, outputs and temporaries in the host's memory.
      peak: all of it at the fullest moment; with "out of memory" what the program would need.
      limit: what the compiler could have used, where it said.
      collectives: those of one step.
    """

    outcome: Outcome
    compiler: str
    seconds: float
    message: str = ""
    arguments: int = 0
    output: int = 0
    aliased: int = 0
    temporaries: int = 0
    code: int = 0
    host: int = 0
    peak: int = 0
    limit: int | None = None
    collectives: tuple[Collective, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Lowered:
    """What lowering for a platform said, without its compiler.

    Attributes:
      platform: as JAX calls it.
      seconds: how long it took.
      kernels: calls of what is not XLA's own (Triton, cuDNN), by name.
      message: why it does not lower here; empty where it does.
    """

    platform: str
    seconds: float
    kernels: dict[str, int]
    message: str = ""


def tpu_mesh(config: TrainConfig, target: Target) -> Mesh:
    """The run's mesh over a TPU's devices as the compiler describes them; needs libtpu."""
    options: dict[str, Any] = {"num_slices": config.mesh.slice} if config.mesh.slice > 1 else {}
    if target.chip.cores_in_name == 2:
        options["chip_config_name"] = "megacore"  # one device per chip
    if target.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=target.topology, **options)
    return make_mesh(config.mesh, topology.devices)


def compile_for(config: TrainConfig, mesh: Mesh, num_tasks: int, compiler: str, group: int | None = None) -> Compiled:
    """Compiles the step of a run over a mesh.

    Args:
      config: the run.
      mesh: over a topology's devices, or emulated ones.
      num_tasks: tasks whose losses the step keeps apart.
      compiler: what the result names as the compiler.
      group: devices that fast links join, in the mesh's order; None: as the devices say which slice they are of.

    Raises:
      UserError: the mesh does not divide the batch or a parameter.
    """
    lowered = lower(config, mesh, num_tasks)
    started = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return _refusal(str(error), compiler, time.monotonic() - started)
    seconds = time.monotonic() - started
    devices = list(mesh.devices.flat)
    slice_of = [getattr(d, "slice_index", 0) or 0 if group is None else i // group for i, d in enumerate(devices)]
    found = collectives(parse(compiled.as_text()), len(devices), slice_of)
    return _report(compiled.memory_analysis(), found, compiler, seconds)


def lower_for_gpu(config: TrainConfig, target: Target, num_tasks: int) -> Lowered:
    """Lowers the step, with the kernels that such a GPU would be given, for GPUs that this machine does not have."""
    device = AbstractDevice(f"NVIDIA {target.chip.name.upper()}", None, "gpu")
    shape = config.mesh.shape(target.chips * config.mesh.slice)
    mesh = AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), abstract_device=device)
    started = time.monotonic()
    try:
        text = lower(config, mesh, num_tasks).as_text()
    except (UserError, NotImplementedError, ValueError, RuntimeError) as error:
        return Lowered("cuda", time.monotonic() - started, {}, first_sentence(str(error)))
    kernels = collections.Counter(re.findall(r"stablehlo\.custom_call @([\w$.]+)", text))
    return Lowered("cuda", time.monotonic() - started, dict(kernels))


def lower(config: TrainConfig, mesh: Mesh | AbstractMesh, num_tasks: int) -> Any:
    """The run's step, traced for the mesh's platform and lowered, with the state donated as in training."""
    data = config.data
    check_divides(mesh, config.mesh.logical_axes, data.global_batch // config.accumulation, data.sequence_length)
    model = make_model(config)
    optimizer = make_optimizer(config.optimizer)
    shardings = state_shardings(mesh, model, optimizer)
    step = compile_step(config, model, optimizer, shardings, num_tasks)
    state = abstract_state(model, optimizer, shardings)
    more = config.objective.fields if config.objective else ()
    kinds = dict.fromkeys(("tokens", "targets", "segment_ids", "positions", "task_ids"), jnp.int32)
    batch = {
        name: jax.ShapeDtypeStruct(
            (data.global_batch, data.sequence_length), kind, sharding=batch_sharding(mesh, model.rules)
        )
        for name, kind in (kinds | dict.fromkeys(("loss_weights", *more), jnp.float32)).items()
    }
    if isinstance(mesh, Mesh):
        with jax.set_mesh(mesh):
            return step.lower(state, batch)
    with jax.sharding.use_abstract_mesh(mesh):
        return step.trace(state, batch).lower(lowering_platforms=("cuda",))


def _report(memory: Any, found: Sequence[Collective], compiler: str, seconds: float) -> Compiled:
    output_apart = memory.output_size_in_bytes - memory.alias_size_in_bytes
    code = memory.generated_code_size_in_bytes
    held = memory.argument_size_in_bytes + output_apart + memory.temp_size_in_bytes + code
    host = (memory.host_argument_size_in_bytes, memory.host_output_size_in_bytes, memory.host_temp_size_in_bytes)
    return Compiled(
        outcome="compiled",
        compiler=compiler,
        seconds=seconds,
        arguments=memory.argument_size_in_bytes,
        output=memory.output_size_in_bytes,
        aliased=memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=code,
        host=sum(host) - memory.host_alias_size_in_bytes,
        peak=held,
        collectives=tuple(found),
    )


def _refusal(text: str, compiler: str, seconds: float) -> Compiled:
    """What a failed compilation says: how large the program would be where memory is the matter, else one sentence."""
    message = first_sentence(text)
    found = _OUT_OF_MEMORY.search(text)
    if found is None:
        return Compiled("refused", compiler, seconds, message)
    needed, limit = (round(float(found[i]) * _UNITS[found[i + 1]]) for i in (1, 3))
    return Compiled("out of memory", compiler, seconds, message, peak=needed, limit=limit)


def first_sentence(text: str) -> str:
    """The first sentence of a compiler's message, without the status code before it."""
    plain = " ".join(
        re.sub(r"^(?:[A-Z_]{4,}|INTERNAL|Error)[:!]\s*", "", line.strip()) for line in text.strip().splitlines()[:6]
    )
    sentence = re.match(r".*?[.!?](?=\s[A-Z]|$)", plain)
    return (sentence[0] if sentence else plain)[:300]


def emulated_mesh(config: TrainConfig, count: int) -> Mesh:
    """The run's mesh over this process's emulated CPU devices."""
    if len(jax.devices()) < count:
        raise UserError(f"this process has {len(jax.devices())} devices, not {count}")
    return make_mesh(config.mesh, jax.devices()[:count])
