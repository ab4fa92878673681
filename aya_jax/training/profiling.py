"""A trace of some steps on the device, and which operations the time went to.

`RUN_DIR/profile/` holds the trace (open it with `xprof RUN_DIR/profile`, or `perfetto_trace.json.gz` at ui.perfetto.dev) and
`operations.json`, which `aya report` shows.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from aya_jax.config.files import write_atomic

FOLDER = "profile"
SUMMARY = "operations.json"
_LISTED = 30  # operations kept in the summary
_SHOWN = 5  # and on the terminal
# The named scopes of the step (`models.layers`, `models.transformer`, `training.step`).
PARTS = ("embedding", "attention", "mlp", "norm", "head", "optimizer")

# `%fusion.3 = f32[8]{0} fusion(...), ..., metadata={op_name="jit(step)/transpose(jvp(mlp))/dot_general" ...}`
_INSTRUCTION = re.compile(r'%?([\w.-]+) = .*metadata=\{[^}]*op_name="([^"]+)"')
_WRAPPED = re.compile(r"(?:jit|jvp|transpose|checkpoint|remat|vmap)\((.*)\)")
_NO_PLACE = {"", "while", "body", "cond", "closed_call", "checkpoint", "rematted_computation", "step", "shard_map"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction of the compiled step.

    Attributes:
      name: its name in the compiled program.
      source: what it was traced from: named scopes, JAX's name of it, and "backward" in a gradient; "" where the program
        does not say.
      count: how often it ran, on all devices of this process together.
      seconds: its own time, without that of operations within it (a loop's body), on all of them together.
      share: of the time of all operations.
    """

    name: str
    source: str
    count: int
    seconds: float
    share: float

    @property
    def part(self) -> str:
        """Which of `PARTS` it belongs to, "backward" in front in a gradient, or "other"."""
        direction, _, place = self.source.rpartition(" ")
        part = next((scope for scope in place.split("/") if scope in PARTS), None)
        return "other" if part is None else f"{direction} {part}".strip()


class Profiler:
    """Traces the steps first to last of a run; told of each step, it does nothing in the others."""

    def __init__(self, steps: tuple[int, ...], run_dir: str, tell: Callable[[str], None]):
        """`steps` is (first, last), or () for none; `tell` is given lines for the user."""
        self._steps, self._folder, self._tell = steps, Path(run_dir) / FOLDER, tell
        self._tracing = False

    def before_step(self, step: int, state: Any) -> None:
        """Begins the trace before its first step, when `state` is there and the device has nothing else to do.

        A run that resumes between the two steps traces what is left.
        """
        if self._steps and not self._tracing and self._steps[0] <= step <= self._steps[1]:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._tracing = True

    def after_step(self, step: int, results: Any, program: Callable[[], str]) -> None:
        """Ends the trace after its last step, and sums it up.

        Args:
          step: the step that was just started on the device.
          results: what it gives; waited for.
          program: gives the compiled program's text, which says where each operation comes from.
        """
        if not self._tracing or step < self._steps[1]:
            return
        jax.block_until_ready(results)
        jax.profiler.stop_trace()
        self._tracing = False
        if jax.process_index() == 0:
            self._sum_up(program())

    def _sum_up(self, program: str) -> None:
        newest = max(self._folder.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
        operations = read_operations(newest, sources(program))
        parts = shares_of_parts(operations)
        records = [dataclasses.asdict(each) for each in operations[:_LISTED]]
        summary = {"steps": list(self._steps), "parts": parts, "operations": records}
        write_atomic(self._folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
        self._tell(
            f"Traced steps {self._steps[0]} to {self._steps[1]}: xprof {self._folder}, or {newest.parent} in Perfetto."
        )
        self._tell("  ".join(f"{part} {share:.0%}" for part, share in parts.items()))
        for each in operations[:_SHOWN]:
            self._tell(f"{each.share:6.1%}  {each.seconds:8.3f} s  {each.name}  {each.source}")


def read_operations(trace: Path, origin: Mapping[str, str]) -> list[Operation]:
    """The operations in an `.xplane.pb`, by falling share of the time.

    Args:
      trace: the file. It is read as data, by JAX's own reader.
      origin: from an operation's name to where it comes from.
    """
    counts: dict[str, int] = defaultdict(int)
    times: dict[str, float] = defaultdict(float)
    for line in _operation_lines(jax.profiler.ProfileData.from_file(str(trace))):
        for name, seconds in own_times(line):
            counts[name] += 1
            times[name] += seconds
    total = sum(times.values()) or 1.0
    ranked = sorted(times, key=lambda name: (-times[name], name))
    return [Operation(name, origin.get(name, ""), counts[name], times[name], times[name] / total) for name in ranked]


def shares_of_parts(operations: Iterable[Operation]) -> dict[str, float]:
    """Share of the time by part of the step, the largest first."""
    shares: dict[str, float] = defaultdict(float)
    for each in operations:
        shares[each.part] += each.share
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def own_times(events: Iterable[tuple[str, float, float]]) -> list[tuple[str, float]]:
    """(name, own duration) of events (name, start, duration) of one line, where one may lie within another."""
    found: list[list[Any]] = []
    within: list[tuple[float, int]] = []  # (end, index) of events that enclose what comes
    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        while within and within[-1][0] <= start:
            within.pop()
        if within:
            found[within[-1][1]][1] -= duration
        within.append((start + duration, len(found)))
        found.append([name, duration])
    return [(name, max(own, 0.0)) for name, own in found]


def sources(program: str) -> dict[str, str]:
    """From the compiled program's text: instruction → what it was traced from, and the line of source."""
    found = {}
    for text in program.splitlines():
        match = _INSTRUCTION.search(text)
        if match is None:
            continue
        name, traced = match.groups()
        found[name] = _readable(traced)
    return found


def _readable(traced: str) -> str:
    """ "jit(step)/while/body/transpose(jvp(mlp))/dot_general" → "backward mlp/dot_general"."""
    parts = traced.split("/")
    direction = "backward " if any(part.startswith("transpose(") for part in parts) else ""
    places = []
    for part in parts:
        while wrapped := _WRAPPED.fullmatch(part):
            part = wrapped[1]
        if part not in _NO_PLACE:
            places.append(part)
    return direction + "/".join(places[-3:])


def _operation_lines(data: Any) -> Iterable[list[tuple[str, float, float]]]:
    """Events (name, start, duration), in seconds, of each line that holds operations of the compiled program."""
    planes = list(data.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:
        lines = list(plane.lines)
        operations = [line for line in lines if line.name == "XLA Ops"]
        for line in operations or lines:
            events = [_event(event) for event in line.events if operations or "hlo_op" in dict(event.stats)]
            if events:
                yield events


def _event(event: Any) -> tuple[str, float, float]:
    name = dict(event.stats).get("hlo_op") or event.name.split(" = ")[0].lstrip("%")
    return name, event.start_ns * 1e-9, event.duration_ns * 1e-9
