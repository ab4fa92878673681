"""Which process runs on which machine, with which devices, and where in the mesh they lie."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.parallel.distributed import host_of

_SHOWN = 8  # processes, of which the last two after a gap; a pod has hundreds


@dataclasses.dataclass(frozen=True)
class Place:
    """One process's devices.

    Attributes:
      process: its number.
      host: its machine.
      devices: how many.
      kind: what they are.
      axes: the range of mesh coordinates that they span, along each axis that has more than one.
    """

    process: int
    host: str
    devices: int
    kind: str
    axes: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        spans = ", ".join(
            f"{axis} {first}" if first == last else f"{axis} {first}-{last}" for axis, first, last in self.axes
        )
        return f"process {self.process}  {self.host}  {self.devices} x {self.kind}  {spans}".rstrip()


def show_device_map(console: Console, mesh: Mesh) -> None:
    """Prints the processes of the run, the first and the last of many; nothing for a run of one."""
    if jax.process_count() > 1:
        for line in device_map(places(mesh, {index: host_of(index) for index in range(jax.process_count())})):
            console.print(line, highlight=False)


def places(mesh: Mesh, hosts: Mapping[int, str]) -> list[Place]:
    """Every process's devices in the mesh, by its number."""
    own: dict[int, list[tuple[int, ...]]] = collections.defaultdict(list)
    kinds: dict[int, str] = {}
    for position, device in np.ndenumerate(mesh.devices):
        own[device.process_index].append(position)
        kinds[device.process_index] = device.device_kind
    found = []
    for process in sorted(hosts):
        positions = np.array(own[process]).reshape(-1, mesh.devices.ndim)
        axes = tuple(
            (axis, int(column.min()), int(column.max()))
            for axis, size, column in zip(mesh.axis_names, mesh.devices.shape, positions.T, strict=True)
            if size > 1 and len(column)
        )
        found.append(Place(process, hosts[process], len(positions), kinds.get(process, "device"), axes))
    return found


def device_map(processes: Sequence[Place]) -> list[str]:
    """The lines to print, with a warning where processes have unequal numbers of devices."""
    shown = [str(place) for place in processes]
    if len(shown) > _SHOWN:
        left_out = len(shown) - _SHOWN
        machines = len({place.host for place in processes})
        shown = [*shown[: _SHOWN - 2], f"... {left_out} more; {machines} machines in all", *shown[-2:]]
    usual, _ = collections.Counter(place.devices for place in processes).most_common(1)[0]
    odd = [place for place in processes if place.devices != usual]
    if odd:
        named = ", ".join(f"process {place.process} ({place.host}) has {place.devices}" for place in odd[:_SHOWN])
        more = f", and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        shown.append(f"Warning: most processes have {usual} device(s), but {named}{more}.")
    return shown
