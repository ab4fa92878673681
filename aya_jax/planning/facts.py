"""What is found out of one plan, as JSON values: estimates, a roofline, and what a compiler says."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import Any

from aya_jax.config.errors import UserError
from aya_jax.models import flops, parameters
from aya_jax.planning.compile import Compiled, compile_for, emulated_mesh, lower_for_gpu, tpu_mesh
from aya_jax.planning.config import PlanConfig
from aya_jax.planning.hlo import KINDS, Collective
from aya_jax.planning.memory import estimate, shares
from aya_jax.planning.roofline import roofline
from aya_jax.planning.worker import NO_LIBTPU
from aya_jax.training.config import TrainConfig

_LARGEST = 6


def described(plan: PlanConfig, compiled: Compiled | None = None) -> dict[str, Any]:
    """Sizes, memory by estimate and the roofline of a plan.

    Args:
      plan: the plan.
      compiled: gives the roofline its collectives.

    Raises:
      UserError: the mesh does not divide the devices, the batch or a parameter.
    """
    target, train = plan.machine(), plan.train
    devices = target.chips * train.mesh.slice
    share, memory = shares(train, devices, target.chip), estimate(train, devices, target.chip)
    found = compiled.collectives if compiled else None
    line = roofline(train, share, target, devices, found)
    return {
        "devices": devices,
        "mesh": {axis: size for axis, size in share.mesh.items() if size > 1},
        "parameters": parameters.count(train.model).total,
        "flops_per_token": flops.per_token(train.model, train.data.sequence_length),
        "tokens_per_step": train.data.global_batch * train.data.sequence_length,
        "estimate": dataclasses.asdict(memory)
        | {name: getattr(memory, name) for name in ("arguments", "temporaries", "peak")},
        "roofline": dataclasses.asdict(line)
        | {name: getattr(line, name) for name in ("overlapped", "in_turn", "mfu_bound", "mfu_in_turn")},
        "compiled": None,
        "lowered": None,
    }


def estimated(plan: PlanConfig) -> dict[str, Any]:
    """The memory of a plan by estimate.

    Raises:
      UserError: as `described`.
    """
    target = plan.machine()
    memory = estimate(plan.train, target.chips * plan.train.mesh.slice, target.chip)
    return {name: getattr(memory, name) for name in ("arguments", "temporaries", "peak")}


def compiled(plan: PlanConfig) -> dict[str, Any]:
    """`described`, with what the compiler says.

    For a TPU, the TPU's own compiler. For GPUs there is none without one: the step is lowered for CUDA, which traces the
    kernels that it would run there, and partitioned for emulated CPU devices, which gives arguments and collectives; its
    temporaries are not a GPU's.

    Raises:
      UserError: as `described`, or libtpu is missing or cannot be used.
    """
    target, train = plan.machine(), plan.train
    if target.chip.platform == "tpu":
        result, lowered = _compiled_for_tpu(plan), None
    else:
        count = target.chips * train.mesh.slice
        mesh = emulated_mesh(train, count)
        name = f"XLA on {count} emulated CPU devices"
        lowered = dataclasses.asdict(lower_for_gpu(train, target, plan.num_tasks))
        result = compile_for(as_emulated(train), mesh, plan.num_tasks, name, group=target.chip.group)
    return described(plan, result) | {"compiled": as_json(result), "lowered": lowered}


def as_emulated(train: TrainConfig) -> TrainConfig:
    """The run for emulated devices: layers in a loop, as on an accelerator, and attention by what a CPU can run."""
    precision = dataclasses.replace(train.precision, unroll=train.precision.unroll or 1, attention=None)
    return dataclasses.replace(train, precision=precision)


def as_json(result: Compiled) -> dict[str, Any]:
    """A compilation's result, its collectives summed by kind, and the largest of them one by one."""
    values = dataclasses.asdict(dataclasses.replace(result, collectives=None))
    values["collectives"] = None if result.collectives is None else by_kind(result.collectives)
    values["largest_collectives"] = [
        dataclasses.asdict(each)
        for each in sorted(result.collectives or (), key=lambda c: -c.times * (c.links + c.network))[:_LARGEST]
    ]
    return values


def by_kind(found: Iterable[Collective]) -> dict[str, dict[str, float]]:
    """How often each kind runs in a step, and the bytes that one device sends by it."""
    found = list(found)
    return {
        kind: {
            "times": sum(each.times for each in same),
            "links": sum(each.times * each.links for each in same),
            "network": sum(each.times * each.network for each in same),
        }
        for kind, same in ((kind, _of_kind(found, kind)) for kind in KINDS)
        if same
    }


def _of_kind(found: Sequence[Collective], kind: str) -> list[Collective]:
    return [each for each in found if each.kind == kind]


def _compiled_for_tpu(plan: PlanConfig) -> Compiled:
    target = plan.machine()
    try:
        version = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(NO_LIBTPU) from None
    name = f"libtpu {version} for {target.topology}"
    return compile_for(plan.train, tpu_mesh(plan.train, target), plan.num_tasks, name)
