"""Reading collectives out of a compiled program's text: which, how often, and over which devices.

The text has one computation after another, each a list of instructions. Starting from ENTRY, what an instruction calls
is followed once, and the body of a `while` as often as the loop goes round; `cost_analysis()` counts a body once.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "token": 0, "tuple": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"(?:^|\s)([a-z][a-z0-9\-]*)\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|called_computations|branch_computations|true_computation|false_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_NAME = re.compile(r"%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: without the percent sign.
      opcode: "fusion", "all-gather-start", ...
      shape: the text of the result's shape.
      rest: what follows the opening parenthesis: operands and attributes.
      root: whether it is the computation's result.
    """

    name: str
    opcode: str
    shape: str
    rest: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective as one device takes part in it.

    Attributes:
      kind: one of KINDS.
      shape: text of the result's shape.
      times: how often it runs in one call of the program.
      size: bytes of the whole array: the result of an all-gather, the operand of a reduce-scatter, else either.
      links: bytes that the device sends to others of its own slice, each time.
      network: bytes that it sends beyond, each time.
      operation: the name that JAX gave to what it belongs to ("jit(step)/jvp()/while/body/...").
    """

    kind: str
    shape: str
    times: int
    size: float
    links: float
    network: float
    operation: str


@dataclasses.dataclass(frozen=True)
class Program:
    """The computations of a compiled program by name, and the name of the one that it starts with."""

    computations: Mapping[str, Sequence[Instruction]]
    entry: str


def parse(text: str) -> Program:
    """Takes HLO text apart.

    Raises:
      ValueError: the text has no ENTRY computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            current = computations.setdefault(header[2], []) if header else None
            entry = header[2] if header and header[1] else entry
        elif current is not None and (found := _INSTRUCTION.match(line)):
            body = re.sub(r"/\*.*?\*/", "", found[3])
            if opcode := _OPCODE.search(body):
                shape, rest = body[: opcode.start()], body[opcode.end() :]
                current.append(Instruction(found[2], opcode[1], shape, rest, bool(found[1])))
    if not entry:
        raise ValueError("no ENTRY computation: not the text of a compiled program")
    return Program(computations, entry)


def collectives(program: Program, num_devices: int, slice_of: Sequence[int]) -> list[Collective]:
    """Every collective that one call of the program runs.

    A TPU program spreads one asynchronous collective over several fusions, each of which names it: within one loop body
    a channel counts once. A loop whose number of rounds the text does not tell counts as one round.

    Args:
      program: from `parse`.
      num_devices: devices that the program is partitioned over.
      slice_of: for each of them, in the order of the program's device assignment, the number of its slice.
    """
    return list(_walk(program, program.entry, 1, set(), num_devices, slice_of))


def _walk(
    program: Program, name: str, times: int, seen: set[str], devices: int, slice_of: Sequence[int]
) -> Iterator[Collective]:
    instructions = program.computations.get(name, ())
    for instruction in instructions:
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            channel = _attribute(instruction.rest, r"channel_id=(\d+)")
            if channel is None or channel not in seen:
                seen.add(channel or instruction.name)
                yield _collective(instruction, kind, instructions, times, devices, slice_of)
        elif instruction.opcode == "send" and "_xla_megascale_transfer_type" in instruction.rest:
            yield _between_slices(instruction, times, len(set(slice_of)))
        elif instruction.opcode == "while":
            body = _attribute(instruction.rest, r"\bbody=%?([\w.\-]+)")
            rounds = trip_count(program, instruction)
            yield from _walk(program, body or "", times * rounds, set(), devices, slice_of)
        elif not instruction.opcode.endswith(("-done", "-update")):
            for called in _called(instruction):
                yield from _walk(program, called, times, seen, devices, slice_of)


def trip_count(program: Program, loop: Instruction) -> int:
    """How often a `while` goes round: as the compiler noted it, or as its condition counts from 0 up to a constant."""
    if known := _attribute(loop.rest, r'"known_trip_count":\{"n":"(\d+)"\}'):
        return int(known)
    condition = program.computations.get(_attribute(loop.rest, r"\bcondition=%?([\w.\-]+)") or "", ())
    constants = {i.name: i.rest for i in condition if i.opcode == "constant"}
    for instruction in condition:
        if instruction.opcode == "compare" and "direction=LT" in instruction.rest:
            for operand in _NAME.findall(instruction.rest.partition(")")[0]):
                if (value := re.match(r"(\d+)\)", constants.get(operand, ""))) is not None:
                    return int(value[1])
    return 1


def shape_bytes(shape: str) -> list[int]:
    """The bytes of every array in the text of a shape, in order; layouts and tiles are left out."""
    return [
        _width(kind) * math.prod(int(size) for size in dims.split(",") if size) // 8
        for kind, dims in _ARRAY.findall(shape)
    ]


def groups(text: str, num_devices: int) -> list[list[int]]:
    """The groups of devices of a `replica_groups=` attribute, in any of its three forms; everyone where it is empty.

    `{{0,1},{2,3}}`; `[2,4]<=[8]` and `[4,2]<=[2,4]T(1,0)`: so many groups of so many, counted over the reshaped and
    transposed range; `mesh['a'=2,'b'=4] {'b'}`: the devices that differ along the named axes only, of which one may be
    split, `'b':(2)2` being the part of size 2 after a part of size 2.
    """
    found = re.search(r"replica_groups=(\{\{.*?\}\}|\{\}|\[[^\s]*|mesh\[.*?\}(?=,|\s|$))", text)
    written = found[1] if found else "{}"
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", written):
        shape, dims, order = ([int(n) for n in part.split(",")] if part else None for part in iota.groups())
        devices = np.arange(math.prod(dims)).reshape(dims)
        return (devices.transpose(order) if order else devices).reshape(-1, shape[-1]).tolist()
    if mesh := re.match(r"mesh\[([^\]]*)\].*\{(.*)\}", written):
        return _mesh_groups(mesh[1], mesh[2])
    listed = [[int(n) for n in group.split(",") if n] for group in re.findall(r"\{([\d,]+)\}", written)]
    return listed or [list(range(num_devices))]


def _mesh_groups(mesh: str, axes: str) -> list[list[int]]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    dims: list[int] = []
    chosen: list[int] = []
    parts = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes)}
    for name, size in sizes.items():
        before, part = (int(n) if n else None for n in parts.get(name, (None, None)))
        pieces = [before, part, size // (before * part)] if before and part else [size]
        if name in parts:
            chosen.append(len(dims) + (1 if before else 0))
        dims += pieces
    kept = [dim for dim in range(len(dims)) if dim not in chosen]
    devices = np.arange(math.prod(dims)).reshape(dims).transpose([*kept, *chosen])
    return devices.reshape(-1, math.prod(dims[dim] for dim in chosen)).tolist()


def _collective(
    instruction: Instruction,
    kind: str,
    computation: Sequence[Instruction],
    times: int,
    devices: int,
    slice_of: Sequence[int],
) -> Collective:
    arrays = shape_bytes(instruction.shape)
    size = float(sum(arrays))
    operation = _attribute(instruction.rest, r'op_name="([^"]*)"') or ""
    if kind == "collective-permute":
        size = float(arrays[0]) if instruction.opcode.endswith("-start") else size
        pairs = re.findall(r"\{(\d+),(\d+)\}", _attribute(instruction.rest, r"source_target_pairs=(\{\{.*?\}\})") or "")
        crosses = any(slice_of[int(source)] != slice_of[int(target)] for source, target in pairs)
        links, network = (0.0, size) if crosses else (size, 0.0)
        return Collective(kind, instruction.shape.strip(), times, size, links, network, operation)
    group = groups(instruction.rest, devices)[0]
    members = len(group)
    slices = len({slice_of[device] for device in group if device < len(slice_of)}) or 1
    if kind == "all-gather" and instruction.opcode.endswith("-start"):
        size *= members / (members + 1)  # the shape is of operand and result
    elif kind == "reduce-scatter":
        size *= members
    elif kind == "all-reduce" and _is_scattered(instruction, computation):
        kind = "reduce-scatter"
    links, network = _sent(kind, size, members, slices)
    return Collective(kind, instruction.shape.strip(), times, size, links, network, operation)


def _between_slices(instruction: Instruction, times: int, slices: int) -> Collective:
    """A collective between TPU slices, which the compiler hands to the hosts as a `send` of this device's part and a `recv`."""
    kind = (_attribute(instruction.rest, r'_xla_megascale_transfer_type="(\w+)"') or "").lower().replace("_", "-")
    size = float(shape_bytes(instruction.shape)[0])
    if kind == "all-gather":
        size *= slices  # what is sent is one part of the whole
    network = _sent(kind, size, slices, slices)[1] if kind in KINDS else size
    kind = kind if kind in KINDS else "collective-permute"
    return Collective(kind, instruction.shape.strip(), times, size, 0.0, network, "")


def _sent(kind: str, size: float, members: int, slices: int) -> tuple[float, float]:
    """Bytes that one of `members` sends within its slice and beyond it.

    A ring passes (n - 1) / n of the array along, twice for an all-reduce; over several slices, first within each, then
    each member its part beyond.
    """
    factor = 2.0 if kind == "all-reduce" else 1.0
    inside = members // slices
    links = factor * size * (inside - 1) / inside
    network = factor * size / inside * (slices - 1) / slices
    return links, network


def _is_scattered(instruction: Instruction, computation: Sequence[Instruction]) -> bool:
    """Whether only this device's part of an all-reduce is kept: the TPU compiler's way of writing a reduce-scatter."""
    return any(
        other.root and other.opcode == "dynamic-slice" and _NAME.match(other.rest)[1] == instruction.name
        for other in computation
    )


def _called(instruction: Instruction) -> list[str]:
    if instruction.opcode.startswith(("reduce", "scatter", "sort", "map", "select-and-scatter")):
        return []  # their computations work on single numbers
    return [name for found in _CALLED.findall(instruction.rest) for name in _NAME.findall(found)]


def _attribute(text: str, pattern: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _width(kind: str) -> int:
    """Bits of one number of an HLO type: "f32" has 32, "bf16" 16, "f8e4m3fn" 8, "pred" 8."""
    if kind in _BITS:
        return _BITS[kind]
    digits = re.match(r"[a-z]+(\d+)", kind)
    return int(digits[1]) if digits else 0
