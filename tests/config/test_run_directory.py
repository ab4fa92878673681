"""Run directories: the same configuration comes back in, another or a second process does not."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from aya_jax.config import RunDirectory, UserError, resolve
from aya_jax.config.run_directory import read_snapshot
from aya_jax.config.snapshot import to_plain
from tests.config.examples import KitchenExample


def resolved(*bindings):
    base = ["KitchenExample.run_dir=x", "ChefExample.hands=1", "ChefExample.bowls=2"]
    return resolve(KitchenExample, bindings=[*base, *bindings])


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}


def test_what_it_writes(tmp_path):
    run = resolved("KitchenExample.limit=1e999")
    with RunDirectory.open(tmp_path / "run", run, {"jax": "1"}) as directory:
        assert (directory.path, directory.resumed) == (tmp_path / "run", False)
    assert sorted(contents(tmp_path / "run")) == ["config.gin", "config.json", "environment.json"]
    again = resolve(KitchenExample, [tmp_path / "run" / "config.gin"])
    assert again.snapshot == run.snapshot
    assert read_snapshot(tmp_path / "run") == to_plain(run.config)
    assert json.loads((tmp_path / "run" / "environment.json").read_text()) == {"jax": "1"}


def test_the_same_configuration_comes_back_with_other_unimportant_fields(tmp_path):
    RunDirectory.open(tmp_path, resolved(), {"jax": "1"}).close()
    directory = RunDirectory.open(tmp_path, resolved("KitchenExample.run_dir=y"), {"jax": "2"})
    assert directory.resumed
    assert read_snapshot(tmp_path)["run_dir"] == "y"
    directory.close()
    RunDirectory.open(tmp_path, resolved(), {"jax": "2"}).close()
    for version in ("3", "3"):
        RunDirectory.open(tmp_path, resolved(), {"jax": version}).close()
    assert json.loads((tmp_path / "environment.json").read_text()) == {
        "jax": "3",
        "earlier": [{"jax": "1"}, {"jax": "2"}],
    }


@pytest.mark.parametrize("writer", [True, False])
def test_another_configuration_is_refused_with_what_differs_and_nothing_changes(tmp_path, writer):
    RunDirectory.open(tmp_path, resolved(), {}).close()
    before = contents(tmp_path)
    other = resolved("KitchenExample.seed=7", "KitchenExample.run_dir=y", "KitchenExample.prices={'a': 1}")
    with pytest.raises(UserError) as error:
        RunDirectory.open(tmp_path, other, {"jax": "9"}, writer=writer)
    assert str(error.value).splitlines() == [
        f"{tmp_path}: this directory holds a run of another configuration (old -> new):",
        "  seed: 0 -> 7",
        "  prices.a: (absent) -> 1.0",
        "Give this run another directory with --gin.RUN_DIR=..., or put these values back to continue the old one; "
        "nothing was changed.",
    ]
    assert contents(tmp_path) == before
    RunDirectory.open(tmp_path, resolved(), {}).close()  # the refusal has let go of the lock


def test_a_further_process_of_the_run_needs_no_lock_and_writes_nothing(tmp_path):
    with RunDirectory.open(tmp_path, resolved(), {"process": 0}):
        before = contents(tmp_path)
        assert RunDirectory.open(tmp_path, resolved(), {"process": 1}, writer=False).resumed
        assert read_snapshot(tmp_path)["seed"] == 0
        assert contents(tmp_path) == before
    assert not RunDirectory.open(tmp_path / "none", resolved(), {}, writer=False).resumed
    assert not (tmp_path / "none").exists()


HOLDER = """
import sys, time
from aya_jax.config import RunDirectory
from tests.config.test_run_directory import resolved
RunDirectory.open(sys.argv[1], resolved(), {}); print("open", flush=True); time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_ends_even_by_kill_9(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(UserError) as error:
            RunDirectory.open(tmp_path, resolved(), {})
        assert str(error.value) == (
            f"{tmp_path}: in use by process {holder.pid} on {socket.gethostname()}; wait for it or stop it, "
            "or give this run another directory with --gin.RUN_DIR=..."
        )
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert RunDirectory.open(tmp_path, resolved(), {}).resumed


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        RunDirectory.open(tmp_path / "file", resolved(), {})
    with pytest.raises(UserError, match=r"gs://bucket/run: RUN_DIR must be a directory"):
        RunDirectory.open("gs://bucket/run", resolved(), {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission to write there"):
        RunDirectory.open(tmp_path / "run", resolved(), {})


@pytest.mark.parametrize("content", ["", "[1]", "{", "\xff"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json: cannot be read as a configuration"):
        RunDirectory.open(tmp_path, resolved(), {})


def test_no_run_directory(tmp_path):
    with pytest.raises(UserError, match=r"no run directory: it holds no config\.json"):
        read_snapshot(tmp_path)
