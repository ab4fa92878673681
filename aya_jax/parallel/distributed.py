"""Starting one run in several processes."""

from __future__ import annotations

import dataclasses

import jax

from aya_jax.config.errors import UserError


@dataclasses.dataclass(frozen=True)
class ProcessInfo:
    """This process's place in the run.

    Attributes:
      index: its number; process 0 writes logs and shows progress.
      count: how many processes the run has.
      local_devices: accelerators of this process.
      devices: accelerators of the run.
    """

    index: int
    count: int
    local_devices: int
    devices: int


def initialize(coordinator: str | None = None, process_id: int | None = None, num_processes: int | None = None) -> None:
    """Joins this process to the run's others. Must come before anything that touches a device.

    Args:
      coordinator: "host:port" of process 0. All three arguments None means a run of one process, and nothing is done.
      process_id: this process's number, from 0.
      num_processes: how many processes the run has.

    Raises:
      UserError: if only some of the three are given, or they contradict each other.
    """
    given = (coordinator, process_id, num_processes)
    if all(value is None for value in given):
        return
    if any(value is None for value in given):
        raise UserError("a run of several processes needs all of coordinator, process_id and num_processes")
    if not 0 <= process_id < num_processes:
        raise UserError(f"process_id must be from 0 to {num_processes - 1}, not {process_id}")
    if ":" not in coordinator:
        raise UserError(f"coordinator must be host:port, not {coordinator!r}")
    jax.distributed.initialize(coordinator, num_processes=num_processes, process_id=process_id)


def process_info() -> ProcessInfo:
    """This process's place in the run, whether `initialize` was needed or not."""
    return ProcessInfo(
        index=jax.process_index(),
        count=jax.process_count(),
        local_devices=jax.local_device_count(),
        devices=jax.device_count(),
    )
