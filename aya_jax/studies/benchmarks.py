"""`aya compare`: what models scored on benchmarks, what of it is a difference, and what they answered, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from aya_jax.config import Resolved
from aya_jax.config.files import write_atomic
from aya_jax.evaluation.statistics import Interval, is_finding
from aya_jax.studies import cultural
from aya_jax.studies.benchmark_scores import Benchmark, Model, compare, read_models
from aya_jax.studies.benchmarks_page import render
from aya_jax.studies.config import CompareConfig

_SETTINGS = {"fingerprint": "settings", "harness": "releases of the harness"}


def run(resolved: Resolved[CompareConfig]) -> None:
    """Writes `benchmarks.html` and prints the differences.

    Raises:
      UserError: a directory has no such evaluation.
    """
    config = resolved.config
    models = read_models(config)
    benchmarks = compare(models, config)
    file = Path(config.output_dir or config.run_dirs[-1]) / "benchmarks.html"
    ranks, notes = cultural.find({model.name: model.samples for model in models}, config.resamples)
    notes = left_out(models, config) + notes
    said = sentences(models, benchmarks)
    write_atomic(file, render(models, benchmarks, config, said, warnings(models, benchmarks) + notes, ranks))
    console = Console()
    for sentence in said + notes:
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    if ranks is not None:
        cultural.show(console, ranks)
    console.print(f"Wrote {file}", highlight=False, markup=False, soft_wrap=True)


def sentences(models: Sequence[Model], benchmarks: Sequence[Benchmark]) -> list[str]:
    """What is known, and what is not: one sentence for each benchmark and model but the first."""
    found = []
    for place, model in enumerate(models[1:]):
        for benchmark in benchmarks:
            against = benchmark.against[place]
            if against is None:
                continue
            macro = against.macro
            size = (
                f"{_signed(macro.interval, benchmark)} on {benchmark.name}, p {macro.adjusted:.3f} among all benchmarks"
            )
            if is_finding(macro):
                words = ("better", "worse") if benchmark.unit is None else ("higher", "lower")
                word = words[macro.interval.estimate < 0]
                found.append(f"{model.name} is {word} than {models[0].name}: {size}.")
            else:
                found.append(
                    f"{model.name} and {models[0].name} are not told apart: {size}; a difference of "
                    f"{benchmark.scale * macro.detectable:.{benchmark.digits}f} would have been found in 4 of 5 cases."
                )
    return found


def left_out(models: Sequence[Model], config: CompareConfig) -> list[str]:
    """What contamination takes away."""
    return [
        f"{model.name}: left out as contaminated ({config.without}): {model.left_out:,}."
        for model in models
        if config.without
    ]


def warnings(models: Sequence[Model], benchmarks: Sequence[Benchmark]) -> list[str]:
    """What keeps numbers from being what they seem."""
    found = [
        f"{model.name}: only the first {model.summary['limit']} rows of each task were asked; this is a try, not a result."
        for model in models
        if model.summary.get("limit")
    ]
    for name, what in _SETTINGS.items():
        if len({model.summary.get(name) for model in models}) > 1:
            found.append(f"The models were measured with different {what}.")
    for benchmark in benchmarks:
        for model, missing in zip(models, benchmark.missing, strict=True):
            if missing:
                found.append(f"{benchmark.name}: {model.name} was not asked {missing:,} questions that others were.")
    return found


def _signed(interval: Interval, benchmark: Benchmark) -> str:
    shown = (benchmark.scale * value for value in (interval.estimate, interval.low, interval.high))
    return "{:+.{d}f} ({:+.{d}f} to {:+.{d}f})".format(*shown, d=benchmark.digits)
