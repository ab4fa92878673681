"""The page of `aya compare`: differences, heat maps, and questions with every model's answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.statistics import Difference, Interval, is_finding
from aya_jax.studies import cultural, palette
from aya_jax.studies.benchmark_scores import Benchmark, Model
from aya_jax.studies.config import CompareConfig
from aya_jax.studies.report import environment
from aya_jax.studies.tables import Cell, Column, Table


def render(
    models: Sequence[Model],
    benchmarks: Sequence[Benchmark],
    config: CompareConfig,
    sentences: Sequence[str],
    warnings: Sequence[str],
    ranks: cultural.Cultural | None = None,
) -> str:
    """The page.

    Args:
      models: that are compared, the first with the others.
      benchmarks: what they scored.
      config: of the comparison.
      sentences: what is known.
      warnings: what keeps numbers from being what they seem.
      ranks: by cultural sensitivity, where there are some.
    """
    return (
        environment(autoescape=True)
        .get_template("benchmarks.html.j2")
        .render(
            title=" and ".join(model.name for model in models) + " on benchmarks",
            sentences=sentences or ["One model's scores."],
            warnings=warnings,
            facts=[
                ("models", str(len(models))),
                ("benchmarks", str(len(benchmarks))),
                ("questions", f"{sum(len(model.samples) for model in models):,}"),
                ("resamples", f"{config.resamples:,}"),
            ],
            heat=[heat_map(models, benchmarks, place) for place in range(len(models))],
            differences=[differences_table(models, benchmarks, place) for place in range(len(models) - 1)],
            cultural=cultural.tables(ranks) if ranks else [],
            cultural_sentences=cultural.sentences(ranks) if ranks else [],
            models=[(m.name, str(m.directory), m.summary["weights_digest"][:16], m.summary["harness"]) for m in models],
            samples=[(b.family, side_by_side(models, b, config.samples)) for b in _one_of_each_family(benchmarks)],
            names=[model.name for model in models],
            light=palette.css_variables(dark=False),
            dark=palette.css_variables(dark=True),
        )
    )


def _one_of_each_family(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The first of each: questions are shown once, whatever was measured of them."""
    return list({benchmark.family: benchmark for benchmark in reversed(benchmarks)}.values())[::-1]


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
        "Percent right (chrF++ of the corpus, and what is no share, as they are), and where 95 % of resamples lie. Deeper is "
        "higher.",
        (Column("language", numeric=False), *(Column(b.name, hint=b.metric) for b in measured)),
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
    scale, digits, told = benchmark.scale, benchmark.digits, is_finding(found)
    tone = -max(-1.0, min(1.0, scale * found.interval.estimate / (benchmark.whole / 5))) if told else None
    text = f"{scale * found.interval.estimate:+.{digits}f}"
    note = f"{scale * found.interval.low:+.{digits}f} to {scale * found.interval.high:+.{digits}f}"
    return (
        Cell(benchmark.name),
        Cell(language),
        Cell(text, note, tone=tone, faint=not told),
        Cell(f"{found.adjusted:.3f}"),
        Cell(f"{scale * found.detectable:.{digits}f}"),
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
                (_said(f[key], f[key].prediction), f"{benchmark.scale * f[key].metrics[benchmark.metric]:.0f}")
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
    scale, digits = benchmark.scale, benchmark.digits
    share = max(0.0, min(1.0, scale * found.estimate / benchmark.whole))
    ends = (f"{scale * end:.{digits - 1}f}" for end in (found.low, found.high))
    return Cell(f"{scale * found.estimate:.{digits}f}", "–".join(ends), tone=-share)
