"""Writing programs and running them: HumanEval and MBPP over one of our models, from a problem to pass@k.

Every problem is one record, whose metrics are its own unbiased pass@k; their mean is the benchmark's, and two models are
compared problem by problem like everything else.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from aya_jax.data.chat import Message
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.code.pass_at_k import pass_at_k
from aya_jax.evaluation.code.problems import (
    CodeProblem,
    load_humaneval,
    load_mbpp,
    mbpp_few_shot,
    mbpp_test_split,
)
from aya_jax.evaluation.code.sandbox import Limits, check_protection, run_programs
from aya_jax.evaluation.config import CodeConfig
from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.subject import Setting, Subject
from aya_jax.evaluation.tables import show
from aya_jax.evaluation.writing import write_texts
from aya_jax.inference.protocol import Prompt, Request
from aya_jax.parallel.distributed import agree_on
from aya_jax.training.console import Track, tracker

_AT_A_TIME = 64  # problems whose programs are run between two looks at the progress


def run(setting: Setting) -> None:
    """Writes the summary and its records, and prints pass@k.

    Raises:
      UserError: the problems are not there, or this machine cannot hold a program back: then none is run.
    """
    config = setting.resolved.config.measure
    check_protection()
    problems = load(config)
    subject, console = setting.subject(chat=config.chat), setting.console

    def measure(answers: Answers) -> tuple[dict[str, Any], list[Sample]]:
        written = write_programs(config, problems, subject, answers, tracker(console))
        samples = judge(config, problems, written, tracker(console))
        ends = Counter(end for sample in samples for end in sample.doc["ends"])
        return {"programs_ended": dict(sorted(ends.items()))}, samples

    summary = setting.summary(subject, measure, harness=None, limit=config.limit)
    show(console, summary)
    ended = ", ".join(f"{name} {count:,}" for name, count in summary["programs_ended"].items())
    console.print(f"Programs: {ended}.", highlight=False)


def load(config: CodeConfig) -> dict[str, list[tuple[CodeProblem, str]]]:
    """Each benchmark's problems with what a base model continues.

    Raises:
      UserError: a file is missing or damaged.
    """
    home, found = Path(config.data_dir) / "eval", {}
    for name in config.benchmarks:
        if name == "humaneval":
            problems = [(problem, problem.prompt) for problem in load_humaneval(home / "humaneval" / "humaneval.jsonl")]
        else:
            every = load_mbpp(home / "mbpp" / "sanitized-mbpp.jsonl")
            problems = [(problem, mbpp_few_shot(problem, every)) for problem in mbpp_test_split(every)]
        found[name] = problems[: config.limit]
    return found


def write_programs(
    config: CodeConfig,
    problems: dict[str, list[tuple[CodeProblem, str]]],
    subject: Subject,
    answers: Answers,
    track: Track,
) -> dict[str, list[str]]:
    """What the model wrote for each problem, `config.samples` texts, by the problem's id.

    Raises:
      UserError: a problem does not fit the model; it names the problem.
    """
    requests = []
    for problem, prompt in (pair for pairs in problems.values() for pair in pairs):
        stop = () if config.chat else problem.stop
        sampling = dataclasses.replace(config.sampling, n=config.samples, stop=stop)
        if config.samples == 1:
            sampling = dataclasses.replace(sampling, temperature=0.0)
        asked: Prompt = (Message("user", problem.question),) if config.chat else prompt
        text = problem.question if config.chat else prompt
        key = question("program", config.chat, text, dataclasses.asdict(sampling))
        requests.append((key, Request(id=problem.id, prompt=asked, sampling=sampling)))
    how = {"engine": config.engine, "max_length": config.max_length, "track": track, "label": "programs written"}
    written = write_texts(subject, requests, answers, **how)
    return {request.id: texts for (_, request), texts in zip(requests, written, strict=True)}


def judge(
    config: CodeConfig,
    problems: dict[str, list[tuple[CodeProblem, str]]],
    written: dict[str, list[str]],
    track: Track,
) -> list[Sample]:
    """A record of each problem, from running what was written for it."""
    limits = Limits(wall_seconds=config.seconds, cpu_seconds=config.seconds, memory_bytes=config.memory_mib * 2**20)
    samples = []
    with track("programs run", sum(map(len, written.values()))) as advance:
        for name, pairs in problems.items():
            for first in range(0, len(pairs), _AT_A_TIME):
                part = [problem for problem, _ in pairs[first : first + _AT_A_TIME]]
                ends = _run(config, part, written, limits)
                samples += [_record(config, name, problem, written[problem.id], ends[problem.id]) for problem in part]
                advance(sum(map(len, ends.values())))
    return samples


def _run(
    config: CodeConfig, problems: Sequence[CodeProblem], written: dict[str, list[str]], limits: Limits
) -> dict[str, list[str]]:
    """How each program of each problem ended; of several processes the first runs them."""
    programs = [
        (problem.id, problem.answered(text) if config.chat else problem.completed(text))
        for problem in problems
        for text in written[problem.id]
    ]
    statuses: list[str] = []
    if jax.process_index() == 0:
        outcomes = run_programs([program for _, program in programs], limits, workers=config.workers)
        statuses = [outcome.status for outcome in outcomes]
    ends: dict[str, list[str]] = {problem.id: [] for problem in problems}
    for (problem, _), status in zip(programs, agree_on(statuses), strict=True):
        ends[problem].append(status)
    return ends


def _record(config: CodeConfig, name: str, problem: CodeProblem, texts: Sequence[str], ends: Sequence[str]) -> Sample:
    right = ends.count("passed")
    return Sample(
        id=f"{name}/{problem.id}",
        task=name,
        family=name,
        item=problem.id,
        language="python",
        metrics={f"pass@{k}": pass_at_k(len(ends), right, k) for k in config.k},
        prediction=texts[0],
        target=problem.solution,
        prompt=problem.question if config.chat else problem.prompt,
        doc={"ends": list(ends), "programs": list(texts)},
    )
