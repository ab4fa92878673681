"""Changes to a run that may make it fit, the smallest first."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from aya_jax.planning.config import PlanConfig
from aya_jax.planning.targets import named, sizes

# What is recomputed, from nothing to everything.
_REMAT = ("none", "dots", "full")
_MAX_ACCUMULATION = 64
_MAX_AXIS = 8


@dataclasses.dataclass(frozen=True)
class Change:
    """A change to a plan.

    Attributes:
      bindings: the gin bindings that make it.
      plan: the plan with them.
    """

    bindings: tuple[str, ...]
    plan: PlanConfig


def changes(plan: PlanConfig) -> Iterator[Change]:
    """Every change that is looked at, in the order in which a user would rather make it.

    One knob before two, two before three; among as many, remat before accumulation, then the tensor and context axes, then
    more chips; of one knob the smallest turn first. The global batch and the sequence stay, so that the run is the same run;
    whether the mesh still divides them is left to who estimates the change.
    """
    knobs = [_remat(plan), _accumulation(plan), _axis(plan, "tensor"), _axis(plan, "context"), _chips(plan)]
    turns = [[(index, *turn) for index, turn in enumerate(knob)] for knob in knobs]
    for count in (1, 2, 3):
        for chosen in itertools.combinations(turns, count):
            for combination in sorted(itertools.product(*chosen), key=lambda c: [index for index, _, _ in c][::-1]):
                yield _apply(plan, combination)


def _apply(plan: PlanConfig, combination: tuple[tuple[int, str, object], ...]) -> Change:
    train, target = plan.train, plan.target
    bindings = []
    for _, name, value in combination:
        if name == "TARGET":
            target = str(value)
        elif name == "TrainConfig.accumulation":
            train = dataclasses.replace(train, accumulation=value)
        elif name == "PrecisionConfig.remat":
            train = dataclasses.replace(train, precision=dataclasses.replace(train.precision, remat=value))
        else:
            axis = name.partition(".")[2]
            train = dataclasses.replace(train, mesh=dataclasses.replace(train.mesh, **{axis: value}))
        bindings.append(f"{name}={value}")
    return Change(tuple(bindings), dataclasses.replace(plan, train=train, target=target))


def _remat(plan: PlanConfig) -> list[tuple[str, object]]:
    now = plan.train.precision.remat
    stronger = _REMAT[_REMAT.index(now) + 1 :] if now in _REMAT else ()
    return [("PrecisionConfig.remat", policy) for policy in stronger]


def _accumulation(plan: PlanConfig) -> list[tuple[str, object]]:
    found, parts = [], 2 * plan.train.accumulation
    while parts <= _MAX_ACCUMULATION and plan.train.data.global_batch % parts == 0:
        found.append(("TrainConfig.accumulation", parts))
        parts *= 2
    return found


def _axis(plan: PlanConfig, axis: str) -> list[tuple[str, object]]:
    """Larger sizes of a mesh axis, where another axis is -1 and gives way."""
    mesh = plan.train.mesh
    now = getattr(mesh, axis)
    if -1 not in (mesh.data, mesh.fsdp) or now == -1:
        return []
    return [(f"MeshConfig.{axis}", size) for size in (2, 4, 8) if now < size <= _MAX_AXIS]


def _chips(plan: PlanConfig) -> list[tuple[str, object]]:
    machine = plan.machine()
    larger = [count for count in sizes(machine.chip) if count > machine.chips]
    return [("TARGET", named(machine.chip, count)) for count in larger[:4]]
