"""Results of benchmarks on disk: one record per question, and a summary that is computed from the records alone.

`evaluations/<name>.samples.jsonl` has the records, `evaluations/<name>.json` the summary. Whoever compares models reads the
records: two answers to one question are a pair, two averages are not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.evaluation.statistics import Scores, intervals


@dataclasses.dataclass(frozen=True)
class Sample:
    """One question and what a model made of it.

    Attributes:
      id: "<task>/<number>"; the same question has the same id whatever model is asked.
      task: that it is from.
      family: what the task is in other languages too: `xcopa` for `xcopa_zh`.
      item: the question, by a name that is the same in all languages where it is the same question.
      language: ISO 639-1 code, or the benchmark's own name of it.
      metrics: what it scored, by name.
      prediction: the answer, or the number of the choice.
      target: what would have been right, or the number of that choice.
      prompt: the question as it was put, without examples before it.
      choices: their texts, where there are any.
      log_probs: of each choice.
      doc: the benchmark's row.
    """

    id: str
    task: str
    family: str
    item: str
    language: str
    metrics: Mapping[str, float]
    prediction: str | int | None
    target: Any
    prompt: str
    choices: tuple[str, ...] = ()
    log_probs: tuple[float, ...] = ()
    doc: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write(file: Path, heading: Mapping[str, Any], samples: Sequence[Sample], *, first: bool = True) -> dict[str, Any]:
    """Writes the records and, last, the summary, which it returns; of several processes the `first` alone writes."""
    summary = {**heading, "families": summarize(samples)}
    if not first:
        return summary
    lines = (json.dumps(dataclasses.asdict(sample), ensure_ascii=False) for sample in samples)
    write_atomic(samples_file(file), "".join(f"{line}\n" for line in lines))
    write_atomic(file, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return summary


def samples_file(file: Path) -> Path:
    """Where the records of a summary are."""
    return file.with_suffix(".samples.jsonl")


def read_summary(file: Path) -> dict[str, Any] | None:
    """A summary; None where there is none, or it was cut short."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_samples(file: Path) -> list[Sample]:
    """The records of a summary.

    Raises:
      UserError: there are none, or a line is no record.
    """
    path, names = samples_file(file), {field.name for field in dataclasses.fields(Sample)}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold other characters that end lines
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; run `aya evaluate` again") from error
    samples = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            fields = json.loads(line)
            samples.append(Sample(**{name: value for name, value in fields.items() if name in names}))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: not a record of a benchmark ({error}); run `aya evaluate` again"
            ) from error
    return samples


def plain(value: Any) -> Any:
    """What JSON has a form for: dataclasses and named tuples as objects, what is no number as null, functions by name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


def tabulate(samples: Iterable[Sample]) -> dict[tuple[str, str], Scores]:
    """The records as matrices of questions and languages, one for each (family, metric)."""
    values: dict[tuple[str, str], dict[tuple[str, str], float]] = defaultdict(dict)
    for sample in samples:
        for metric, value in sample.metrics.items():
            values[sample.family, metric][sample.item, sample.language] = value
    return {key: Scores.of(found) for key, found in values.items()}


def summarize(samples: Iterable[Sample]) -> dict[str, Any]:
    """Of each family and metric: the mean of each language with its interval, and their macro mean, the languages' mean."""
    summary: dict[str, Any] = defaultdict(dict)
    for (family, metric), scores in tabulate(samples).items():
        found = intervals(scores)
        summary[family][metric] = {
            "languages": {
                language: {"n": int(count), **interval.record()}
                for language, count, interval in zip(
                    scores.languages, np.sum(~np.isnan(scores.values), axis=0), found.languages, strict=True
                )
            },
            "macro": found.macro.record(),
        }
    return dict(summary)
