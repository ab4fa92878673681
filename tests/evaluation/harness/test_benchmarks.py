"""`aya evaluate gin/evaluate/benchmarks.gin` over a model of random weights, and over models whose answers are known."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig, HarnessConfig
from aya_jax.evaluation.harness import benchmarks
from aya_jax.evaluation.harness.language_model import HarnessModel
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.evaluation.scoring import Likelihood
from tests.evaluation.harness import tiny_benchmark
from tests.training import small_run
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny", shape(32, 2, 128))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    return tiny_benchmark.write(tmp_path_factory.mktemp("benchmark"))


def arguments(model, benchmark, folder, tasks, *more):
    return [
        "evaluate", str(ROOT / "gin/evaluate/benchmarks.gin"), f"--gin.MODEL_DIR={model}", f"--gin.RUN_DIR={folder}",
        f"--gin.TASKS={tasks!r}", f"--gin.HarnessConfig.task_dirs={benchmark[:1]!r}", f"--gin.DATA_DIR={benchmark[1]}", *more,
    ]  # fmt: skip


def test_a_run_leaves_records_and_means_of_them(model, benchmark, tmp_path, capsys):
    assert main(arguments(model, benchmark, tmp_path, ("tiny_*", "says_de"))) == 0
    file = tmp_path / "evaluations" / "benchmarks.json"
    summary, samples = read_summary(file), read_samples(file)
    assert sorted({s.task for s in samples}) == ["says_de", "tiny_de", "tiny_he"]
    assert len(samples) == 3 * tiny_benchmark.QUESTIONS
    for language in ("de", "he"):
        chosen = [s for s in samples if s.task == f"tiny_{language}"]
        assert [s.target for s in chosen] == [n % 3 for n in range(tiny_benchmark.QUESTIONS)]
        for sample in chosen:
            best = max(range(3), key=lambda k, s=sample: s.log_probs[k])
            assert (sample.prediction, sample.metrics["acc"]) == (best, float(best == sample.target))
        mean = sum(s.metrics["acc"] for s in chosen) / len(chosen)
        found = summary["families"]["tiny"]["acc"]["languages"][language]
        assert found["mean"] == pytest.approx(mean)
        assert found["low"] < mean < found["high"]
        assert summary["reported_by_harness"][f"tiny_{language}"]["acc,none"] == pytest.approx(mean)
    said = [s for s in samples if s.task == "says_de"]
    assert all(s.metrics["exact_match"] == float(s.prediction == s.target) for s in said)
    assert "שאלה 3?" in [s for s in samples if s.task == "tiny_he"][3].prompt
    printed = capsys.readouterr().out
    assert "mean of languages" in printed
    written = file.read_bytes()
    assert main(arguments(model, benchmark, tmp_path, ("tiny_*", "says_de"))) == 0
    assert "is there for these weights" in capsys.readouterr().out
    assert file.read_bytes() == written


def test_questions_are_not_put_twice(model, benchmark, tmp_path, monkeypatch):
    asked = []
    score = benchmarks.Scorer.score
    monkeypatch.setattr(
        benchmarks.Scorer,
        "score",
        lambda self, params, rows, answer: asked.append(len(rows)) or score(self, params, rows, answer),
    )
    main(arguments(model, benchmark, tmp_path, ("tiny_de",)))
    main(arguments(model, benchmark, tmp_path, ("tiny_*",), "--gin.EvaluateConfig.name=more"))
    assert asked == [3 * tiny_benchmark.QUESTIONS] * 2  # the second time those of the other language alone
    main(arguments(model, benchmark, tmp_path, ("tiny_*",), "--gin.EvaluateConfig.name=again"))
    assert len(asked) == 2
    more, again = (json.loads((tmp_path / "evaluations" / f"{name}.json").read_text()) for name in ("more", "again"))
    assert more["families"] == again["families"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_results(model, benchmark, tmp_path):
    """Killed while answers come in; what was answered is known to the next run, and the files are those of a whole one."""
    command = arguments(model, benchmark, tmp_path / "killed", ("says_*",), "--gin.EngineConfig.slots=1")
    process = small_run.start(*command)
    answers = tmp_path / "killed" / "evaluations" / "answers"
    small_run.wait_for(lambda: any(f.read_bytes().count(b"\n") > 2 for f in answers.glob("*.jsonl")), process)
    small_run.stop(process, signal.SIGKILL)
    assert not (tmp_path / "killed" / "evaluations" / "benchmarks.json").exists()
    output = small_run.run(*command)
    assert "answers of this model are known from" in output
    small_run.run(*arguments(model, benchmark, tmp_path / "whole", ("says_*",)))
    killed, whole = (tmp_path / name / "evaluations" / "benchmarks.samples.jsonl" for name in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


def test_other_weights_are_asked_anew(model, benchmark, tmp_path):
    other = write_random_model(tmp_path / "other", shape(32, 2, 128), seed=1)
    for name in (model, other):
        main(arguments(name, benchmark, tmp_path, ("tiny_de",)))
    assert len(list((tmp_path / "evaluations" / "answers").iterdir())) == 2


def results(benchmark, score, tmp_path, tokenizer):
    config = HarnessConfig(tasks=("tiny_*",), task_dirs=benchmark[:1], data_dir=benchmark[1])
    tasks = benchmarks.load_tasks(config, pytest.fail)

    @contextlib.contextmanager
    def track(label, total):
        yield lambda count: None

    with Answers(tmp_path / "answers.jsonl") as answers:
        known = HarnessModel(
            score, pytest.fail, tokenizer, answers, track, max_length=128, max_tokens=16, seed=0, chat=False
        )
        found = benchmarks.lm_eval.evaluate(known, {"tasks": tasks}, bootstrap_iters=0)
    return {name: values["acc,none"] for name, values in found["results"].items()}


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda number, text: float(text == "A"), 4 / 12),  # always A: the share of A
        (lambda number, text: float(text == "ABC"[number // 3 % 3]), 1.0),
        (lambda number, text: -float(text == "ABC"[number // 3 % 3]), 0.0),
        (lambda number, text: 0.0, 4 / 12),  # of equals the first
    ],
)
def test_models_whose_answers_are_known(model, benchmark, tmp_path, choose, expected):
    tokenizer = ChatTokenizer.open(str(model))

    def score(asked, answer):
        words = (tokenizer.decode(continuation.tokens).strip() for continuation in asked)
        answer({n: Likelihood(choose(n, word), False) for n, word in enumerate(words)})

    assert results(benchmark, score, tmp_path, tokenizer) == {"tiny_de": expected, "tiny_he": expected}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (("tiny_dee",), r"no task 'tiny_dee'; did you mean tiny_de"),
        (("xcopa_it",), r"dataset cambridgeltl/xcopa \(it\): not in .*--gin.DATA_DIR=None"),
        (("xcopa_*",), r"has rows of none of xcopa_"),
        (("humaneval",), "runs what the model writes"),
    ],
)
def test_tasks_that_cannot_be_had_are_named(benchmark, tasks, message):
    config = HarnessConfig(tasks=tasks, task_dirs=benchmark[:1], data_dir=benchmark[1])
    with pytest.raises(UserError, match=message):
        benchmarks.load_tasks(config, pytest.fail)


def test_without_the_harness_it_says_what_to_install(model, benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for name in [name for name in sys.modules if name.startswith("aya_jax.evaluation.harness")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("aya_jax.evaluation.harness", raising=False)
    assert main(arguments(model, benchmark, tmp_path, ("tiny_de",))) == 1
    assert "benchmarks need lm_eval: pip install 'aya_jax[eval]'" in capsys.readouterr().err


def test_what_a_pattern_leaves_out_is_said(benchmark):
    said = []
    config = HarnessConfig(tasks=("tiny_*", "xcopa_i*"), task_dirs=benchmark[:1], data_dir=benchmark[1])
    assert sorted(benchmarks.load_tasks(config, said.append)) == ["tiny_de", "tiny_he"]
    assert said == [f"Left out, since {benchmark[1]} has no rows of them: xcopa_id, xcopa_it."]


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("HarnessConfig.tasks=()", "at least one task"),
        ("HarnessConfig.limit=0", "at least 1, or None"),
        ("HarnessConfig.few_shot=-1", "0 or more"),
        ("HarnessConfig.system='Be brief.'", "without chat = True"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = [
        "EvaluateConfig.model_dir='m'",
        "EvaluateConfig.measure=@HarnessConfig()",
        "HarnessConfig.tasks=('a',)",
        binding,
    ]
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=bindings)
