"""A plan as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aya_jax.planning.targets import GIB

_PARTS = {
    "parameters": "parameters",
    "optimizer": "optimizer's moments",
    "batch": "batch",
    "gradients": "gradients",
    "activations": "activations kept",
    "layer": "one layer at work",
    "table": "token table, gathered",
    "logits": "logits and the table's gradient",
}
_EXACT = ("parameters", "optimizer", "batch")


def render(found: dict[str, Any]) -> Group:
    """The whole report."""
    parts: list[RenderableType] = [_heading(found), _memory(found), _step(found)]
    if (found["compiled"] or {}).get("collectives"):
        parts.append(_collectives(found))
    return Group(*parts, verdict(found))


def verdict(found: dict[str, Any]) -> Text:
    """Whether it fits, in a sentence, and what would help."""
    how, usable = found["by"], gib(found["usable"])
    outcome = (found["compiled"] or {}).get("outcome")
    if outcome == "refused":
        return Text(f"The compiler refused the program: {found['compiled']['message']}", "red")
    if found["fits"]:
        return Text(f"Fits: {gib(found['peak'])} of {usable} on each chip ({how}).", "green")
    text = Text(f"Does not fit: {gib(found['peak'])} on each chip, which has {usable} ({how}).", "red")
    if fix := found.get("fix"):
        flags = " ".join(f"--gin.{binding}" for binding in fix["bindings"])
        text.append(f"\nSmallest change that fits: {flags}\n  {gib(fix['peak'])} on each chip ({fix['by']})", "default")
        for tried in fix["tried"]:
            text.append(f"\n  tried before: {' '.join(tried['bindings'])}: {tried['outcome']}", "default")
    elif "fix" in found:
        text.append(
            "\nNone of the changes looked at (remat, accumulation, tensor, context, more chips) makes it fit.",
            "default",
        )
    return text


def gib(size: float | None) -> str:
    """Bytes as GiB, or as MiB where that would say little."""
    if size is None:
        return "?"
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 or not size else f"{size / 2**20:,.2f} MiB"


def _heading(found: dict[str, Any]) -> Table:
    compiled, chip = found["compiled"], found["chip"]
    slices = f"{found['slices']} x " if found["slices"] > 1 else ""
    precision = found["precision"]
    rows = {
        "target": f"{slices}{found['target']}: {found['devices']:,} chips, each {gib(chip['memory'])} and "
        f"{chip['flops'] / 1e12:,.0f} bf16 TFLOP/s",
        "mesh": ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items()) or "one device",
        "model": f"{found['parameters']:,} parameters, {found['flops_per_token']:.4g} FLOPs per token",
        "batch": f"{found['global_batch']:,} x {found['sequence_length']:,} tokens in {found['accumulation']} part(s)",
        "precision": f"params {precision['params']}, compute {precision['compute']}, remat {precision['remat']}",
        "found by": "estimate, not compiled"
        if compiled is None
        else f"{compiled['compiler']}, {compiled['outcome']} in {compiled['seconds']:.0f} s",
    }
    if compiled is not None and chip["platform"] == "gpu":
        rows["found by"] += "; memory is estimated, not compiled for the GPU"
    if lowered := found["lowered"]:
        kernels = ", ".join(f"{count} x {name}" for name, count in lowered["kernels"].items()) or "none but XLA's own"
        rows["lowered for"] = f"{lowered['platform']} in {lowered['seconds']:.1f} s; kernels: {kernels}"
        if lowered["message"]:
            rows["lowered for"] = f"{lowered['platform']}: not on this machine: {lowered['message']}"
    if found["note"]:
        rows["note"] = found["note"]
    return _pairs("Plan", rows)


def _memory(found: dict[str, Any]) -> Table:
    compiled = found["compiled"] if found["chip"]["platform"] == "tpu" else None
    table = Table(title="Memory on each chip", title_justify="left")
    for column in ("part", "estimate", "compiled"):
        table.add_column(column, justify="left" if column == "part" else "right")
    estimate = found["estimate"]
    for name, shown in _PARTS.items():
        table.add_row(shown, gib(estimate[name]) + (" (exact)" if name in _EXACT else ""), "")
    ran = compiled is not None and compiled["outcome"] == "compiled"
    table.add_section()
    for name in ("arguments", "temporaries"):
        table.add_row(name, gib(estimate[name]), gib(compiled[name]) if ran else "")
    if ran:
        table.add_row("output beside the arguments", "", gib(compiled["output"] - compiled["aliased"]))
        table.add_row("the program", "", gib(compiled["code"]))
        if compiled["host"]:
            table.add_row("in the host's memory", "", gib(compiled["host"]))
    table.add_row(
        "peak", gib(estimate["peak"]), gib(compiled["peak"]) if compiled and compiled["peak"] else "", style="bold"
    )
    return table


def _step(found: dict[str, Any]) -> Table:
    line = found["roofline"]
    tokens = found["tokens_per_step"]
    network = line["link_bytes"] is not None
    rows = {
        "model FLOPs": f"{line['model_flops']:.4g} ({line['executed_flops']:.4g} with what is recomputed)",
        "arithmetic": f"{line['compute']:.4g} s",
        "memory traffic": f"{line['memory']:.4g} s ({gib(line['memory_bytes'])}, an estimate)",
        "fast links": f"{line['links']:.4g} s ({gib(line['link_bytes'])} sent)" if network else "not compiled: unknown",
    }
    if line["network_bytes"]:
        rows["slower network"] = f"{line['network']:.4g} s ({gib(line['network_bytes'])} sent)"
    rows["step, all overlapped"] = _bound(line["overlapped"], line["mfu_bound"], tokens, found["devices"])
    rows["step, nothing overlapped"] = _bound(line["in_turn"], line["mfu_in_turn"], tokens, found["devices"])
    return _pairs("Step at datasheet rates (a roofline, not a measurement)", rows)


def _bound(seconds: float, mfu: float, tokens: int, devices: int) -> str:
    return f"{seconds:.4g} s, MFU {mfu:.1%}, {tokens / seconds / devices:,.0f} tokens/s per chip"


def _collectives(found: dict[str, Any]) -> Table:
    table = Table(title="Collectives of one step, sent by each chip", title_justify="left")
    for column in ("kind", "times", "fast links", "slower network"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, row in found["compiled"]["collectives"].items():
        table.add_row(kind, f"{row['times']:,}", gib(row["links"]), gib(row["network"]))
    table.add_section()
    for each in found["compiled"]["largest_collectives"][:3]:
        shape = each["shape"].lstrip("(").partition("{")[0]
        sent = each["times"] * each["links"], each["times"] * each["network"]
        table.add_row(f"  {each['kind']} of {shape}", f"{each['times']:,}", *map(gib, sent), style="dim")
    return table


def _pairs(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value")
    for name, value in rows.items():
        table.add_row(name, value)
    return table
