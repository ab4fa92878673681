"""What is planned: a training run, and the machine that it is to run on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from aya_jax.config.errors import UserError, near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.planning.targets import GIB, Target, find, names
from aya_jax.training.config import TrainConfig

# Field of PlanConfig → field of Chip, and what one of the former is in the latter's unit.
_OVERRIDES = {
    "usable_gib": ("usable", GIB),
    "peak_tflops": ("flops", 1e12),
    "memory_gb_per_second": ("memory_bandwidth", 1e9),
    "link_gb_per_second": ("link_bandwidth", 1e9),
    "network_gb_per_second": ("network_bandwidth", 1e9),
}


@configurable
@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Root of `aya plan`: will this training run fit on that machine, and how fast can it be at most?

    Attributes:
      train: the run, as `aya train` would take it. Nothing is read from its directories and nothing is written there.
      target: the machine; bind TARGET. "v4-128", "v5p-128": the number counts cores, two to a chip; "v5e-256", "v6e-256",
        "h200-8", "h100-8", "a100-8": chips. MeshConfig.slice of them, joined by the slower network.
      json: a file for everything that was found, as JSON; None writes none. Bind PLAN_JSON.
      num_tasks: tasks whose losses the step keeps apart.
      compile: compiles the step for a TPU target, which takes minutes; False only estimates.
      look_for_fix: where the run does not fit, looks for the smallest change that would make it fit.
      confirm: such changes that are compiled at most, each as long as the first; 0 only estimates them.
      timeout: seconds that one compilation may take.
      usable_gib: memory of one chip that a program can have; None: the table's.
      peak_tflops: dense bf16 peak of one chip; None: the table's.
      memory_gb_per_second: memory bandwidth of one chip; None: the table's.
      link_gb_per_second: what one chip can send over its fast links; None: the table's.
      network_gb_per_second: what one chip can send beyond its slice or machine; None: the table's.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("json",)

    train: TrainConfig
    target: str
    json: str | None = None
    num_tasks: int = 27
    compile: bool = True
    look_for_fix: bool = True
    confirm: int = 2
    timeout: int = 1800
    usable_gib: float | None = None
    peak_tflops: float | None = None
    memory_gb_per_second: float | None = None
    link_gb_per_second: float | None = None
    network_gb_per_second: float | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields an unknown target and numbers out of range."""
        try:
            find(self.target)
        except UserError as error:
            expected = str(error).partition("; did you mean")[0]
            yield Problem("target", f"a machine that is known: {expected}", near_names(self.target, names()))
        for name in ("num_tasks", "timeout"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.confirm < 0:
            yield Problem("confirm", "0 or more")
        for name in _OVERRIDES:
            value = getattr(self, name)
            if value is not None and not value > 0:
                yield Problem(name, "a number above 0, or None for the table's")

    def machine(self) -> Target:
        """The target with the values that this configuration puts in place of the table's."""
        target = find(self.target)
        given = {name: getattr(self, name) for name in _OVERRIDES if getattr(self, name) is not None}
        changed = {_OVERRIDES[name][0]: value * _OVERRIDES[name][1] for name, value in given.items()}
        return dataclasses.replace(target, chip=dataclasses.replace(target.chip, **changed))
