"""Mixing data beside merging models, as a judge saw it: harm of answers to red-team prompts, and wins against the base.

The paper's own measures (papers.md 5), from the records of `aya judge` of each model, paired prompt by prompt:

* harm: the change of the rate of harmful answers against the base's, 100 (h - h_base) / h_base, over the answers that have a
  label of both; the difference to the mix is one of these changes, 100 (h - h_mix) / h_base, over those that have one of all
  three. A prompt is drawn in all of its languages.
* win rate against the base in per cent, a tie half a win, the mean over languages; the difference to the mix is of the prompts
  that both were judged on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation import statistics
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.results import read_samples
from aya_jax.evaluation.statistics import column_means, percentiles
from aya_jax.studies.config import AnalysisConfig
from aya_jax.studies.intervals import Interval
from aya_jax.studies.mixing import (
    MEASURED,
    Against,
    Row,
    difference_cell,
    ends,
    harm_change,
    percent,
    resampled,
    title_of,
)
from aya_jax.studies.runs import StudyRecord
from aya_jax.studies.tables import Cell, Column, Table

Scores = Mapping[tuple[str, str], float]
"""Of each (prompt, language): 1 for a harmful answer, a share of a win."""


class Judged(NamedTuple):
    """What a judge said of one model.

    Attributes:
      scores: of what could be read.
      base: the base's, where they were judged too: harm.
      unread: answers without a verdict.
    """

    scores: Scores
    base: Scores
    unread: int


def find(record: StudyRecord, analysis: AnalysisConfig) -> tuple[tuple[Row, ...], int] | None:
    """The rows of models that a judge has seen, and how many verdicts could not be read; None where there are none.

    Raises:
      UserError: a model and the one that it is compared with share no prompt.
    """
    config = analysis.mixing
    if config is None or not config.judged:
        return None
    bootstrap = Bootstrap(analysis.resamples, analysis.confidence)
    jobs = {job["key"]: job for job in record.plan.get("jobs", ())}
    read = functools.cache(functools.partial(_read, record.directory))
    rows, unread = [], 0
    for heading, stages in config.models.items():
        for key, job in jobs.items():
            if job["stage"] not in stages:
                continue
            found: dict[str, Against] = {}
            for name, prefix in config.judged.items():
                mine, mix = (
                    read(name, jobs[judged]["directory"]) if judged in jobs else None
                    for judged in (prefix + each.removeprefix(MEASURED) for each in (key, config.against[heading]))
                )
                if mine is not None and mix is not None:
                    unread += mine.unread
                    other = None if key == config.against[heading] else mix
                    found[name] = _MEASURES[name].compare(key, mine, other, bootstrap)
            if found:
                rows.append(Row(heading, title_of(job), found))
    return (tuple(rows), unread) if rows else None


def table(rows: Sequence[Row], unread: int, confidence: float) -> Table:
    """A row for each model; columns: harm and wins, each beside its difference to the mix."""
    shown = [name for name in _MEASURES if any(name in row.measures for row in rows)]
    scales = {name: _scale(rows, name) for name in shown}
    lines, before = [], ""
    for row in rows:
        cells = [Cell(row.heading if row.heading != before else ""), Cell(row.title)]
        before = row.heading
        for name in shown:
            part, about = row.measures.get(name), _MEASURES[name]
            if part is None:
                cells += [Cell(""), Cell("")]
                continue
            cells.append(Cell(about.write(part.value.estimate), ends(part.value, about.write)))
            cells.append(difference_cell(part, percent, about.sign * scales[name]))
        lines.append(tuple(cells))
    columns = [Column("", numeric=False), Column("model", numeric=False)]
    for name in shown:
        columns += [_MEASURES[name].column, Column("to the mix", hint="percentage points")]
    caption = (
        f"As the judge saw it. Small: {100 * confidence:g} % intervals, a bootstrap over prompts, paired; grey: not told from "
        f"the mix. {unread:,} verdicts could not be read and are left out."
    )
    return Table("judged_mixing", "Mixing and merging, judged", caption, tuple(columns), tuple(lines))


def harm(key: str, mine: Judged, mix: Judged | None, bootstrap: Bootstrap) -> Against:
    """Change of the rate of harmful answers; see the module."""

    def change(*several: Scores) -> Interval:
        of_model, of_base, *of_mix = _by_prompt(key, several)
        return harm_change(of_model, of_base, of_mix[0] if of_mix else None, bootstrap)

    difference = None if mix is None else change(mine.scores, mine.base, mix.scores)
    return Against(change(mine.scores, mine.base), difference)


def win_rate(key: str, mine: Judged, mix: Judged | None, bootstrap: Bootstrap) -> Against:
    """Win rate; see the module."""
    difference = None if mix is None else _mean_over_languages(key, mine.scores, mix.scores, bootstrap)
    return Against(_mean_over_languages(key, mine.scores, None, bootstrap), difference)


class Measure(NamedTuple):
    """How a measure is computed and shown.

    Attributes:
      compare: (key, judged, the mix's or None, bootstrap) to numbers.
      column: of the table.
      write: a number.
      sign: 1 where less is better, -1 where more is.
    """

    compare: Callable[[str, Judged, Judged | None, Bootstrap], Against]
    column: Column
    write: Callable[[float], str]
    sign: int


_MEASURES = {
    "harm": Measure(harm, Column("harm", hint="change of the rate of harmful answers, against the base"), percent, 1),
    "win": Measure(win_rate, Column("win rate", hint="per cent, against the base"), "{:.1f}".format, -1),
}


def _read(directory: Path, name: str, job: str) -> Judged | None:
    """Of a job of `aya judge`; None where it has not ended."""
    file = directory / job / "evaluations" / "judged.json"
    if not file.is_file():
        return None
    samples = read_samples(file)
    if name == "win":
        scores = {(one.item, one.language): one.metrics["win_rate"] for one in samples if one.metrics}
        return Judged(scores, {}, len(samples) - len(scores))
    labels: dict[str, dict[tuple[str, str], Any]] = {"harm": {}, "baseline": {}}
    for one in samples:
        if one.family in labels:
            labels[one.family][one.doc["prompt_id"], one.doc["language"]] = one.doc["label"]
    told = {
        family: {at: float(label) for at, label in of.items() if label is not None} for family, of in labels.items()
    }
    return Judged(told["harm"], told["baseline"], len(labels["harm"]) - len(told["harm"]))


def _shared(key: str, several: Sequence[Scores]) -> list[tuple[str, str]]:
    found = [at for at in sorted(several[0]) if all(at in other for other in several)]
    if not found:
        raise UserError(f"{key}: no prompt was judged of it and of all models that it is compared with")
    return found


def _by_prompt(key: str, several: Sequence[Scores]) -> list[np.ndarray]:
    """Sums over the languages of each prompt, float64 [P], of the answers that all have a score of."""
    shared = _shared(key, several)
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in shared))}
    found = []
    for scores in several:
        sums = np.zeros(len(places))
        for at in shared:
            sums[places[at[0]]] += scores[at]
        found.append(sums)
    return found


def _mean_over_languages(key: str, mine: Scores, theirs: Scores | None, bootstrap: Bootstrap) -> Interval:
    """In per cent; a prompt is drawn in all of its languages."""
    shared = _shared(key, [mine] if theirs is None else [mine, theirs])
    values = {at: 100.0 * (mine[at] - (theirs[at] if theirs else 0.0)) for at in shared}
    means, drawn = column_means(statistics.Scores.of(values).values, bootstrap.resamples, bootstrap.seed)
    return resampled(np.mean(means), *percentiles(np.nanmean(drawn, axis=1), bootstrap.confidence))


def _scale(rows: Sequence[Row], name: str) -> float:
    found = (row.measures[name].difference for row in rows if name in row.measures)
    return max((abs(each.estimate) for each in found if each is not None), default=0.0) or 1.0
