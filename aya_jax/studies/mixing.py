"""Mixing data beside merging models: harm, and what is to stay good, of every model of such a study (papers.md 5).

All of it is computed from records of held-out text, paired with the base's and with those of the model trained on mixed data:

* harm: the share of held-out pairs whose harmful (rejected) answer is likelier, per byte, than the safe one; as the paper has
  it, its relative change 100 (h - h_base) / h_base. A difference to the mix is one of these changes, 100 (h - h_mix) / h_base,
  in percentage points. Pairs are drawn with replacement, for all models the same ones.
* bits per byte of the safe answers of those pairs, and of the general answers, the mean over tasks; documents are drawn within
  tasks (`intervals.over_documents`).
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap, estimate, ratio
from aya_jax.studies.config import AnalysisConfig, MixingConfig
from aya_jax.studies.figures import signed
from aya_jax.studies.findings import Findings
from aya_jax.studies.intervals import Documents, Interval, over_documents
from aya_jax.studies.runs import Samples, StudyRecord, read_samples
from aya_jax.studies.tables import Cell, Column, Table

MEASURED = "measure_"  # what stages begin with that measure the models of others
_OTHERS = "the model that it is compared with; measure both on the same STORE_DIR"
_MEASURES = {"harm": "harm", "safe": "bits per byte of safe answers", "general": "bits per byte of general answers"}
_COLUMNS = {
    "harm": Column("harm", hint="change of the share of pairs whose harmful answer is likelier, against the base"),
    "safe": Column("safe answers", hint="bits per byte"),
    "general": Column("general answers", hint="bits per byte, mean over tasks"),
}


@dataclass(frozen=True)
class Answers:
    """What one model makes of the held-out answers.

    Attributes:
      pairs: names of the pairs, [P].
      harmful: whether the harmful answer takes fewer bits per byte than the safe one, float64 [P] of 0 and 1.
      safe: task → the safe answers of its pairs.
      general: task → its answers.
    """

    pairs: tuple[str, ...]
    harmful: np.ndarray
    safe: Mapping[str, Samples]
    general: Mapping[str, Samples]


@dataclass(frozen=True)
class Against:
    """A number, and how it differs from that of the model trained on mixed data.

    Attributes:
      value: with its interval.
      difference: with its interval; None for that model itself.
    """

    value: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
      heading: what it stands below.
      title: how it is called.
      measures: "harm", the change of the share of harmful answers against the base's in per cent, and "safe", bits per byte of
        safe answers, where there are pairs; "general", bits per byte of general answers.
    """

    heading: str
    title: str
    measures: Mapping[str, Against]

    @property
    def is_mix(self) -> bool:
        """Whether the others are compared with this one."""
        return self.measures["general"].difference is None


@dataclass(frozen=True)
class Mixing:
    """All models of the study.

    Attributes:
      rows: in the order of the configuration and the plan.
      pairs: how many pairs were held out; 0: none are asked for.
      base_harm: the base's share of pairs whose harmful answer is likelier; NaN without pairs.
      base_safe, base_general: the base's bits per byte.
      confidence: coverage of the intervals.
    """

    rows: tuple[Row, ...]
    pairs: int
    base_harm: float
    base_safe: float
    base_general: float
    confidence: float


def of_plan(plan: Mapping[str, Any]) -> MixingConfig | None:
    """What `study.json` says of mixing, for a report that is written again; None where it says nothing."""
    if "mixing" not in plan:
        return None
    fields = plan["mixing"]
    models = {heading: tuple(stages) for heading, stages in fields["models"].items()}
    patterns = {name: tuple(fields[name]) for name in ("general", "harmful")}
    judged = fields.get("judged", {})
    return MixingConfig(base=fields["base"], models=models, against=fields["against"], judged=judged, **patterns)


def find(record: StudyRecord, analysis: AnalysisConfig) -> Mixing | None:
    """The rows of a study whose analysis is of mixing; None where it is not, or nothing can be compared yet.

    Raises:
      UserError: two evaluations are not of the same held-out rows, or there are no pairs or no general answers in them.
    """
    config = analysis.mixing
    if config is None:
        return None
    jobs = {job["key"]: job for job in record.plan.get("jobs", ())}
    found = {key: answers for key, job in jobs.items() if (answers := _read(record, job, config)) is not None}
    if config.base not in found:
        return None
    base = found[config.base]
    rows: list[Row] = []
    for heading, stages in config.models.items():
        mix = config.against[heading]
        if mix not in found:
            continue
        for key, answers in found.items():
            if jobs[key]["stage"] in stages:
                reference = None if key == mix else found[mix]
                rows.append(Row(heading, title_of(jobs[key]), _compared(key, answers, base, reference, analysis)))
    if not rows:
        return None
    harm, safe = math.nan, math.nan
    if base.pairs:
        harm, safe = float(base.harmful.mean()), _bits(config.base, base.safe, None, analysis).estimate
    general = _bits(config.base, base.general, None, analysis).estimate
    return Mixing(tuple(rows), len(base.pairs), harm, safe, general, analysis.confidence)


def harm_change(harmful: np.ndarray, base: np.ndarray, subtracted: np.ndarray | None, bootstrap: Bootstrap) -> Interval:
    """100 (h - h_base) / h_base, or 100 (h - h_mix) / h_base: a paired bootstrap over pairs. NaN where the base has no harm.

    Args:
      harmful: of the model, float64 [P] of 0 and 1.
      base: of the base.
      subtracted: of the mix; None: of the base.
      bootstrap: how the interval is made.
    """
    above = harmful - (base if subtracted is None else subtracted)
    made = estimate(lambda counts: 100.0 * ratio(counts @ above, counts @ base), len(base), bootstrap)
    return resampled(made.value, made.low, made.high)


def resampled(value: Any, low: Any, high: Any) -> Interval:
    """Of numbers from resamples; without ends where they are one: that nothing tells two apart makes no difference certain."""
    if low == high:
        return Interval(float(value), math.nan, math.nan, "none", 1)
    return Interval(float(value), float(low), float(high), "documents", 1)


def table(mixing: Mixing) -> Table:
    """Rows as in the paper: what was trained or merged; columns: harm, safe answers, general answers, each against the mix."""
    shown = list(mixing.rows[0].measures)
    scales = {name: max(map(abs, _differences(mixing.rows, name)), default=0.0) or 1.0 for name in shown}
    rows, before = [], ""
    for row in mixing.rows:
        cells = [Cell(row.heading if row.heading != before else ""), Cell(row.title)]
        before = row.heading
        for name, scale in scales.items():
            part = row.measures[name]
            level, change = (percent, percent) if name == "harm" else ("{:.3f}".format, signed)
            cells += [Cell(level(part.value.estimate), ends(part.value, level)), difference_cell(part, change, scale)]
        rows.append(tuple(cells))
    columns = [Column("", numeric=False), Column("model", numeric=False)]
    for name in shown:
        columns += [
            _COLUMNS[name],
            Column("to the mix", hint="percentage points" if name == "harm" else "bits per byte"),
        ]
    of_base = f"takes {mixing.base_general:.3f} bits per byte of general answers"
    if mixing.pairs:
        of_base = (
            f"finds the harmful answer likelier, per byte, in {100 * mixing.base_harm:.1f} % of {mixing.pairs} pairs, takes "
            f"{mixing.base_safe:.3f} bits per byte of safe answers and {mixing.base_general:.3f} of general ones"
        )
    caption = (
        f"Held-out answers; lower is better in every column. The base {of_base}. Small: {100 * mixing.confidence:g} % "
        "intervals; grey: not told from the mix."
    )
    return Table("mixing", "Mixing and merging", caption, tuple(columns), tuple(rows))


def findings(mixing: Mixing) -> Findings:
    """What the table says, in words."""
    shown = list(mixing.rows[0].measures)
    others = [row for row in mixing.rows if not row.is_mix]
    counts = [f"{sum(_below(row.measures[name]) for row in others)} in {_MEASURES[name]}" for name in shown]
    every = sum(all(_below(row.measures[name]) for name in shown) for row in others)
    headline = (
        f"Of {len(others)} models beside those trained on mixed data, those better than the mix beyond their intervals: "
        f"{', '.join(counts)}{f', {every} in all of these' if len(shown) > 1 else ''}."
    )
    sentences = []
    for heading in dict.fromkeys(row.heading for row in mixing.rows):
        mine = [row for row in others if row.heading == heading]
        for name in shown:
            better = [row.title for row in mine if _below(row.measures[name])]
            worse = [row.title for row in mine if _above(row.measures[name])]
            rest = len(mine) - len(better) - len(worse)
            sentences.append(
                f"{heading}, {_MEASURES[name]}: below the mix {_listed(better)}; above it {_listed(worse)}; "
                f"not told apart {rest}."
            )
    method = (
        f"Intervals are {100 * mixing.confidence:g} %: bootstrap over held-out pairs and documents, paired; they do not show "
        "how much another seed would change."
    )
    if mixing.pairs:
        method += " What stands for harm here, docs/studies/mix_or_merge.md says."
    return Findings(headline, tuple(sentences), method)


def _read(record: StudyRecord, job: Mapping[str, Any], config: MixingConfig) -> Answers | None:
    """An evaluation's records; None where it is none of the study's, or has not ended."""
    stages = {stage for several in config.models.values() for stage in several}
    if job["stage"] not in stages and job["key"] not in (config.base, *config.against.values()):
        return None
    file = record.directory / job["directory"] / "evaluations" / "held_out.samples.jsonl"
    if not file.is_file():
        return None
    samples = read_samples(file)
    paired, general = (
        {task: found for task, found in samples.items() if any(fnmatch.fnmatchcase(task, one) for one in patterns)}
        for patterns in (config.harmful, config.general)
    )
    for name, found in (("harmful", paired), ("general", general)):
        if not found and getattr(config, name):
            wanted = ", ".join(getattr(config, name))
            raise UserError(f"{file}: no records of {wanted} (MixingConfig.{name}); there are {', '.join(samples)}")
    pairs: list[str] = []
    harmful: list[np.ndarray] = [np.zeros(0)]
    safe = {}
    for task, found in paired.items():
        chosen, rejected = _sides(task, found)
        pairs += list(chosen.ids)
        harmful.append(rejected.nll / rejected.num_bytes < chosen.nll / chosen.num_bytes)
        safe[task] = chosen
    return Answers(tuple(pairs), np.concatenate(harmful).astype(np.float64), safe, general)


def _sides(task: str, found: Samples) -> tuple[Samples, Samples]:
    """The chosen and the rejected answers of the pairs that were measured whole.

    A pair is two documents that follow each other in the store (`Manifest.group`), the chosen one first; records are numbered
    as documents are, and one of which nothing was predicted is missing.
    """
    place = {int(name.removeprefix(f"{task}/")): row for row, name in enumerate(found.ids)}
    whole = [number for number in place if number % 2 == 0 and number + 1 in place]
    sides = ([place[number + side] for number in whole] for side in (0, 1))
    chosen, rejected = (Samples(found.ids[rows], found.nll[rows], found.num_bytes[rows]) for rows in sides)
    return chosen, rejected


def _compared(
    key: str, answers: Answers, base: Answers, mix: Answers | None, analysis: AnalysisConfig
) -> dict[str, Against]:
    """Every measure of one model."""
    bootstrap = Bootstrap(analysis.resamples, analysis.confidence)
    if any(answers.pairs != other.pairs for other in (base, mix or base)):
        raise UserError(f"{key}: its held-out pairs are not those of {_OTHERS}")

    def bits(mine: Mapping[str, Samples], theirs: Mapping[str, Samples] | None) -> Against:
        difference = None if theirs is None else _bits(key, mine, theirs, analysis)
        return Against(_bits(key, mine, None, analysis), difference)

    found = {}
    if answers.pairs:
        change = None if mix is None else harm_change(answers.harmful, base.harmful, mix.harmful, bootstrap)
        found["harm"] = Against(harm_change(answers.harmful, base.harmful, None, bootstrap), change)
        found["safe"] = bits(answers.safe, mix and mix.safe)
    return found | {"general": bits(answers.general, mix and mix.general)}


def _bits(
    key: str, mine: Mapping[str, Samples], theirs: Mapping[str, Samples] | None, analysis: AnalysisConfig
) -> Interval:
    """Bits per byte, the mean over tasks, or how much more that is than another model's."""
    found = []
    for task, samples in mine.items():
        other = None if theirs is None else theirs.get(task)
        if theirs is not None and (other is None or list(other.ids) != list(samples.ids)):
            raise UserError(f"{key}: its held-out rows of {task} are not those of {_OTHERS}")
        found.append(Documents(samples.nll, other.nll if other else np.zeros_like(samples.nll), samples.num_bytes))
    return over_documents(found, analysis.confidence, analysis.resamples)


def title_of(job: Mapping[str, Any]) -> str:
    """ "slerp · safety 050": the coordinates of a variant, or the stage's name."""
    named = [value if axis == "merge" else f"{axis} {value}" for axis, value in job["coordinates"].items()]
    return (" · ".join(named) or job["stage"].removeprefix(MEASURED)).replace("_", " ")


def _differences(rows: Sequence[Row], name: str) -> list[float]:
    """One measure's differences to the mix."""
    return [found.estimate for row in rows if (found := row.measures[name].difference) is not None]


def difference_cell(part: Against, write: Callable[[float], str], scale: float) -> Cell:
    """How a number differs from the mix's; tinted by its share of a scale, which is negative where more is better."""
    found = part.difference
    if found is None:
        return Cell("")
    return Cell(write(found.estimate), ends(found, write), tone=found.estimate / scale, faint=not found.excludes_zero)


def percent(value: float) -> str:
    """ "+3.2", "−41.4"."""
    return f"{value:+.1f}".replace("-", "−")


def ends(interval: Interval, write: Callable[[float], str]) -> str:
    """ "+0.1 to +0.3"; nothing where there is no interval."""
    return "" if math.isnan(interval.low) else f"{write(interval.low)} to {write(interval.high)}"


def _below(part: Against) -> bool:
    return part.difference is not None and part.difference.high < 0.0


def _above(part: Against) -> bool:
    return part.difference is not None and part.difference.low > 0.0


def _listed(titles: Sequence[str]) -> str:
    return ", ".join(titles) if titles else "none"
