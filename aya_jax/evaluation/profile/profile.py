"""The profile of a set of answers, and what a teacher's data does to it (LLM See, LLM Do, 2407.01490).

Passive inheritance compares three sets of answers to the same prompts: the student's before and after it was tuned on the
teacher's text, and the teacher's own. Differences are paired over prompts: a prompt that calls for a long answer does so for
all three. Languages are kept apart, as units of text differ between them (`words.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate, ratio
from aya_jax.evaluation.profile.text_metrics import METRICS, text_profile


class Answer(NamedTuple):
    """One answer.

    Attributes:
      prompt_id: of the prompt; the same for all models.
      language: ISO 639-1 code.
      text: the answer.
    """

    prompt_id: str
    language: str
    text: str


@dataclass(frozen=True)
class MetricSummary:
    """One metric over the answers in a language.

    Attributes:
      count: answers that it is defined for.
      undefined: answers that it is not defined for, which are left out.
      mean, median: over the others.
    """

    count: int
    undefined: int
    mean: Estimate
    median: Estimate


@dataclass(frozen=True)
class Comparison:
    """One metric before and after tuning on a teacher's text, over prompts that all three answered.

    Attributes:
      count: prompts for which it is defined in all three answers.
      undefined: other shared prompts, which are left out.
      before, after, teacher: means.
      change: mean of after - before.
      distance_before, distance_after: mean of student - teacher, before and after.
    """

    count: int
    undefined: int
    before: Estimate
    after: Estimate
    teacher: Estimate
    change: Estimate
    distance_before: Estimate
    distance_after: Estimate


Profile = Mapping[str, Mapping[str, MetricSummary]]
"""Language → metric → summary."""

_MODELS = ("before", "after", "teacher")
_PAIRS = {
    "change": ("after", "before"),
    "distance_before": ("before", "teacher"),
    "distance_after": ("after", "teacher"),
}


def measure(answers: Iterable[Answer]) -> dict[tuple[str, str], np.ndarray]:
    """Metrics of each answer: (language, prompt id) → float64 [metrics] in the order of `METRICS`, NaN where undefined.

    Raises:
      UserError: a prompt is answered twice in a language.
    """
    table: dict[tuple[str, str], np.ndarray] = {}
    for answer in answers:
        key = (answer.language, answer.prompt_id)
        if key in table:
            raise UserError(f"prompt {answer.prompt_id!r} is answered twice in language {answer.language!r}")
        found = text_profile(answer.text, answer.language)
        values = (getattr(found, metric) for metric in METRICS)
        table[key] = np.array([np.nan if value is None else value for value in values], np.float64)
    return table


def profile(answers: Iterable[Answer], bootstrap: Bootstrap | None = None) -> dict[str, dict[str, MetricSummary]]:
    """Mean and median of every metric by language, with intervals over answers.

    Raises:
      UserError: a prompt is answered twice in a language.
    """
    measured = measure(answers)
    return {
        language: _by_metric(np.stack([measured[key] for key in keys]), _summary, bootstrap or Bootstrap())
        for language, keys in _by_language(measured).items()
    }


def compare(
    before: Iterable[Answer], after: Iterable[Answer], teacher: Iterable[Answer], bootstrap: Bootstrap | None = None
) -> dict[str, dict[str, Comparison]]:
    """Before, after and teacher with paired differences: language → metric → comparison.

    Prompts that one of the three did not answer are left out; languages without shared prompts too.

    Raises:
      UserError: a prompt is answered twice in a language, or no prompt is shared.
    """
    tables = [measure(answers) for answers in (before, after, teacher)]
    shared = [key for key in tables[0] if key in tables[1] and key in tables[2]]
    if not shared:
        raise UserError("no prompt was answered by the student before, the student after and the teacher")
    return {
        language: _by_metric(
            np.stack([[table[key] for table in tables] for key in keys]), _comparison, bootstrap or Bootstrap()
        )
        for language, keys in _by_language(shared).items()
    }


def table_rows(summaries: Mapping[str, Mapping[str, MetricSummary | Comparison]]) -> list[dict[str, Any]]:
    """Flat rows for a report or a file: language, metric, counts, and for each estimate its value, `_low` and `_high`."""
    rows = []
    for language, metrics in summaries.items():
        for metric, summary in metrics.items():
            row: dict[str, Any] = {"language": language, "metric": metric}
            for name in summary.__dataclass_fields__:
                value = getattr(summary, name)
                if isinstance(value, Estimate):
                    row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
                else:
                    row[name] = value
            rows.append(row)
    return rows


def weighted_median(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median of each row's copies; values [N], counts [R, N] → [R]. The mean of the two in the middle of an even number."""
    order = np.argsort(values)
    ends = np.cumsum(counts[:, order], axis=1)
    middle = (ends[:, -1:] - 1) / 2  # position among the copies, from 0
    low = np.argmax(ends > np.floor(middle), axis=1)
    high = np.argmax(ends > np.ceil(middle), axis=1)
    return (values[order][low] + values[order][high]) / 2


def _by_language(keys: Iterable[tuple[str, str]]) -> dict[str, list[tuple[str, str]]]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        groups.setdefault(key[0], []).append(key)
    return dict(sorted(groups.items()))


def _by_metric(
    values: np.ndarray, summarize: Callable[[np.ndarray, Bootstrap], Any], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Summaries of values [N, ..., metrics]."""
    return {metric: summarize(values[..., number], bootstrap) for number, metric in enumerate(METRICS)}


def _summary(values: np.ndarray, bootstrap: Bootstrap) -> MetricSummary:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return MetricSummary(0, len(values), Estimate(None), Estimate(None))
    found = estimate(
        lambda counts: np.stack([counts @ defined / len(defined), weighted_median(defined, counts)], axis=1),
        len(defined),
        bootstrap,
    )
    return MetricSummary(len(defined), len(values) - len(defined), found.at(0), found.at(1))


def _comparison(values: np.ndarray, bootstrap: Bootstrap) -> Comparison:
    """Of values [N, 3]."""
    defined = values[~np.isnan(values).any(axis=1)]
    by_name = dict(zip(_MODELS, defined.T, strict=True))
    columns = np.stack([*by_name.values(), *(by_name[a] - by_name[b] for a, b in _PAIRS.values())], axis=1)
    found = estimate(lambda counts: ratio(counts @ columns, counts.sum(axis=1, keepdims=True)), len(defined), bootstrap)
    estimates = {name: found.at(number) for number, name in enumerate((*_MODELS, *_PAIRS))}
    return Comparison(count=len(defined), undefined=len(values) - len(defined), **estimates)
