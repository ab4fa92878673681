"""Rows that may have leaked: of benchmarks, of files, and of evaluations that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aya_jax.config import UserError
from aya_jax.evaluation.contamination.config import ContaminationConfig
from aya_jax.evaluation.contamination.overlap import EvaluationRow
from aya_jax.evaluation.results import Sample, read_samples, read_summary
from aya_jax.evaluation.rows import read_rows


class Evaluation(NamedTuple):
    """Records of one evaluation.

    Attributes:
      samples: the records.
      has_rows: whether their `doc` is the benchmark's row and nothing else, as of lm-evaluation-harness's tasks.
    """

    samples: list[Sample]
    has_rows: bool


def gather(
    config: ContaminationConfig, evaluations: Mapping[str, Evaluation], say: Callable[[str], None]
) -> list[EvaluationRow]:
    """All rows to look for, each once: a question that several sources have is one.

    The pieces of a benchmark's row are its texts as they were published, without the words of a prompt around them; of
    evaluations that keep no such row they are the question, its choices and the right answer.

    Args:
      config: which.
      evaluations: from `read_evaluations`.
      say: told which tasks of a pattern have no rows.

    Raises:
      UserError: a task is unknown, or a file or row is not as it has to be; with file, line and field.
    """
    rows: dict[str, EvaluationRow] = {}
    if config.tasks:
        rows |= {row.id: row for row in _of_tasks(config, say)}
    for evaluation in evaluations.values():
        rows |= {row.id: row for row in _of_evaluation(evaluation) if row.id not in rows}
    for file in config.files:
        rows |= {row.id: row for row in _of_file(Path(file), config.fields)}
    return list(rows.values())


def read_evaluations(config: ContaminationConfig) -> dict[str, Evaluation]:
    """Each evaluation, by its file.

    Raises:
      UserError: a file is no evaluation of benchmarks.
    """
    found = {}
    for name in config.records:
        summary = read_summary(Path(name))
        if summary is None or summary.get("kind") != "benchmarks":
            raise UserError(
                f"{name}: no evaluation of benchmarks; ContaminationConfig.records are files RUN/evaluations/<name>.json of "
                "aya evaluate"
            )
        found[name] = Evaluation(read_samples(Path(name)), summary.get("harness") is not None)
    return found


def _of_tasks(config: ContaminationConfig, say: Callable[[str], None]) -> Iterator[EvaluationRow]:
    from aya_jax.evaluation.config import HarnessConfig
    from aya_jax.evaluation.harness.benchmarks import load_tasks  # lm-evaluation-harness takes seconds to import
    from aya_jax.evaluation.harness.names import describe

    for name, task in load_tasks(HarnessConfig(tasks=config.tasks, data_dir=config.data_dir), say).items():
        family, language = describe(name, task.config.dataset_name)
        for number, doc in enumerate(task.eval_docs):
            yield EvaluationRow(f"{name}/{number}", _texts(doc), language, family)


def _of_evaluation(evaluation: Evaluation) -> Iterator[EvaluationRow]:
    for sample in evaluation.samples:
        asked = [sample.doc.get("question", sample.prompt), *sample.choices, sample.target]
        pieces = _texts(sample.doc if evaluation.has_rows else asked)
        yield EvaluationRow(sample.id, pieces, sample.language, sample.family)


def _of_file(file: Path, fields: Sequence[str]) -> Iterator[EvaluationRow]:
    for row in read_rows(file):
        pieces = tuple(row.text(field) for field in fields)
        language = row.fields.get("language")
        yield EvaluationRow(
            f"{file}/{row.line}", pieces, language if isinstance(language, str) else "", file.name.partition(".")[0]
        )


def _texts(value: Any) -> tuple[str, ...]:
    """All texts in a row, however deep, each once."""
    if isinstance(value, str):
        return (value,)
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return tuple(dict.fromkeys(text for part in inside for text in _texts(part)))
