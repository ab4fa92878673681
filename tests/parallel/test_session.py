"""The command line's part in starting several processes: flags, and who is refused before anything starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aya_jax import cli
from aya_jax.parallel import session
from aya_jax.parallel.launch import Launch

TRAIN = ["train", "gin/train/pretrain.gin", "gin/models/test.gin", "gin/mixtures/text_and_code.gin"]


@pytest.fixture
def started(monkeypatch):
    """What would have been started together, instead of starting it."""
    calls = []
    monkeypatch.setattr(session, "run_together", lambda launch, *_, **limits: calls.append((launch, limits)))
    for name in ("SLURM_JOB_ID", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "JAX_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setenv("no_grpc_proxy", "")
    return calls


def test_flags_start_one_of_several(started, monkeypatch):
    flags = ["--coordinator_address=node1:1234", "--process_index=1", "--process_count=2", "--join_timeout=7"]
    assert cli.main([*TRAIN, "--gin.RUN_DIR=r", *flags, "--heartbeat_timeout=9"]) == 0
    assert started == [(Launch("flags", "node1:1234", 1, 2), {"join_timeout": 7, "heartbeat_timeout": 9})]
    assert cli.os.environ["no_proxy"] == "localhost,node1"
    assert cli.os.environ["no_grpc_proxy"] == "node1"


def test_a_scheduler_s_variables_do_too(started, monkeypatch):
    for name, value in {"JAX_COORDINATOR_ADDRESS": "a:1", "NNODES": "2", "NODE_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main([*TRAIN, "--gin.RUN_DIR=r"]) == 0
    assert started == [(Launch("JobSet", "a:1", 0, 2), {})]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*TRAIN, "--process_index=1"], 1, "only some of those that belong together"),
        ([*TRAIN, "--process_index=one"], 2, "--process_index=one: expected a whole number"),
        ([*TRAIN, "--process_index"], 2, "--process_index: expected --process_index=VALUE, in one word"),
        ([*TRAIN, "--proces_index=1"], 2, "did you mean --process_index"),
        (
            ["describe", "gin/models/test.gin", "--process_count=2"],
            2,
            "aya describe: --process_count: this verb runs in one",
        ),
    ],
)
def test_refusals(started, capsys, arguments, code, message):
    assert cli.main(arguments) == code
    assert message in capsys.readouterr().err
    assert started == []


def test_help_names_the_flags_of_verbs_that_take_them(capsys):
    cli.main(["train", "--help"])
    assert "--coordinator_address=" in capsys.readouterr().out
    cli.main(["describe", "--help"])
    assert "--coordinator_address=" not in capsys.readouterr().out


def test_who_is_missing_is_said_without_jax():
    """In under a second beside the wait, with one line and an exit code."""
    program = (
        "import sys\n"
        "sys.modules['jax'] = None\n"
        "from aya_jax.parallel.launch import Launch\n"
        "from aya_jax.parallel.session import run_together\n"
        "run_together(Launch('flags', '127.0.0.1:9', 1, 2), lambda: None, print, join_timeout=0.5)\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert found.returncode == 1
    assert found.stderr.startswith("process 1 of 2 (flags) waited 0 s for process 0 at 127.0.0.1:9")
    assert len(found.stderr.splitlines()) == 1
