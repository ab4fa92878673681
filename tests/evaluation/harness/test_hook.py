"""Benchmarks while a model trains: the numbers are those of `aya evaluate` on the same weights, and survive a kill."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.training.config import TrainConfig
from tests.evaluation.harness import tiny_benchmark
from tests.training import small_run

ROOT = Path(__file__).parents[3]
STEPS = 8
INCLUDED = """
include '{root}/gin/train/benchmarks.gin'
BenchmarkHookConfig.every = 4
HarnessConfig.task_dirs = ('{tasks}',)
HarnessConfig.data_dir = '{data}'
HarnessConfig.tasks = ('tiny_*', 'says_de')
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hook")
    tasks, data = tiny_benchmark.write(folder)
    file = small_run.write_config(folder, small_run.write_stores(folder / "stores"), steps=STEPS)
    text = INCLUDED.format(root=ROOT, tasks=tasks, data=data)
    # An answer of 12 tokens and its question, byte by byte, in the 64 positions of the model.
    file.write_text(file.read_text() + text + "EngineConfig.slots = 2\n")
    small_run.run("train", file, f"--gin.RUN_DIR={folder / 'whole'}")
    return folder, file, (tasks, data)


def hooked(run_dir):
    return [record for record in small_run.records(run_dir) if record["kind"] == "benchmarks"]


def numbers(record):
    return {name: value for name, value in record.items() if "/" in name}


def test_the_last_step_s_numbers_are_those_of_aya_evaluate(workplace):
    folder, _, (tasks, data) = workplace
    records = hooked(folder / "whole")
    assert [record["step"] for record in records] == [4, 8]
    main(
        [
            "evaluate", str(ROOT / "gin/evaluate/benchmarks.gin"), f"--gin.MODEL_DIR={folder / 'whole'}",
            "--gin.TASKS=('tiny_*', 'says_de')", f"--gin.HarnessConfig.task_dirs=('{tasks}',)", f"--gin.DATA_DIR={data}",
        ]
    )  # fmt: skip
    file = folder / "whole" / "evaluations" / "benchmarks.json"
    families = read_summary(file)["families"]
    assert records[-1]["tiny/acc"] == families["tiny"]["acc"]["macro"]["mean"]
    assert records[-1]["tiny/acc/he"] == families["tiny"]["acc"]["languages"]["he"]["mean"]
    own = read_samples(folder / "whole" / "evaluations" / "step_8.json")
    for mine, theirs in zip(own, read_samples(file), strict=True):
        assert (mine.id, mine.prediction) == (theirs.id, theirs.prediction)
        assert mine.log_probs == pytest.approx(theirs.log_probs, abs=1e-5)


@pytest.mark.slow
def test_a_killed_run_has_the_same_numbers(workplace):
    folder, file, _ = workplace
    process = small_run.start("train", file, f"--gin.RUN_DIR={folder / 'killed'}")
    small_run.wait_for(lambda: small_run.has_checkpoint(folder / "killed", 4), process)
    small_run.stop(process, signal.SIGKILL)
    small_run.run("train", file, f"--gin.RUN_DIR={folder / 'killed'}")
    found = {record["step"]: numbers(record) for record in hooked(folder / "killed")}
    assert found == {record["step"]: numbers(record) for record in hooked(folder / "whole")}


def test_the_run_repeats_from_its_own_configuration(workplace):
    folder, _, _ = workplace
    text = (folder / "whole" / "config.gin").read_text()
    assert "import aya_jax.evaluation.config" in text
    config = resolve(TrainConfig, files=[str(folder / "whole" / "config.gin")]).config
    assert config.hooks[0].benchmarks.tasks == ("tiny_*", "says_de")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["BenchmarkHookConfig.every=0"], "at least 1, or None"),
        (["TrainConfig.hooks=(@HookConfig(),)"], "a class that derives from HookConfig and does something"),
    ],
)
def test_mistakes_are_named(workplace, bindings, message):
    _, file, _ = workplace
    with pytest.raises(UserError, match=message):
        resolve(TrainConfig, files=[str(file)], bindings=["RUN_DIR='r'", *bindings])


def test_a_task_that_is_not_there_is_said_before_the_first_step(workplace, tmp_path):
    _, file, _ = workplace
    process = small_run.start(
        "train", file, f"--gin.RUN_DIR={tmp_path / 'run'}", "--gin.HarnessConfig.tasks=('tiny_fr',)"
    )
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "no task 'tiny_fr'; did you mean" in str(output)
    records = tmp_path / "run" / "metrics.jsonl"
    assert not records.exists() or not [
        line for line in records.read_text().splitlines() if json.loads(line)["step"] > 0
    ]
