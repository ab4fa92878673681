"""`aya plan`: will this training run fit on that machine, how fast can it be at most, and if not, what would help."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import write_atomic
from aya_jax.planning.ask import ask
from aya_jax.planning.config import PlanConfig
from aya_jax.planning.fixes import changes
from aya_jax.planning.report import render
from aya_jax.planning.worker import Job

_ESTIMATE_TIMEOUT = 300
# A compiler is smarter or less smart than the estimate by a factor that the same model keeps under small changes.
_CALIBRATION = (0.5, 3.0)


def run(resolved: Resolved[PlanConfig]) -> None:
    """Prints the plan, and writes it as JSON where one is asked for.

    Raises:
      UserError: the run cannot be laid out over the machine, or the compiler cannot be run.
    """
    console = Console()
    found = plan(resolved.config, console)
    if resolved.config.json is not None:
        write_atomic(resolved.config.json, json.dumps(found | {"fingerprint": resolved.fingerprint}, indent=2) + "\n")
    console.print(render(found))
    if resolved.config.json is not None:
        console.print(f"All of it is in {resolved.config.json}.", highlight=False)


def plan(config: PlanConfig, console: Console) -> dict[str, Any]:
    """What is found about a plan, as JSON values.

    Raises:
      UserError: see `run`.
    """
    found = look_at(config, console)
    refused = found["compiled"] is not None and found["compiled"]["outcome"] == "refused"
    if found["fits"] or refused or not config.look_for_fix:
        return found | {"fix": None}
    return found | {"fix": find_fix(config, found, console)}


def look_at(config: PlanConfig, console: Console) -> dict[str, Any]:
    """One plan: estimated, and compiled where there is a compiler for it."""
    machine, train = config.machine(), config.train
    devices = machine.chips * train.mesh.slice
    gpu, describe = machine.chip.platform == "gpu", Job("describe", (config,))
    note = ""
    if not config.compile or (gpu and devices == 1):  # one device has no collectives to look for
        answers = ask(describe, console, f"Estimating for {machine.name}", _ESTIMATE_TIMEOUT)
    else:
        try:
            answers = ask(Job("compile", (config,)), console, f"Compiling for {machine.name}", config.timeout)
        except UserError as error:
            if not gpu:
                raise
            note = str(error)  # without the collectives there is still the estimate
            answers = ask(describe, console, f"Estimating for {machine.name}", _ESTIMATE_TIMEOUT)
    found = only(answers)
    peak, by = peak_of(found, machine.chip.platform)
    return {
        "target": machine.name,
        "slices": train.mesh.slice,
        "chip": dataclasses.asdict(machine.chip) | {"shapes": None},
        "model": dataclasses.asdict(train.model),
        "precision": dataclasses.asdict(train.precision),
        "global_batch": train.data.global_batch,
        "sequence_length": train.data.sequence_length,
        "accumulation": train.accumulation,
        **found,
        "note": note,
        "peak": peak,
        "usable": machine.chip.usable,
        "by": by,
        "fits": peak is not None
        and peak <= machine.chip.usable
        and (found["compiled"] or {}).get("outcome") != "out of memory",
    }


def peak_of(found: dict[str, Any], platform: str) -> tuple[float | None, str]:
    """The memory that a plan needs on one device, and whether it is "compiled" or "estimated".

    Programs for emulated devices have a CPU's temporaries, so a GPU's plan is estimated whatever was compiled.
    """
    compiled = found["compiled"]
    if compiled is None or platform == "gpu":
        return found["estimate"]["peak"], "estimated"
    return (compiled["peak"] or None), "compiled"


def find_fix(config: PlanConfig, found: dict[str, Any], console: Console) -> dict[str, Any] | None:
    """The smallest change that makes a plan fit, or None where none of those that are looked at does.

    All changes are estimated, their temporaries in the proportion in which the compiler's were to the estimate's. Where there
    is a compiler the first that fit are compiled, until one does fit.
    """
    candidates = list(changes(config))
    if not candidates:
        return None
    job = Job("estimate", tuple(change.plan for change in candidates))
    estimates = ask(job, console, f"Estimating {len(candidates)} changes", _ESTIMATE_TIMEOUT)
    ratio = calibration(found)
    confirm = config.confirm if found["by"] == "compiled" else 0
    tried = []
    for change, estimate in zip(candidates, estimates, strict=True):
        if "refused" in estimate:
            continue
        peak = estimate["arguments"] + ratio * estimate["temporaries"]
        if peak > change.plan.machine().chip.usable:
            continue
        if confirm == 0:
            return {"bindings": change.bindings, "peak": peak, "by": "estimated", "tried": tried}
        confirm -= 1
        seen = look_at(change.plan, console)
        if seen["fits"]:
            return {"bindings": change.bindings, "peak": seen["peak"], "by": "compiled", "tried": tried}
        tried.append({"bindings": change.bindings, "peak": seen["peak"], "outcome": seen["compiled"]["outcome"]})
        if seen["peak"]:
            ratio = max(ratio, calibration(seen))
    return None


def calibration(found: dict[str, Any]) -> float:
    """The compiler's temporaries over the estimate's; 1 where nothing was compiled for the target itself."""
    if found["by"] != "compiled" or not found["peak"]:
        return 1.0
    low, high = _CALIBRATION
    measured = (found["peak"] - found["estimate"]["arguments"]) / found["estimate"]["temporaries"]
    return min(max(measured, low), high)


def only(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The one answer.

    Raises:
      UserError: the plan was refused.
    """
    if "refused" in answers[0]:
        raise UserError(answers[0]["refused"])
    return answers[0]
