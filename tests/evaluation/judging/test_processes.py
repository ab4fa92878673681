"""`aya judge` as two real processes: the same judgements as one, and other files on another machine are refused."""

from __future__ import annotations

import json

import pytest

from aya_jax.evaluation.results import read_samples, read_summary
from tests.evaluation.judging.test_grading import rows, write
from tests.evaluation.judging.test_run import ROOT, answers
from tests.training import process_pair, small_run
from tests.training.process_pair import Processes, one_at_a_time  # noqa: F401 - a fixture
from tools.random_model import shape, write_random_model

pytestmark = [pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

# Two processes of two devices each: rows are divided over processes, matrices within one.
MESH = ("--gin.MeshConfig.data=2", "--gin.MeshConfig.tensor=2")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    write_random_model(folder / "judge", shape(32, 2, 2048))
    for name in ("model", "baseline"):
        answers(folder / f"{name}.jsonl", [f"{name} {n}" for n in range(2)])
    return folder


def command(workplace, name, *more):
    values = {
        "JUDGE_DIR": workplace / "judge",
        "ANSWERS": workplace / "model.jsonl",
        "BASELINE": workplace / "baseline.jsonl",
        "RUN_DIR": workplace / name,
        "JudgeConfig.max_tokens": 4,
        "EngineConfig.slots": 4,
        "LocalModelConfig.compilation_cache": f"'{workplace.parents[1] / 'compiled'}'",
    }
    file = ROOT / "gin/judge/win_tie_loss.gin"
    return ("judge", file, *(f"--gin.{key}={value}" for key, value in values.items()), *MESH, *more)


@pytest.mark.slow
def test_two_processes_judge_as_one_does(workplace):
    small_run.run(*command(workplace, "alone"), devices=4)
    first, second = process_pair.run(*command(workplace, "together"), devices=2)
    alone, together = (workplace / name / "evaluations" / "judged.json" for name in ("alone", "together"))
    assert read_samples(together) == read_samples(alone)
    assert len(read_samples(alone)) == 4
    assert read_summary(together) == read_summary(alone)
    assert "8 calls" in first
    assert second == ""
    again, _ = process_pair.run(*command(workplace, "together"), devices=2)
    assert "is there for these files and this judge" in " ".join(again.split())
    replies = together.parent / "answers" / "judge.jsonl"
    assert replies.read_text().count("\n") == 8


def other_command(workplace, name, files, bindings):
    bound = (f"--gin.{key}={value}" for key, value in ({"RUN_DIR": workplace / name} | bindings).items())
    return ("judge", *(ROOT / "gin/judge" / file for file in files), *bound, *MESH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["turns", "implicit"])
def test_turns_and_implicit_rewards_by_two_processes(kind, workplace):
    """Judged in one process with four devices, and in two with two each; rewards are those to a bit or two."""
    if kind == "turns":
        file = write(workplace / "turns.jsonl", [*rows(3), *rows(3, language="de")])
        files = ["mt_bench.gin"]
        bindings = {
            "JUDGE_DIR": workplace / "judge",
            "ANSWERS": file,
            "JudgeConfig.max_tokens": 4,
            "EngineConfig.slots": 4,
        }
    else:
        write_random_model(workplace / "reference", shape(32, 2, 2048), 1)
        pairs = [
            {"prompt": f"{n}?", "id": str(n), "subset": subset, "chosen": f"yes {n}", "rejected": f"no {n} no"}
            | {"language": "deu_Latn"}
            for n in range(6)
            for subset in ("hep-go", "hep-js")
        ]
        pairs = [pair | {"id": f"{pair['subset']}{pair['id']}"} for pair in pairs]
        file = workplace / "pairs.jsonl"
        file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        files = ["reward_bench.gin", "implicit.gin"]
        bindings = {"JUDGE_DIR": workplace / "judge", "REFERENCE_DIR": workplace / "reference", "PAIRS": f"('{file}',)"}
    small_run.run(*other_command(workplace, f"{kind}_alone", files, bindings), devices=4)
    first, second = process_pair.run(*other_command(workplace, f"{kind}_together", files, bindings), devices=2)
    alone, together = (workplace / f"{kind}_{how}" / "evaluations" / "judged.json" for how in ("alone", "together"))
    assert len(read_samples(alone)) in (6, 12)
    assert [(s.id, s.metrics, s.prediction) for s in read_samples(together)] == [
        (s.id, s.metrics, s.prediction) for s in read_samples(alone)
    ]
    assert read_summary(together)["families"] == read_summary(alone)["families"]
    assert first
    assert second == ""


@pytest.mark.slow
def test_other_answers_on_another_machine_are_refused(workplace):
    other = answers(workplace / "other.jsonl", ["other"] * 2)
    with Processes(*command(workplace, "refused"), devices=2, each={1: [f"--gin.ANSWERS={other}"]}) as processes:
        found = processes.finish()
    assert [code for code, _ in found] == [1, 1]
    assert "process 1 has other files to judge, or another judge, than process 0" in found[0][1]


def test_an_endpoint_is_asked_by_one_process(workplace):
    files = [ROOT / "gin/judge" / name for name in ("remote.gin", "agreement.gin")]
    bindings = {"REMOTE_URL": "http://127.0.0.1:9/v1", "REMOTE_MODEL": "m", "PAIRS": "('a',)", "RUN_DIR": workplace}
    with Processes(
        "judge", *files, *(f"--gin.{key}={value}" for key, value in bindings.items()), devices=1
    ) as processes:
        found = processes.finish()
    assert [code for code, _ in found] == [2, 2]
    assert "aya judge: an endpoint is asked by one process; start it once, with --process_count=1" in found[0][1]
