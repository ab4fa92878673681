"""`aya generate` as two real processes: the same answers as one, and killed it goes on."""

import json
import signal

import pytest

from tests.training import process_pair, small_run, tuning
from tests.training.process_pair import Processes, one_at_a_time  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

# Two processes of two devices each: rows are divided over processes, matrices within one.
MESH = ("--gin.MeshConfig.data=2", "--gin.MeshConfig.tensor=2")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A model of two steps, and prompts."""
    folder = tmp_path_factory.mktemp("generate")
    tuning.write_tokenizer(folder / "tokenizer")
    rows = [{"question": f"{n}?", "answer": str(n)} for n in range(60)]
    (train, _) = tuning.prepare_tasks(folder, tuning.task(folder, "sums", "chat", rows))
    tuning.write_run(folder, "pretrain", mixture={"sums": 1.0}, vocab_size=train.vocabulary.size, steps=2)
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={folder / 'base'}", tuning.SEARCH)
    prompts = [
        {"prompt": "and " * (n % 5 + 1) + f"{n}", "sampling": {"n": 1 + n % 2, "log_probs": n % 3}} for n in range(24)
    ]
    tuning.write_rows(folder / "prompts.jsonl", prompts)
    return folder


def command(folder, name, *more, tokens=12):
    values = {
        "MODEL_DIR": folder / "base",
        "INPUT": folder / "prompts.jsonl",
        "OUTPUT": folder / name,
        "LocalModelConfig.compilation_cache": f"'{folder.parents[1] / 'compiled'}'",
        "SamplingConfig.max_tokens": tokens,
        "EngineConfig.slots": 4,
        "EngineConfig.max_length": 256,
        "EngineConfig.prefill_chunk": 32,
    }
    return ("generate", *(f"--gin.{key}={value}" for key, value in values.items()), *MESH, *more)


@pytest.fixture(scope="module")
def alone(workplace):
    """The answers of one process with four devices."""
    small_run.run(*command(workplace, "alone.jsonl"), devices=4)
    return (workplace / "alone.jsonl").read_text()


def test_two_processes_answer_as_one_does(workplace, alone):
    first, second = process_pair.run(*command(workplace, "together.jsonl"), devices=2)
    assert (workplace / "together.jsonl").read_text() == alone
    assert len(alone.splitlines()) == 24
    assert "has the answers" in first
    assert second == ""


def test_one_killed_ends_the_other_and_the_same_command_goes_on(workplace):
    small_run.run(*command(workplace, "long-alone.jsonl", tokens=200), devices=4)
    partial = workplace / "long.jsonl.partial"
    with Processes(*command(workplace, "long.jsonl", tokens=200), devices=2) as processes:
        second = processes.all[1]
        small_run.wait_for(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 3, second)
        second.send_signal(signal.SIGKILL)
        codes = [code for code, _ in processes.finish()]
    assert codes[0] not in (0, None)
    assert not (workplace / "long.jsonl").exists()
    (first, _) = process_pair.run(*command(workplace, "long.jsonl", tokens=200), devices=2)
    assert "rows were answered before" in first
    assert (workplace / "long.jsonl").read_text() == (workplace / "long-alone.jsonl").read_text()
    assert not partial.exists()


def test_other_prompts_on_another_machine_are_refused(workplace):
    (workplace / "other.jsonl").write_text(json.dumps({"prompt": "other"}) + "\n")
    each = {1: [f"--gin.INPUT={workplace / 'other.jsonl'}"]}
    with Processes(*command(workplace, "refused.jsonl"), devices=2, each=each) as processes:
        found = processes.finish()
    assert [code for code, _ in found] == [1, 1]
    assert "process 1 has other prompts or another model than process 0" in found[0][1]  # which says why
    assert not (workplace / "refused.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gin.MODEL_DIR=any", "--chat"], "a conversation is with one process"),
        (
            ["generate/remote.gin", "--gin.REMOTE_URL=http://127.0.0.1:9/v1", "--gin.REMOTE_MODEL=m", "--gin.PROMPT=a"],
            "an endpoint is asked by one process",
        ),
    ],
)
def test_what_one_process_does_alone_is_refused_to_two(options, reason):
    with Processes("generate", *options, devices=1) as processes:
        found = processes.finish()
    assert [code for code, _ in found] == [2, 2]
    assert f"aya generate: {reason}; start it once, with --process_count=1" in found[0][1]
