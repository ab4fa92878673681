"""`aya evaluate gin/evaluate/code.gin`: programs whose worth is known, and a model that writes its own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data.chat import Message
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.code import programs
from aya_jax.evaluation.config import CodeConfig, EvaluateConfig
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.inference.protocol import Completion, FailedResponse, Response
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]
RIGHT, WRONG, ENDLESS = "    return a + b\n", "    return a - b\n", "    while True: pass\n"


def problem(number):
    return {
        "task_id": f"Invented/{number}",
        "prompt": f'def add{number}(a, b):\n    """The sum of a and b."""\n',
        "entry_point": f"add{number}",
        "canonical_solution": RIGHT,
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
    }


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data" / "eval" / "humaneval" / "humaneval.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(problem(n)) + "\n" for n in range(3)), encoding="utf-8")
    return tmp_path / "data"


class Writer:
    """In place of a model: for each problem the texts that were planted."""

    def __init__(self, texts):
        self.texts, self.asked = texts, []

    @contextlib.contextmanager
    def generator(self, config, max_length, samples):
        yield self

    def max_length(self, limit):
        return 512

    def generate(self, requests):
        for request in requests:
            self.asked.append(request)
            found = self.texts[request.id]
            if isinstance(found, str):
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=1, error=found)
            else:
                completions = (Completion(text=text, tokens=(), finish_reason="stop") for text in found)
                yield Response(id=request.id, completions=tuple(completions), prompt_tokens=1)


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def measured(config, texts, tmp_path):
    writer, problems = Writer(texts), programs.load(config)
    with Answers(tmp_path / "answers.jsonl") as answers:
        written = programs.write_programs(config, problems, writer, answers, track)
    return writer, programs.judge(config, problems, written, track)


def test_pass_at_k_is_of_programs_that_ran(data, tmp_path):
    """4 programs of each problem, of which 4, 1 and none are right: pass@1 by hand, pass@2 from the pairs."""
    config = CodeConfig(benchmarks=("humaneval",), data_dir=str(data), k=(1, 2), samples=4, seconds=2.0)
    texts = {
        "Invented/0": [RIGHT] * 4,
        "Invented/1": [WRONG, RIGHT, ENDLESS, "    return ("],
        "Invented/2": [WRONG + "\nprint('passed')", "    import os; os._exit(0)\n", WRONG, WRONG],
    }
    writer, samples = measured(config, texts, tmp_path)
    assert [sample.metrics for sample in samples] == [
        {"pass@1": 1.0, "pass@2": 1.0},
        {"pass@1": 0.25, "pass@2": pytest.approx(3 / 6)},
        {"pass@1": 0.0, "pass@2": 0.0},
    ]
    assert samples[1].doc["ends"] == ["failed", "passed", "timeout", "failed"]
    assert samples[2].doc["ends"][:2] == ["failed", "exited"]
    assert {(r.sampling.n, r.sampling.temperature) for r in writer.asked} == {(4, 0.8)}


def test_one_program_is_the_likeliest_and_a_chat_model_is_asked_in_a_turn(data, tmp_path):
    config = CodeConfig(benchmarks=("humaneval",), data_dir=str(data), chat=True, limit=1)
    answer = "Here it is:\n```python\ndef add0(a, b):\n    return a + b\n```\nGood luck!"
    writer, (sample,) = measured(config, {"Invented/0": [answer]}, tmp_path)
    (request,) = writer.asked
    assert (request.sampling.temperature, request.sampling.stop) == (0.0, ())
    assert isinstance(request.prompt[0], Message)
    assert sample.metrics == {"pass@1": 1.0}


def test_what_was_written_is_not_written_again(data, tmp_path):
    config = CodeConfig(benchmarks=("humaneval",), data_dir=str(data))
    texts = {"Invented/0": [RIGHT], "Invented/1": "the disk was full", "Invented/2": [RIGHT]}
    with pytest.raises(UserError, match=r"Invented/1: the disk was full; what was written before is kept"):
        measured(config, texts, tmp_path)
    writer, samples = measured(config, texts | {"Invented/1": [WRONG]}, tmp_path)
    assert [request.id for request in writer.asked] == ["Invented/1", "Invented/2"]
    assert [sample.metrics["pass@1"] for sample in samples] == [1.0, 0.0, 1.0]


def test_from_a_model_to_a_summary(data, tmp_path, capsys):
    model = write_random_model(tmp_path / "tiny", shape(32, 2, 256))
    arguments = [
        "evaluate", str(ROOT / "gin/evaluate/code.gin"), f"--gin.MODEL_DIR={model}", f"--gin.DATA_DIR={data}",
        f"--gin.RUN_DIR={tmp_path}", "--gin.CodeConfig.benchmarks=('humaneval',)", "--gin.SamplingConfig.max_tokens=16",
    ]  # fmt: skip
    assert main(arguments) == 0
    file = tmp_path / "evaluations" / "code.json"
    summary, samples = read_summary(file), read_samples(file)
    assert summary["families"]["humaneval"]["pass@1"]["languages"]["python"]["n"] == 3
    assert sum(summary["programs_ended"].values()) == 3 == len(samples)
    assert "Programs: " in capsys.readouterr().out
    assert main(arguments) == 0
    assert "is there for these weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("CodeConfig.benchmarks=('humaneva',)", "'humaneval', 'mbpp' or both"),
        ("CodeConfig.k=(1, 10)", "at least 10, the largest k"),
        ("CodeConfig.seconds=0.0", "above 0"),
        ("CodeConfig.samples=2\nSamplingConfig.temperature=0.0", "above 0 where several programs are drawn"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = ["EvaluateConfig.model_dir='m'", "EvaluateConfig.measure=@CodeConfig()", "CodeConfig.data_dir='d'"]
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=[*bindings, *binding.split("\n")])


def test_problems_that_are_not_there_are_named(tmp_path):
    with pytest.raises(UserError, match=r"humaneval\.jsonl"):
        programs.load(CodeConfig(data_dir=str(tmp_path)))
