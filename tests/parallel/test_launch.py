"""How a process finds its place among several: each scheduler's variables, as that scheduler sets them."""

from __future__ import annotations

import pytest

from aya_jax.config import UserError
from aya_jax.parallel.launch import Launch, LaunchFlags, detect, first_host

# srun --nodes=3 --ntasks-per-node=2, seen by task 3, the second of the second node.
SLURM = {
    "SLURM_JOB_ID": "70123",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_NODELIST": "login1,gpu[007-008,020]-ib",
    "SLURM_STEP_NODELIST": "gpu[007-008,020]-ib",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_NODEID": "1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
}
TPU_POD = {"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "t-0.svc,t-1.svc,t-2.svc,t-3.svc"}
TWO_SLICES = TPU_POD | {
    "MEGASCALE_NUM_SLICES": "2",
    "MEGASCALE_SLICE_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "run-slice-job-0-0.run:8080",
}
# What XPK gives a pod with GPUs, and what it gives one with CPUs.
GPU_JOB_SET = {
    "JOBSET_NAME": "run",
    "JAX_COORDINATOR_ADDRESS": "run-slice-job-0-0.run",
    "JAX_COORDINATOR_PORT": "6002",
    "NNODES": "4",
    "NODE_RANK": "2",
    "JOB_COMPLETION_INDEX": "2",
}
CPU_JOB_SET = {
    "JAX_COORDINATOR_ADDRESS": "run-slice-job-0-0.run",
    "JAX_PROCESS_COUNT": "8",
    "PROCESSES_IN_JOB": "4",
    "JOB_INDEX": "1",
    "JOB_COMPLETION_INDEX": "3",
}
ALL_FLAGS = LaunchFlags("node1:1234", 1, 2)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (SLURM, Launch("SLURM", "gpu007-ib:61931", 3, 6, (1,))),  # 61440 + 70123 mod 4096
        (OPEN_MPI, Launch("Open MPI", "10.96.0.1:62624", 2, 4, (0,))),  # 61440 + 373920 mod 4096
        (TPU_POD, Launch("TPU", "t-0.svc:8482", 1, 4)),
        (TWO_SLICES, Launch("TPU", "run-slice-job-0-0.run:8482", 5, 8)),
        (GPU_JOB_SET, Launch("JobSet", "run-slice-job-0-0.run:6002", 2, 4)),
        (CPU_JOB_SET, Launch("JobSet", "run-slice-job-0-0.run:1234", 7, 8)),
        ({}, None),
        ({"JOB_COMPLETION_INDEX": "3"}, None),  # an indexed Job of single processes, as sweeps are
        ({"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, None),  # salloc's own shell
        (
            OPEN_MPI | {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},
            "Open MPI",
        ),  # mpirun in a batch script
    ],
)
def test_each_scheduler_is_found(environ, expected):
    found = detect(environ)
    assert (found.source if isinstance(expected, str) else found) == expected


def test_jax_finds_the_same_where_it_finds_anything(monkeypatch):
    from jax._src.clusters import OmpiCluster, SlurmCluster

    for name, value in (SLURM | OPEN_MPI | {"SLURM_STEP_NODELIST": "gpu[007-008,020]"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMPI_VERSION", raising=False)
    monkeypatch.delenv("JAX_COORDINATOR_PORT", raising=False)
    address = {"timeout_secs": 1, "override_coordinator_port": None}
    assert OmpiCluster.get_coordinator_address(**address) == detect(OPEN_MPI).coordinator
    slurm = detect(SLURM | {"SLURM_STEP_NODELIST": "gpu[007-008,020]"})
    assert SlurmCluster.get_coordinator_address(**address) == slurm.coordinator
    assert (SlurmCluster.get_process_id(), SlurmCluster.get_process_count()) == (slurm.index, slurm.count)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node001", "node001"),
        ("node001,host2", "node001"),
        ("node[001-015],host2", "node001"),
        ("gpu[7,9-11]", "gpu7"),
        ("rack[1-2]n[03-04]-ib", "rack1n03-ib"),
        ("a-b-c[12]", "a-b-c12"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("more", "devices"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x6)", "SLURM_NODEID": "3", "SLURM_LOCALID": "0"}, None),  # a whole node
        ({}, (1,)),
        ({"SLURM_GPUS_ON_NODE": "8"}, (4, 5, 6, 7)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "5", "SLURM_GPUS_ON_NODE": "2"}, None),  # bound by the scheduler
    ],
)
def test_gpus_are_divided_over_the_processes_of_a_machine(more, devices):
    assert detect(SLURM | more).local_devices == devices


def test_steps_of_one_job_do_not_share_a_port():
    assert detect(SLURM).coordinator != detect(SLURM | {"SLURM_STEP_ID": "1"}).coordinator


def test_flags_come_before_every_scheduler():
    assert detect(SLURM, ALL_FLAGS) == Launch("flags", "node1:1234", 1, 2)
    assert detect(SLURM, LaunchFlags(process_count=1)) is None
    open_mpi_5 = {name: value for name, value in OPEN_MPI.items() if "MCA" not in name}
    assert detect(open_mpi_5, LaunchFlags("node1:1234")) == Launch("Open MPI", "node1:1234", 2, 4, (0,))


def test_open_mpi_5_on_one_machine_needs_no_address():
    alone = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "2"}
    del alone["OMPI_MCA_orte_hnp_uri"]
    host, port = detect(alone | {"PMIX_NAMESPACE": "prterun-vm-12@1"}).coordinator.split(":")
    assert host == "127.0.0.1"
    assert port != detect(alone | {"PMIX_NAMESPACE": "prterun-vm-13@1"}).coordinator.split(":")[1]


@pytest.mark.parametrize(
    ("environ", "flags", "message"),
    [
        ({}, LaunchFlags("host:1"), "no scheduler says which process"),
        ({}, LaunchFlags("host:1", 0), "only some of those that belong together"),
        ({}, LaunchFlags(None, 0, 2), "only some of those that belong together"),
        ({}, LaunchFlags("host:1", 2, 2), "number must be from 0 to 1, not 2"),
        ({}, LaunchFlags("host", 0, 2), "must be HOST:PORT, not 'host'"),
        ({}, LaunchFlags("host:99999", 0, 2), "must be HOST:PORT"),
        ({}, LaunchFlags("host:1", 0, 0), "at least 1, not 0"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_LOCALID"}, None, "SLURM_LOCALID is not set"),
        (SLURM | {"SLURM_PROCID": "six"}, None, "SLURM_PROCID='six' is no whole number"),
        (SLURM | {"SLURM_PROCID": "6"}, None, "from 0 to 5, not 6"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, None, "does not agree with SLURM_STEP_NUM_TASKS=6"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "two"}, None, "cannot be read"),
        (SLURM | {"SLURM_STEP_NODELIST": ""}, None, "names no host"),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2"}, None, "3 GPUs cannot be divided over the 2 processes"),
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, None, "not started by srun"),
        ({k: v for k, v in OPEN_MPI.items() if "MCA" not in k}, None, "does not say where process 0 runs"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, None, "OMPI_COMM_WORLD_RANK is not set"),
        (TPU_POD | {"TPU_WORKER_ID": "4"}, None, "TPU_WORKER_ID=4, and TPU_WORKER_HOSTNAMES names 4 hosts"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None, "TPU_WORKER_ID is not set"),
        (
            TPU_POD | {"MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "0"},
            None,
            "MEGASCALE_COORDINATOR_ADDRESS is not",
        ),
        (
            {k: v for k, v in GPU_JOB_SET.items() if k != "NNODES"},
            None,
            r"JAX_PROCESS_COUNT \(or NNODES\) is not set",
        ),
        ({"NNODES": "2", "NODE_RANK": "0"}, None, "JAX_COORDINATOR_ADDRESS is not set"),
        ({k: v for k, v in CPU_JOB_SET.items() if k != "PROCESSES_IN_JOB"}, None, "PROCESSES_IN_JOB is not set"),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(environ, flags, message):
    with pytest.raises(UserError, match=message) as caught:
        detect(environ, flags)
    assert "\n" not in str(caught.value)
