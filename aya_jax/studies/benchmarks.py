"""`aya compare`: what models scored on benchmarks, what of it is a difference, and what they answered, on one page.

Everything is computed from the records of single questions. Two models are compared on the questions that both were asked, pair
by pair; what only one was asked is counted and said.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import write_atomic
from aya_jax.evaluation.results import Sample, read_samples, read_summary, tabulate
from aya_jax.evaluation.statistics import (
    Difference,
    Differences,
    Interval,
    Means,
    Scores,
    differences,
    holm,
    intervals,
    is_finding,
)
from aya_jax.studies import palette
from aya_jax.studies.config import CompareConfig
from aya_jax.studies.report import environment
from aya_jax.studies.tables import Cell, Column, Table

_FIRST = ("acc", "exact_match", "chrf++", "f1")
_SETTINGS = ("fingerprint", "harness", "limit")


@dataclasses.dataclass(frozen=True)
class Model:
    """One model's evaluation.

    Attributes:
      name: short, and another for each.
      directory: of the run.
      summary: of the evaluation.
      samples: its records.
    """

    name: str
    directory: Path
    summary: dict[str, Any]
    samples: list[Sample]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One family of tasks.

    Attributes:
      family: its name.
      metric: what is compared.
      means: of each model, in order; None where it was not measured.
      scores: of each model.
      against: differences of each model but the first from it; None where they share no question.
      missing: of each model, questions that others were asked and it was not.
    """

    family: str
    metric: str
    means: tuple[Means | None, ...]
    scores: tuple[Scores | None, ...]
    against: tuple[Differences | None, ...]
    missing: tuple[int, ...]


def run(resolved: Resolved[CompareConfig]) -> None:
    """Writes `benchmarks.html` and prints the differences.

    Raises:
      UserError: a directory has no such evaluation.
    """
    config = resolved.config
    models = read_models(config)
    benchmarks = compare(models, config)
    file = Path(config.output_dir or config.run_dirs[-1]) / "benchmarks.html"
    write_atomic(file, render(models, benchmarks, config))
    console = Console()
    for sentence in sentences(models, benchmarks):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Wrote {file}", highlight=False, markup=False, soft_wrap=True)


def read_models(config: CompareConfig) -> list[Model]:
    """The evaluations, named by their directories.

    Raises:
      UserError: one is missing, or is of something else.
    """
    models = []
    for directory in map(Path, config.run_dirs):
        file = directory / "evaluations" / f"{config.name}.json"
        summary = read_summary(file)
        if summary is None or summary.get("kind") != "benchmarks":
            raise UserError(
                f"{file}: no evaluation of benchmarks is there; run aya evaluate gin/evaluate/benchmarks.gin"
            )
        models.append(Model(directory.name, directory, summary, read_samples(file)))
    if len({model.name for model in models}) < len(models):
        models = [dataclasses.replace(model, name=str(model.directory)) for model in models]
    return models


def compare(models: Sequence[Model], config: CompareConfig) -> list[Benchmark]:
    """Means and differences of every family that any model was measured on; macro means' p-values adjusted over families."""
    tables = [tabulate(model.samples) for model in models]
    families: dict[str, list[str]] = {}
    for family, metric in dict.fromkeys(key for table in tables for key in table):
        families.setdefault(family, []).append(metric)
    found = [
        _benchmark(family, _metric(metrics, config.metric), tables, config) for family, metrics in families.items()
    ]
    for place in range(len(models) - 1):
        measured = [k for k, benchmark in enumerate(found) if benchmark.against[place] is not None]
        adjusted = holm([found[k].against[place].macro.p for k in measured])
        for k, p in zip(measured, adjusted, strict=True):
            against = list(found[k].against)
            macro = dataclasses.replace(against[place].macro, adjusted=p)
            against[place] = dataclasses.replace(against[place], macro=macro)
            found[k] = dataclasses.replace(found[k], against=tuple(against))
    return found


def _metric(metrics: Sequence[str], wanted: str) -> str:
    if wanted in metrics:
        return wanted
    for name in _FIRST:
        named = [metric for metric in metrics if metric.split(",")[0] == name]
        if named:
            return named[-1]  # of several readings of an answer, the most lenient comes last
    return metrics[0]


def _benchmark(
    family: str, metric: str, tables: Sequence[dict[tuple[str, str], Scores]], config: CompareConfig
) -> Benchmark:
    scores = tuple(table.get((family, metric)) for table in tables)
    asked = {(item, language) for found in scores if found is not None for item, language in _asked(found)}
    return Benchmark(
        family,
        metric,
        tuple(None if s is None else intervals(s, resamples=config.resamples) for s in scores),
        scores,
        tuple(_against(scores[0], other, config.resamples) for other in scores[1:]),
        tuple(len(asked) - (0 if s is None else sum(1 for _ in _asked(s))) for s in scores),
    )


def _asked(scores: Scores) -> Iterable[tuple[str, str]]:
    for row, column in zip(*(~(scores.values != scores.values)).nonzero(), strict=True):
        yield scores.items[row], scores.languages[column]


def _against(first: Scores | None, other: Scores | None, resamples: int) -> Differences | None:
    if first is None or other is None:
        return None
    try:
        return differences(first, other, resamples=resamples)
    except ValueError:
        return None


def sentences(models: Sequence[Model], benchmarks: Sequence[Benchmark]) -> list[str]:
    """What is known, and what is not: one sentence for each benchmark and model but the first."""
    found = []
    for place, model in enumerate(models[1:]):
        for benchmark in benchmarks:
            against = benchmark.against[place]
            if against is None:
                continue
            macro, scale = against.macro, _scale(benchmark.metric)
            size = (
                f"{_signed(macro.interval, scale)} on {benchmark.family}, p {macro.adjusted:.3f} among all benchmarks"
            )
            if is_finding(macro):
                word = "better" if macro.interval.estimate > 0 else "worse"
                found.append(f"{model.name} is {word} than {models[0].name}: {size}.")
            else:
                found.append(
                    f"{model.name} and {models[0].name} are not told apart: {size}; a difference of "
                    f"{scale * macro.detectable:.1f} would have been found in 4 of 5 cases."
                )
    return found


def warnings(models: Sequence[Model], benchmarks: Sequence[Benchmark]) -> list[str]:
    """What keeps numbers from being what they seem."""
    found = [
        f"{model.name}: only the first {model.summary['limit']} rows of each task were asked; this is a try, not a result."
        for model in models
        if model.summary.get("limit")
    ]
    for name, what in zip(_SETTINGS[:2], ("settings", "releases of the harness"), strict=True):
        if len({model.summary.get(name) for model in models}) > 1:
            found.append(f"The models were measured with different {what}.")
    for benchmark in benchmarks:
        for model, missing in zip(models, benchmark.missing, strict=True):
            if missing:
                found.append(f"{benchmark.family}: {model.name} was not asked {missing:,} questions that others were.")
    return found


def render(models: Sequence[Model], benchmarks: Sequence[Benchmark], config: CompareConfig) -> str:
    """The page."""
    return (
        environment(autoescape=True)
        .get_template("benchmarks.html.j2")
        .render(
            title=" and ".join(model.name for model in models) + " on benchmarks",
            sentences=sentences(models, benchmarks) or ["One model's scores."],
            warnings=warnings(models, benchmarks),
            facts=[
                ("models", str(len(models))),
                ("benchmarks", str(len(benchmarks))),
                ("questions", f"{sum(len(model.samples) for model in models):,}"),
                ("resamples", f"{config.resamples:,}"),
            ],
            heat=[heat_map(models, benchmarks, place) for place in range(len(models))],
            differences=[differences_table(models, benchmarks, place) for place in range(len(models) - 1)],
            models=[(m.name, str(m.directory), m.summary["weights_digest"][:16], m.summary["harness"]) for m in models],
            samples=[(benchmark.family, side_by_side(models, benchmark, config.samples)) for benchmark in benchmarks],
            names=[model.name for model in models],
            light=palette.css_variables(dark=False),
            dark=palette.css_variables(dark=True),
        )
    )


def heat_map(models: Sequence[Model], benchmarks: Sequence[Benchmark], place: int) -> Table:
    """A model's means, languages down and benchmarks across, coloured by value within each benchmark."""
    measured = [b for b in benchmarks if b.means[place] is not None]
    languages = sorted({language for b in measured for language in b.scores[place].languages})
    rows = []
    for language in languages:
        cells = [Cell(language)]
        for benchmark in measured:
            scores, means = benchmark.scores[place], benchmark.means[place]
            if language in scores.languages:
                cells.append(_mean(benchmark, means.languages[scores.languages.index(language)]))
            else:
                cells.append(Cell("", faint=True))
        rows.append(tuple(cells))
    rows.append((Cell("mean of languages"), *(_mean(b, b.means[place].macro) for b in measured)))
    return Table(
        f"scores-{place}",
        models[place].name,
        "Percent right (chrF++ as it is), and where 95 % of resamples lie. Deeper is higher.",
        (Column("language", numeric=False), *(Column(b.family, hint=b.metric) for b in measured)),
        tuple(rows),
    )


def differences_table(models: Sequence[Model], benchmarks: Sequence[Benchmark], place: int) -> Table:
    """A model's differences from the first, by benchmark and language."""
    rows = []
    for benchmark in benchmarks:
        against = benchmark.against[place]
        if against is None:
            continue
        several = len(against.languages) > 1
        for language, found in zip(against.languages, against.by_language, strict=True):
            rows.append(_difference_row(benchmark, language, found))
        if several:
            rows.append(_difference_row(benchmark, "mean of languages", against.macro))
    return Table(
        f"differences-{place}",
        f"{models[place + 1].name} less {models[0].name}",
        "On the questions that both were asked, pair by pair. Grey: not told from nothing. p is adjusted for all languages of "
        "a benchmark (for the means: all benchmarks) by Holm's method; the smallest difference is what a comparison of this "
        "size finds in 4 of 5 cases.",
        (
            Column("benchmark", numeric=False),
            Column("language", numeric=False),
            Column("difference"),
            Column("p, adjusted"),
            Column("smallest difference"),
            Column("questions"),
        ),
        tuple(rows),
    )


def _difference_row(benchmark: Benchmark, language: str, found: Difference) -> tuple[Cell, ...]:
    scale, told = _scale(benchmark.metric), is_finding(found)
    tone = -max(-1.0, min(1.0, scale * found.interval.estimate / 20)) if told else None
    text = f"{scale * found.interval.estimate:+.1f}"
    note = f"{scale * found.interval.low:+.1f} to {scale * found.interval.high:+.1f}"
    return (
        Cell(benchmark.family),
        Cell(language),
        Cell(text, note, tone=tone, faint=not told),
        Cell(f"{found.adjusted:.3f}"),
        Cell(f"{scale * found.detectable:.1f}"),
        Cell(f"{found.shared:,}"),
    )


def side_by_side(models: Sequence[Model], benchmark: Benchmark, count: int) -> list[dict[str, Any]]:
    """Questions with every model's answer; first those on which the models differ, one language after the other."""
    by_id = [
        {
            (s.item, s.language): s
            for s in model.samples
            if s.family == benchmark.family and benchmark.metric in s.metrics
        }
        for model in models
    ]
    shared = [key for key in by_id[0] if all(key in found for found in by_id)]
    by_language: dict[str, list[tuple[str, str]]] = {}
    for key in sorted(shared, key=lambda k: len({f[k].metrics[benchmark.metric] for f in by_id}) == 1):
        by_language.setdefault(key[1], []).append(key)
    turns = [
        by_language[language][turn]
        for turn in range(max(map(len, by_language.values()), default=0))
        for language in by_language
        if turn < len(by_language[language])
    ]
    return [
        {
            "language": key[1],
            "prompt": by_id[0][key].prompt,
            "target": _said(by_id[0][key], by_id[0][key].target),
            "answers": [
                (_said(f[key], f[key].prediction), f"{_scale(benchmark.metric) * f[key].metrics[benchmark.metric]:.0f}")
                for f in by_id
            ],
        }
        for key in turns[:count]
    ]


def _said(sample: Sample, answer: Any) -> str:
    if isinstance(answer, int) and 0 <= answer < len(sample.choices):
        return sample.choices[answer]
    return "" if answer is None else str(answer)


def _mean(benchmark: Benchmark, found: Interval) -> Cell:
    scale = _scale(benchmark.metric)
    share = max(0.0, min(1.0, scale * found.estimate / 100))
    return Cell(f"{scale * found.estimate:.1f}", f"{scale * found.low:.0f}–{scale * found.high:.0f}", tone=-share)


def _signed(interval: Interval, scale: float) -> str:
    return f"{scale * interval.estimate:+.1f} ({scale * interval.low:+.1f} to {scale * interval.high:+.1f})"


def _scale(metric: str) -> float:
    """Shares are shown in percent; chrF++ goes to 100 by itself."""
    return 1.0 if metric.startswith("chrf") else 100.0
