"""How this process was started: alone, or as one of several by a scheduler or by flags. Reads a mapping, imports no JAX.

JAX has detection of its own (`jax.distributed.initialize()` without arguments). Here the same facts are read so that they can
be checked before anything is started, and so that three gaps close: a SLURM task that has a whole node to itself gets all of
its GPUs, Open MPI 5 needs no mpi4py, and JobSets need no Kubernetes permissions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from aya_jax.config.errors import UserError

_TPU_PORT, _JOB_SET_PORT = 8482, 1234  # what JAX and XPK use
_FIRST_PORT, _PORTS = 61440, 4096  # the end of the ephemeral range, as JAX takes for SLURM
_HOW = "give --coordinator_address=HOST:PORT --process_index=I --process_count=N, or --process_count=1 for one process"


@dataclasses.dataclass(frozen=True)
class Launch:
    """This process's place among several.

    Attributes:
      source: who said so; for messages.
      coordinator: "host:port" of process 0.
      index: this process's number, from 0.
      count: how many processes the run has, at least 2.
      local_devices: GPUs of this machine that this process takes; None takes all.
    """

    source: str
    coordinator: str
    index: int
    count: int
    local_devices: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"{self.source}: the number of processes must be at least 1, not {self.count}")
        if not 0 <= self.index < self.count:
            raise UserError(
                f"{self.source}: the process's number must be from 0 to {self.count - 1}, not {self.index}; {_HOW}"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UserError(f"{self.source}: the address of process 0 must be HOST:PORT, not {self.coordinator!r}")


@dataclasses.dataclass(frozen=True)
class LaunchFlags:
    """What the command line says of several processes; T5X's names.

    Attributes:
      coordinator_address: "host:port" of process 0.
      process_index: this process's number, from 0.
      process_count: how many processes the run has; 1, alone, means one process whatever a scheduler says.
    """

    coordinator_address: str | None = None
    process_index: int | None = None
    process_count: int | None = None


def detect(environ: Mapping[str, str], flags: LaunchFlags | None = None) -> Launch | None:
    """The place of this process among several, or None for a run of one process.

    All three flags together come before everything; then Open MPI, SLURM, a Cloud TPU's variables, and those of a JobSet,
    the first that is there. `coordinator_address` alone replaces the address that a scheduler gave or lacks.

    Args:
      environ: the environment's variables.
      flags: of the command line.

    Raises:
      UserError: variables or flags are missing, are no numbers, or contradict each other.
    """
    flags = flags or LaunchFlags()
    place = (flags.process_index, flags.process_count)
    if flags == LaunchFlags(process_count=1):
        return None
    if None not in place and flags.coordinator_address is not None:
        launch = Launch("flags", flags.coordinator_address, flags.process_index, flags.process_count)
        return launch if launch.count > 1 else None
    if place != (None, None):
        raise UserError(f"flags: only some of those that belong together are given; {_HOW}")
    for find in (_open_mpi, _slurm, _tpu, _job_set):
        launch = find(environ, flags.coordinator_address)
        if launch is not None:
            return launch if launch.count > 1 else None
    if flags.coordinator_address is not None:
        raise UserError(f"--coordinator_address is given and no scheduler says which process this is; {_HOW}")
    return None


def _open_mpi(environ: Mapping[str, str], address: str | None) -> Launch | None:
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    if not any(name in environ for name in names[:2]):
        return None
    index, count, local_index, local_count = (_number(environ, name, "Open MPI") for name in names)
    if address is None:
        uri = environ.get("OMPI_MCA_orte_hnp_uri", "")
        found = re.search(r"^(\d+)\..*?tcp://([^,:]+)", uri)
        if count == local_count:
            job = environ.get("PMIX_NAMESPACE", "") or uri
            address = f"127.0.0.1:{_port(sum(job.encode()))}"
        elif found:
            address = f"{found[2]}:{_port(int(found[1]) // 4096)}"  # mpirun's host; job numbers are multiples of 4096
        else:
            raise UserError(
                "Open MPI does not say where process 0 runs when processes are on several machines; add "
                "--coordinator_address=HOST:PORT with the first host of the host file"
            )
    return Launch("Open MPI", address, index, count, _share_of_gpus(environ, local_index, local_count))


def _slurm(environ: Mapping[str, str], address: str | None) -> Launch | None:
    if "SLURM_JOB_ID" not in environ or "SLURM_PROCID" not in environ:
        return None
    tasks = next((name for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if name in environ), None)
    count = 1 if tasks is None else _number(environ, tasks, "SLURM")
    if count == 1:
        return None
    if "SLURM_STEP_NODELIST" not in environ:
        raise UserError(
            f"SLURM: the job has {count} tasks and this process was not started by srun, so it would run alone; write srun "
            "before aya in the batch script, or add --process_count=1 for one process"
        )
    if address is None:
        job = _number(environ, "SLURM_JOB_ID", "SLURM")
        step = _number(environ, "SLURM_STEP_ID", "SLURM") if "SLURM_STEP_ID" in environ else 0
        address = f"{first_host(environ['SLURM_STEP_NODELIST'])}:{_port(job + 97 * step)}"
    local_count = 1
    if "SLURM_STEP_TASKS_PER_NODE" in environ:
        by_node = _expand_counts(environ["SLURM_STEP_TASKS_PER_NODE"])
        node = _number(environ, "SLURM_NODEID", "SLURM")
        if node >= len(by_node) or sum(by_node) != count:
            raise UserError(
                f"SLURM: SLURM_STEP_TASKS_PER_NODE={environ['SLURM_STEP_TASKS_PER_NODE']} does not agree with "
                f"{tasks}={count} and SLURM_NODEID={node}; {_HOW}"
            )
        local_count = by_node[node]
    index, local_index = _number(environ, "SLURM_PROCID", "SLURM"), _number(environ, "SLURM_LOCALID", "SLURM")
    return Launch("SLURM", address, index, count, _share_of_gpus(environ, local_index, local_count))


def _tpu(environ: Mapping[str, str], address: str | None) -> Launch | None:
    """What Kubernetes gives a pod with TPUs; MEGASCALE_* of several slices."""
    listed = next((name for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES") if environ.get(name)), None)
    if listed is None:
        return None
    hosts = environ[listed].split(",")
    slices = _number(environ, "MEGASCALE_NUM_SLICES", "TPU") if "MEGASCALE_NUM_SLICES" in environ else 1
    count = len(hosts) * slices
    if count == 1:
        return None
    worker, number = _number(environ, "TPU_WORKER_ID", "TPU"), 0
    if worker >= len(hosts):
        raise UserError(f"TPU: TPU_WORKER_ID={worker}, and {listed} names {len(hosts)} hosts; {_HOW}")
    first = hosts[0]
    if slices > 1:
        number = _number(environ, "MEGASCALE_SLICE_ID", "TPU")
        first = environ.get("MEGASCALE_COORDINATOR_ADDRESS", "")
        if not first:
            raise UserError(f"TPU: {slices} slices, and MEGASCALE_COORDINATOR_ADDRESS is not set; {_HOW}")
    address = address or f"{first.partition(':')[0]}:{_TPU_PORT}"
    return Launch("TPU", address, number * len(hosts) + worker, count)


def _job_set(environ: Mapping[str, str], address: str | None) -> Launch | None:
    """The variables of XPK's JobSets, which MaxText reads too."""
    named = address or environ.get("JAX_COORDINATOR_ADDRESS") or environ.get("JAX_COORDINATOR_IP")
    counted = next((name for name in ("JAX_PROCESS_COUNT", "NNODES") if name in environ), None)
    if counted is None and not (named and address is None):
        return None
    if counted is None or not named:
        if "JOB_COMPLETION_INDEX" not in environ and "NODE_RANK" not in environ and not named:
            return None  # NNODES alone means nothing here
        missing = "JAX_COORDINATOR_ADDRESS" if not named else "JAX_PROCESS_COUNT (or NNODES)"
        raise UserError(f"JobSet: {missing} is not set and the other variables are; launch/gke_jobset.yaml sets all")
    if ":" not in named:
        named = f"{named}:{environ.get('JAX_COORDINATOR_PORT', _JOB_SET_PORT)}"
    if "NODE_RANK" in environ:
        index = _number(environ, "NODE_RANK", "JobSet")
    else:
        index = _number(environ, "JOB_COMPLETION_INDEX", "JobSet")
        if environ.get("JOB_INDEX", "0") != "0":
            index += _number(environ, "JOB_INDEX", "JobSet") * _number(environ, "PROCESSES_IN_JOB", "JobSet")
    return Launch("JobSet", named, index, _number(environ, counted, "JobSet"))


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list: "gpu[007-012,020]-ib,login1" starts with "gpu007-ib"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if first is None:
        raise UserError(f"SLURM: SLURM_STEP_NODELIST={nodes!r} names no host; {_HOW}")
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _expand_counts(text: str) -> list[int]:
    """SLURM's "4(x2),3" as [4, 4, 3]."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise UserError(f"SLURM: SLURM_STEP_TASKS_PER_NODE={text!r} cannot be read; {_HOW}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _share_of_gpus(environ: Mapping[str, str], local_index: int, local_count: int) -> tuple[int, ...] | None:
    """Which of the GPUs that it sees one of several processes of a machine takes; None: all of them."""
    if local_count == 1:
        return None
    visible = environ.get("CUDA_VISIBLE_DEVICES", "")
    if visible:
        gpus = len(visible.split(","))
    elif environ.get("SLURM_GPUS_ON_NODE", "").isdigit():
        gpus = int(environ["SLURM_GPUS_ON_NODE"])
    else:
        return (local_index,)
    if gpus < local_count:  # the scheduler has given each its own
        return None
    if gpus % local_count:
        raise UserError(f"{gpus} GPUs cannot be divided over the {local_count} processes of this machine; start {gpus}")
    share = gpus // local_count
    return tuple(range(local_index * share, (local_index + 1) * share))


def _number(environ: Mapping[str, str], name: str, source: str) -> int:
    value = environ.get(name)
    if value is None:
        raise UserError(f"{source}: {name} is not set and the other variables of {source} are; {_HOW}")
    if not value.isdigit():
        raise UserError(f"{source}: {name}={value!r} is no whole number; {_HOW}")
    return int(value)


def _port(job: int) -> int:
    return _FIRST_PORT + job % _PORTS
