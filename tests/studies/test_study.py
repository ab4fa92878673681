"""Running a study: shared stages once, finished ones skipped, failures apart, restarts, signals."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from aya_jax.config import UserError
from aya_jax.studies.plan import make_plan
from aya_jax.studies.state import JobState
from aya_jax.studies.study import falls_short
from tests.studies.conftest import STUDY
from tests.studies.fixtures import write_jsonl


def order(tmp_path) -> list[str]:
    return [line.removeprefix("out/") for line in (tmp_path / "out/order").read_text().split()]


def state(tmp_path, key: str) -> dict:
    stage, _, label = key.partition("/")
    return json.loads((tmp_path / "out/state" / stage / f"{label or stage}.json").read_text())


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_shared_stage_runs_once_before_all_that_need_it(run, tmp_path, parallel):
    run(f"StudyConfig.max_parallel={parallel}")
    started = order(tmp_path)
    assert started[0] == "first"
    assert sorted(started[1:]) == sorted(
        f"{stage}/code_{code}-seed_{seed}" for stage in ("second", "last") for code in ("00", "25") for seed in (1, 2)
    )
    for label in ("code_00-seed_1", "code_25-seed_2"):
        assert started.index(f"second/{label}") < started.index(f"last/{label}")
    assert json.loads((tmp_path / "out/study.json").read_text())["jobs"][-1]["needs"] == ["second/code_25-seed_2"]


def test_what_is_finished_is_skipped(run, tmp_path):
    run()
    before = order(tmp_path)
    run()
    assert order(tmp_path) == before


def test_more_seeds_run_only_what_is_new(run, tmp_path):
    run()
    run("seed/Values.values=(1, 2, 3)")
    assert sorted(order(tmp_path)[9:]) == sorted(
        f"{s}/code_{c}-seed_3" for s in ("second", "last") for c in ("00", "25")
    )


def test_a_failure_blocks_only_what_needs_it_and_is_tried_again(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    marker = tmp_path / "out/marker"
    marker.touch()
    with pytest.raises(UserError, match="2 of 9 jobs failed: second/code_25-seed_1, ") as caught:
        run()
    assert caught.value.exit_code == 1
    shown = capsys.readouterr().out
    assert "boom: the marker is there" in shown
    commands = [line.strip() for line in shown.splitlines() if "alone again: aya fake --gin.FakeConfig.order=" in line]
    assert [line.count("--gin.") for line in commands] == [5, 5], "a command is one line, to be pasted"
    assert state(tmp_path, "last/code_00-seed_2")["status"] == "done"
    assert state(tmp_path, "second/code_25-seed_1") | {"status": "failed", "exit_code": 7} == state(
        tmp_path, "second/code_25-seed_1"
    )
    assert state(tmp_path, "last/code_25-seed_1")["status"] == "blocked"
    marker.unlink()
    run()
    assert state(tmp_path, "last/code_25-seed_1")["status"] == "done"
    assert (tmp_path / "out/first/attempts").read_text().count("attempt") == 1


def test_what_needs_something_blocked_is_blocked_too(run, tmp_path):
    after = """
after/StageConfig:
  name = 'after'
  verb = 'fake'
  output = 'FakeConfig.run_dir'
  needs = ('last',)
  bindings = {'FakeConfig.order': '{study}/order'}
"""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/marker").touch()
    with pytest.raises(UserError, match="2 of 10 jobs failed"):
        run(text=STUDY.replace("@last/StageConfig())", "@last/StageConfig(), @after/StageConfig())") + after)
    assert state(tmp_path, "after")["status"] == "blocked"
    assert "needs last/code_25-seed_1" in state(tmp_path, "after")["reason"]


def test_a_changed_configuration_is_refused_with_the_fields_before_anything_starts(run, tmp_path):
    run()
    before = order(tmp_path)
    text = STUDY.replace(
        "'FakeConfig.order': '{study}/order'}", "'FakeConfig.order': '{study}/order', 'FakeConfig.seconds': 0.01}"
    )
    with pytest.raises(UserError, match=r"first .*another configuration.*\n *seconds: 0.0 -> 0.01"):
        run(text=text)
    assert order(tmp_path) == before
    shutil.rmtree(tmp_path / "out/first")
    with pytest.raises(UserError, match=r"second/code_00-seed_1 .* was made from an earlier first"):
        run(text=text)
    assert order(tmp_path) == before


def test_a_state_that_is_no_state_is_named(run, tmp_path):
    run()
    path = tmp_path / "out/state/first/first.json"
    path.write_text("{")
    with pytest.raises(UserError, match=r"state/first/first\.json"):
        run()


def test_two_studies_in_one_directory(run, tmp_path):
    text = STUDY.replace(
        "'FakeConfig.order': '{study}/order'}", "'FakeConfig.order': '{study}/order', 'FakeConfig.seconds': 20.0}"
    )

    def run_in_thread() -> None:
        with contextlib.suppress(UserError):  # its first job is killed below
            run(text=text)

    thread = threading.Thread(target=run_in_thread, daemon=True)
    thread.start()
    running = tmp_path / "out/state/first/first.json"
    wait_for(lambda: running.exists() and (tmp_path / "out/first/attempts").exists())
    process = json.loads(running.read_text())["process"]
    with pytest.raises(UserError, match=f"in use by another.*process {process}"):
        run(text=text)
    os.kill(process, signal.SIGKILL)
    thread.join(20)
    assert state(tmp_path, "first")["exit_code"] == 128 + signal.SIGKILL
    assert state(tmp_path, "second/code_00-seed_1")["status"] == "blocked"


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize(("step", "told"), [(60, "was told to stop after step 60 of 200"), (200, "")])
def test_training_that_ended_well_but_early_is_not_done(make, tmp_path, step, told):
    job = dataclasses.replace(make_plan(make().config)[0], verb="train")
    write_jsonl(
        job.directory / "metrics.jsonl",
        [{"step": s, "kind": "train", "loss": 1.0, "wall_time": float(s)} for s in range(20, step + 1, 20)],
    )
    assert falls_short(job, JobState(snapshot={"steps": 200})) == told
    assert falls_short(dataclasses.replace(job, verb="evaluate"), JobState(snapshot={"steps": 200})) == ""


DRIVER = """
import sys
from pathlib import Path
from aya_jax import cli
from aya_jax.studies import study
from aya_jax.studies.plan import Job
cli.VERBS["fake"] = cli.Verb("tests.studies.fake_verb:FakeConfig", "", "")
Job.command = property(lambda job: [sys.executable, "tests/studies/fake_verb.py", *job.arguments])
study.write_report = lambda config, console: None
study.POLL_SECONDS = 0.02
sys.exit(cli.main(["study", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_ended_goes_on_from_where_it_was(run, tmp_path, sent):
    slow = STUDY.replace("{'FakeConfig.marker': 'none'}", "{'FakeConfig.marker': 'none', 'FakeConfig.seconds': 0.8}")
    file = tmp_path / "slow.gin"
    file.write_text(slow)
    arguments = [str(file), f"--gin.RUN_DIR={tmp_path / 'out'}"]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_for(lambda: (tmp_path / "out/second/code_00-seed_1/attempts").exists())
    process.send_signal(sent)
    output = process.communicate(timeout=20)[0].decode()
    if sent == signal.SIGTERM:
        assert process.returncode == 1
        assert "The same command goes on from here" in output
        assert state(tmp_path, "second/code_00-seed_1")["status"] == "stopped"
    else:  # what the killed study left running still holds the directory
        with pytest.raises(UserError, match="in use"):
            run(text=slow)
        left = state(tmp_path, "second/code_00-seed_1")["process"]
        os.kill(left, signal.SIGKILL)
        time.sleep(0.2)
    run(text=slow)
    assert (tmp_path / "out/first/attempts").read_text().count("attempt") == 1
    assert (tmp_path / "out/second/code_00-seed_1/attempts").read_text().count("attempt") == 2
    assert state(tmp_path, "last/code_25-seed_2")["status"] == "done"


def test_a_dry_run_shows_the_commands_and_starts_nothing(run, tmp_path, capsys):
    run("StudyConfig.dry_run=True")
    assert capsys.readouterr().out.count("aya fake") == 9
    assert not (tmp_path / "out").exists()
