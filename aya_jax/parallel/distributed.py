"""JAX in several processes: start, end, what each of them is, and whether they see the same files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from aya_jax.config.errors import UserError
from aya_jax.config.files import write_atomic
from aya_jax.parallel.launch import Launch

SEEN_WITHIN = 30.0  # seconds in which a network file system shows a new file to other machines
_hosts: dict[int, str] = {}


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


def cloud_tpu_vm() -> Launch | None:
    """The place of a Cloud TPU VM among the hosts of its slices, by its metadata server; None anywhere else.

    JAX's own detection (`jax._src.clusters`), asked for the facts alone.

    Raises:
      UserError: the machine has TPUs, and the metadata server does not say which of the hosts it is.
    """
    from jax._src.clusters import GceTpuCluster

    try:
        if not GceTpuCluster.is_env_present():
            return None
        count = GceTpuCluster.get_process_count()
        if count == 1:
            return None
        address = GceTpuCluster.get_coordinator_address(timeout_secs=60, override_coordinator_port=None)
        return Launch("TPU VM", address, GceTpuCluster.get_process_id(), count)
    except UserError:
        raise
    except Exception as error:  # whatever the requests to the metadata server end in
        raise UserError(
            f"this machine has TPUs, and its metadata server does not say which host of how many it is ({error}); give "
            "--coordinator_address=HOST:PORT --process_index=I --process_count=N, or --process_count=1"
        ) from error


def initialize(launch: Launch, hosts: Mapping[int, str], *, join_timeout: float, heartbeat_timeout: int) -> None:
    """Joins JAX to the run's other processes, all of which are there. Must come before anything that touches a device.

    Args:
      launch: this process's place.
      hosts: machine of each process, by its number; process 0 needs them all, to show them.
      join_timeout: seconds to wait.
      heartbeat_timeout: seconds without a sign of life after which JAX's service takes a process for dead.
    """
    _hosts.update(hosts)
    jax.distributed.initialize(
        launch.coordinator,
        num_processes=launch.count,
        process_id=launch.index,
        local_device_ids=None if launch.local_devices is None else list(launch.local_devices),
        cluster_detection_method="deactivate",
        initialization_timeout=int(join_timeout),
        heartbeat_timeout_seconds=heartbeat_timeout,
    )


def shutdown() -> None:
    """Waits for the other processes to come to their end too, and leaves them."""
    jax.distributed.shutdown()


def process_info() -> ProcessInfo:
    """This process's place in the run, whether `initialize` was needed or not."""
    return ProcessInfo(
        index=jax.process_index(),
        count=jax.process_count(),
        local_devices=jax.local_device_count(),
        devices=jax.device_count(),
    )


def host_of(process: int) -> str:
    """The machine of a process; known to process 0."""
    return _hosts.get(process, "this machine" if jax.process_count() == 1 else "?")


def agree(text: str | None) -> str | None:
    """What process 0 says, on every process; every process must call it."""
    if jax.process_count() == 1:
        return text
    content = np.frombuffer(b"" if text is None else b"=" + text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    if size == 0:
        return None
    if jax.process_index():
        content = np.zeros(size, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(content), np.uint8).tobytes()[1:].decode()


def agree_on(value: Any) -> Any:
    """What process 0 says, a value of JSON, on every process; every process must call it."""
    return json.loads(agree(json.dumps(value)))


def check_same(own: str, what: str) -> None:
    """Refuses what is another thing on this process than on process 0. Every process must call it.

    Args:
      own: what this process has.
      what: it is, with "other" before it.

    Raises:
      UserError: on the processes where it differs.
    """
    if agree(own) != own:
        raise UserError(
            f"process {jax.process_index()} has {what} than process 0: the files of a run are the same on all machines"
        )


def whole(array: jax.Array) -> np.ndarray:
    """All of an array on the host, whichever processes its parts lie in. Every process must call it."""
    if array.is_fully_addressable:
        return np.asarray(jax.device_get(array))
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def check_shared(folder: Path, *, patience: float = SEEN_WITHIN) -> None:
    """Refuses a folder that is another one on some of the machines. Every process must call it.

    Process 0 writes a file of a random name, and the others look for it.

    Raises:
      UserError: on every process, naming those that do not see it.
    """
    if jax.process_count() == 1:
        return
    name = agree(f".shared-{secrets.token_hex(8)}")
    if jax.process_index() == 0:
        write_atomic(folder / name, "")
    end = time.monotonic() + patience
    while not (seen := (folder / name).exists()) and time.monotonic() < end:
        time.sleep(0.05)
    everywhere = np.asarray(multihost_utils.process_allgather(np.int32(seen))).reshape(-1)
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    if not everywhere.all():
        blind = ", ".join(str(index) for index in np.flatnonzero(everywhere == 0))
        raise UserError(
            f"{folder}: process {blind} of {jax.process_count()} sees another directory under this name than process 0: "
            "put it on a file system that all machines mount at the same place."
        )


# JAX warns of proxy variables in the environment as it starts; the command line takes the coordinator out of their reach.
logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
