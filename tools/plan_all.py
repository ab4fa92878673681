"""The table of docs/plan.md: every model of gin/models on every target, planned one after the other.

    python tools/plan_all.py --out runs/plans --compile --minutes 60    compiles what is not there yet, small models first
    python tools/plan_all.py --out runs/plans                           estimates what is still missing, writes the table

One row of the model's longest sequence, at most 8,192 tokens, to each chip. Each plan is one JSON file in --out: what is there
is not planned again, so the tool can be stopped and started. Compiling for a TPU needs libtpu and takes minutes each.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from aya_jax.config import UserError, resolve
from aya_jax.planning.config import PlanConfig
from aya_jax.planning.plan import plan
from aya_jax.planning.targets import GIB, find

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/plan.md"
MARKS = ("<!-- tools/plan_all.py: begin -->", "<!-- end -->")
TARGETS = ("v5p-128", "v5e-256", "v6e-256", "v4-128", "h200-8", "h200-1")
# Smallest first; what comes twice in one shape comes next to each other.
MODELS = (
    "test",
    "25m",
    "470m",
    "2_8b",
    "aya_23_8b",
    "aya_expanse_8b",
    "llama3_8b",
    "command_r7b",
    "aya_expanse_32b",
    "aya_23_35b",
)
NOT_IN_SHAPE = ("logit_scale", "rope_theta", "max_sequence_length")


def configuration(model: str, target: str) -> PlanConfig:
    """The plan of one cell; only estimates changes."""
    machine = find(target)
    files = ["plan/base.gin", "train/pretrain.gin", f"models/{model}.gin"]
    files.append(f"hardware/{machine.chip.platform}.gin")
    bindings = [f"TARGET={target}", f"GLOBAL_BATCH={machine.chips}", "PlanConfig.confirm=0"]
    longest = resolve(PlanConfig, files, [*bindings, "SEQUENCE_LENGTH=1024"]).config.train.model.max_sequence_length
    return resolve(PlanConfig, files, [*bindings, f"SEQUENCE_LENGTH={min(longest, 8192)}"]).config


def shape(config: PlanConfig) -> dict[str, Any]:
    """What decides the memory of a model: its configuration without plain factors."""
    model = dataclasses.asdict(config.train.model)
    return {name: value for name, value in model.items() if name not in NOT_IN_SHAPE}


def find_twin(out: Path, model: str, target: str) -> str | None:
    """An earlier model of the same shape."""
    own = shape(configuration(model, target))
    earlier = MODELS[: MODELS.index(model)]
    return next((other for other in earlier if shape(configuration(other, target)) == own), None)


def fill(out: Path, compiles: bool, deadline: float, models: list[str], targets: list[str]) -> None:
    """Plans the cells that are missing; a compiled one replaces an estimate."""
    console = Console()
    for model in models:
        for target in targets:
            file = out / f"{model}-{target}.json"
            there = json.loads(file.read_text()) if file.exists() else None
            if time.monotonic() > deadline or find_twin(out, model, target):
                continue
            if there and (there["compiled"] or not compiles or target == "h200-1"):
                continue
            config = dataclasses.replace(configuration(model, target), compile=compiles)
            started = time.monotonic()
            try:
                found = plan(config, console)
            except UserError as error:
                console.print(f"{model} on {target}: {error}", highlight=False)
                continue
            found |= {"date": datetime.date.today().isoformat(), "wall_seconds": time.monotonic() - started}
            out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n")
            console.print(f"{model} on {target}: {cell(found)} ({found['wall_seconds']:.0f} s)", highlight=False)


def cell(found: dict[str, Any]) -> str:
    """Memory, and the bounds of the step where it fits or else what would make it fit."""
    size = found["peak"] / GIB if found["peak"] else float("nan")
    text = f"{size:.1f}" if found["by"] == "compiled" else f"~{size:.1f}"
    if found["fits"]:
        line = found["roofline"]
        bound = f"{line['mfu_bound']:.0%}" if line["link_bytes"] is not None or found["devices"] == 1 else "?"
        return f"{text}; {bound}"
    fix = found["fix"]
    return f"**{text}**; " + (", ".join(b.rpartition(".")[2] for b in fix["bindings"]) if fix else "no fix found")


def table(out: Path) -> str:
    """The table as Markdown."""
    usable = {target: find(target).chip.usable / GIB for target in TARGETS}
    rows = ["| model | " + " | ".join(f"{target} ({usable[target]:.1f})" for target in TARGETS) + " |"]
    rows.append("| --- |" + " --- |" * len(TARGETS))
    for model in MODELS:
        cells = []
        for target in TARGETS:
            twin = find_twin(out, model, target)
            file = out / f"{twin or model}-{target}.json"
            cells.append(cell(json.loads(file.read_text())) if file.exists() else "")
        rows.append(f"| {model}{f' (shape of {twin})' if twin else ''} | " + " | ".join(cells) + " |")
    dates = sorted({json.loads(f.read_text())["date"] for f in out.glob("*.json")})
    found = [json.loads(f.read_text()) for f in out.glob("*.json")]
    compilers = sorted({f["compiled"]["compiler"].split(" for ")[0] for f in found if f["by"] == "compiled"})
    heading = f"Found on {', '.join(dates)}"
    heading += (
        f", compiled by {', '.join(compilers)} where no ~ stands before the figure."
        if compilers
        else "; all estimated."
    )
    return "\n".join([heading, "", *rows])


def main() -> None:
    """Plans and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e6, help="no new plan is begun after so many")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    fill(arguments.out, arguments.compile, deadline, arguments.models, arguments.targets)
    if PAGE.exists():
        page = PAGE.read_text(encoding="utf-8")
        begin, end = (page.index(mark) for mark in MARKS)
        PAGE.write_text(f"{page[: begin + len(MARKS[0])]}\n{table(arguments.out)}\n{page[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
