"""Benchmarks as two real processes: the answers of one, and other questions on another machine are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aya_jax.evaluation.results import read_samples, read_summary
from tests.evaluation.harness import tiny_benchmark
from tests.evaluation.harness.test_hook import INCLUDED
from tests.training import process_pair, small_run
from tests.training.process_pair import Processes, one_at_a_time  # noqa: F401 - a fixture
from tools.random_model import shape, write_random_model

pytestmark = [pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

ROOT = Path(__file__).parents[3]
# Two processes of two devices each: rows are divided over processes, matrices within one.
MESH = ("--gin.MeshConfig.data=2", "--gin.MeshConfig.tensor=2")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    write_random_model(folder / "tiny", shape(32, 2, 128))
    return folder, tiny_benchmark.write(folder / "benchmark"), tiny_benchmark.write(folder / "other", questions=5)


def command(folder, benchmark, name, *more):
    tasks, data = benchmark
    return (
        "evaluate", ROOT / "gin/evaluate/benchmarks.gin",
        f"--gin.MODEL_DIR={folder / 'tiny'}", f"--gin.RUN_DIR={folder / name}",
        "--gin.TASKS=('tiny_*', 'says_de')", f"--gin.HarnessConfig.task_dirs=('{tasks}',)", f"--gin.DATA_DIR={data}",
        "--gin.EngineConfig.slots=4", f"--gin.EvaluateConfig.compilation_cache='{folder / 'compiled'}'", *MESH, *more,
    )  # fmt: skip


def test_two_processes_answer_as_one_does(workplace):
    folder, benchmark, _ = workplace
    small_run.run(*command(folder, benchmark, "alone"), devices=4)
    first, second = process_pair.run(*command(folder, benchmark, "together"), devices=2)
    alone, together = (read_samples(folder / name / "evaluations/benchmarks.json") for name in ("alone", "together"))
    assert len(alone) == 3 * tiny_benchmark.QUESTIONS
    for one, two in zip(alone, together, strict=True):
        assert (one.id, one.prediction, one.metrics) == (two.id, two.prediction, two.metrics)
        assert one.log_probs == pytest.approx(two.log_probs, abs=1e-5)
    assert "mean of languages" in first
    assert second == ""
    assert len(list((folder / "together" / "evaluations" / "answers").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_know_what_was_answered(workplace):
    folder, benchmark, _ = workplace
    process_pair.run(*command(folder, benchmark, "again"), devices=2)
    (answers,) = (folder / "again" / "evaluations" / "answers").iterdir()
    together = read_samples(folder / "again" / "evaluations" / "benchmarks.json")
    asked = answers.read_bytes()
    (folder / "again" / "evaluations" / "benchmarks.json").unlink()
    first, _ = process_pair.run(*command(folder, benchmark, "again"), devices=2)
    assert "answers of this model are known" in first
    assert answers.read_bytes() == asked
    assert read_samples(folder / "again" / "evaluations" / "benchmarks.json") == together


@pytest.mark.slow
def test_other_rows_on_another_machine_are_refused(workplace):
    folder, benchmark, other = workplace
    each = {1: [f"--gin.DATA_DIR={other[1]}"]}
    with Processes(*command(folder, benchmark, "refused"), devices=2, each=each) as processes:
        found = processes.finish()
    assert 0 not in [code for code, _ in found]
    assert "process 1 has another model, other settings or other files than process 0" in found[0][1] + found[1][1]
    assert read_summary(folder / "refused" / "evaluations" / "benchmarks.json") is None


@pytest.mark.slow
def test_a_training_run_of_two_processes_asks_on_the_way(workplace):
    folder, (tasks, data), _ = workplace
    file = small_run.write_config(folder, small_run.write_stores(folder / "stores"), steps=8)
    text = INCLUDED.format(root=ROOT, tasks=tasks, data=data)
    file.write_text(file.read_text() + text + "EngineConfig.slots = 4\n")
    small_run.run("train", file, f"--gin.RUN_DIR={folder / 'one'}", *MESH, devices=4)
    process_pair.run("train", file, f"--gin.RUN_DIR={folder / 'two'}", *MESH, devices=2)
    one, two = (read_samples(folder / name / "evaluations" / "step_8.json") for name in ("one", "two"))
    assert [(s.id, s.prediction) for s in one] == [(s.id, s.prediction) for s in two]
    lines = (folder / "two" / "metrics.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["kind"] == "benchmarks" for line in lines) == 2
