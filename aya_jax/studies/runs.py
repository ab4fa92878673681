"""Reading what runs have left behind: metrics, configuration, environment, evaluations."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.data.tasks import TASK_TAGS, UNTAGGED
from aya_jax.studies.state import JobState, StateStore

TEXT = "text"
CODE_KINDS = {
    "web_code": "Web code",
    "markup": "Markup",
    "quality_code": "High-quality code",
    "code_adjacent": "Code-adjacent text",
}


@dataclass(frozen=True)
class Curve:
    """One quantity over training.

    Attributes:
      tokens: tokens trained, float64 [N].
      values: [N].
    """

    tokens: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class TrainingRun:
    """What one run directory holds.

    Attributes:
      name: how tables call it.
      directory: its run directory.
      config: the resolved configuration, nested.
      environment: versions, commit, devices.
      profile: where the traced steps' time went (`training.profiling`); empty where none were traced.
      train, validation, events: the records of `metrics.jsonl` by kind, in order; where a resumed run repeated a
        step, the last record of it.
    """

    name: str
    directory: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    profile: dict[str, Any]
    train: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    events: list[dict[str, Any]]

    @property
    def tokens(self) -> int:
        """Tokens trained so far."""
        return int(self.train[-1]["tokens"]) if self.train else 0

    @property
    def seconds(self) -> float:
        """Wall time between the first and the last record."""
        times = [record["wall_time"] for record in (*self.train, *self.validation)]
        return max(times) - min(times) if times else 0.0

    def curve(self, name: str, kind: str = "train") -> Curve:
        """One metric over tokens; records that lack it are left out."""
        records = [record for record in getattr(self, kind) if record.get(name) is not None]
        return Curve(
            np.array([record["tokens"] for record in records], dtype=np.float64),
            np.array([record[name] for record in records], dtype=np.float64),
        )


@dataclass(frozen=True)
class TaskResult:
    """A model on one task's held-out split.

    Attributes:
      language, domain: the task's tags.
      tokens, num_bytes: its size.
      bits_per_byte, loss: mean over bytes in bits; mean over tokens in nats.
    """

    language: str
    domain: str
    tokens: int
    num_bytes: int
    bits_per_byte: float
    loss: float


@dataclass(frozen=True)
class Samples:
    """Held-out documents of one task.

    Attributes:
      ids: document names, [N].
      nll: nats, [N].
      num_bytes: [N].
    """

    ids: np.ndarray
    nll: np.ndarray
    num_bytes: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """A model's held-out results by task, with the documents behind them where they were kept."""

    tasks: dict[str, TaskResult]
    samples: dict[str, Samples] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A trained model that the report compares.

    Attributes:
      label: the variant's label, or the run directory's name.
      coordinates: axis → value.
      lineage: the training runs that made it, first to last.
      evaluation: its held-out results; None where there are none yet.
    """

    label: str
    coordinates: dict[str, str]
    lineage: tuple[TrainingRun, ...]
    evaluation: Evaluation | None


@dataclass(frozen=True)
class StudyRecord:
    """Everything that a report is made from.

    Attributes:
      directory: the study's, or the one run's.
      plan: `study.json`; {} for a single run.
      states: job key → state; {} for a single run.
      models: what is compared.
      runs: every training run.
    """

    directory: Path
    plan: dict[str, Any]
    states: dict[str, JobState]
    models: list[Model]
    runs: list[TrainingRun]


def read(directory: Path) -> StudyRecord:
    """Reads a study's directory or a single run's.

    Raises:
      UserError: it is neither, or it holds nothing that has been trained yet.
    """
    if (directory / "study.json").is_file():
        record = _read_study(directory)
    elif (directory / "metrics.jsonl").is_file():
        run = read_run(directory, directory.name)
        record = StudyRecord(directory, {}, {}, [Model(run.name, {}, (run,), read_evaluation(directory, run))], [run])
    else:
        raise UserError(
            f"{directory}: neither a study (study.json) nor a training run (metrics.jsonl); set ReportConfig.run_dir."
        )
    if not record.runs:
        raise UserError(f"{directory}: no training run has written metrics yet, so there is nothing to report.")
    return record


def _read_study(directory: Path) -> StudyRecord:
    plan = read_json(directory / "study.json")
    jobs = {job["key"]: job for job in plan["jobs"]}
    store = StateStore(directory)
    states = {key: store.read(job["stage"], job["label"]) for key, job in jobs.items()}
    runs = {
        key: read_run(directory / job["directory"], key)
        for key, job in jobs.items()
        if job["verb"] == "train" and (directory / job["directory"] / "metrics.jsonl").is_file()
    }
    models = []
    judged = _judged_jobs(jobs)
    labels = [job["label"] for job in judged]
    for job in judged:
        lineage = _lineage(job, jobs, runs)
        if lineage:
            after = {"after": lineage[-1].name.split("/")[0]} if labels.count(job["label"]) > 1 else {}
            label = "-".join([job["label"] or job["stage"], *(f"{axis}_{stage}" for axis, stage in after.items())])
            coordinates = job["coordinates"] | after
            models.append(Model(label, coordinates, lineage, _evaluation_of(directory, job, lineage[-1])))
    return StudyRecord(directory, plan, states, models, list(runs.values()))


def _judged_jobs(jobs: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The jobs that stand for the compared models: the evaluations, or else the runs that nothing continues."""
    evaluations = [job for job in jobs.values() if job["verb"] == "evaluate"]
    if evaluations:
        return evaluations
    continued = {need for job in jobs.values() if job["verb"] == "train" for need in job["needs"]}
    return [job for job in jobs.values() if job["verb"] == "train" and job["key"] not in continued]


def _lineage(
    job: dict[str, Any], jobs: Mapping[str, dict[str, Any]], runs: Mapping[str, TrainingRun]
) -> tuple[TrainingRun, ...]:
    """The training runs that lead to a job, first to last; () where one has not run or several could be meant."""
    lineage: list[TrainingRun] = []
    current: dict[str, Any] | None = job
    while current is not None:
        if current["verb"] == "train":
            if current["key"] not in runs:
                return ()
            lineage.insert(0, runs[current["key"]])
        trained = [need for need in current["needs"] if jobs[need]["verb"] == "train"]
        if len(trained) > 1:
            return ()
        current = jobs[trained[0]] if trained else None
    return tuple(lineage)


def _evaluation_of(directory: Path, job: dict[str, Any], run: TrainingRun) -> Evaluation | None:
    """An evaluation job's own result, or the one that stands in the run's directory."""
    own = directory / job["directory"]
    return read_evaluation(own if (own / "evaluations").is_dir() else run.directory, run)


def read_run(directory: Path, name: str) -> TrainingRun:
    """Reads one run directory; a last line that was cut by a kill is left out."""
    by_kind: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "validation": {}}
    events: list[dict[str, Any]] = []
    for record in read_jsonl(directory / "metrics.jsonl"):
        if record.get("kind") in by_kind:
            steps = by_kind[record["kind"]]
            steps.pop(record["step"], None)
            steps[record["step"]] = record
        elif record.get("kind") == "event":
            events.append(record)
    return TrainingRun(
        name=name,
        directory=directory,
        config=_read_json_if_there(directory / "config.json"),
        environment=_read_json_if_there(directory / "environment.json"),
        profile=_read_json_if_there(directory / "profile" / "operations.json"),
        train=[by_kind["train"][step] for step in sorted(by_kind["train"])],
        validation=[by_kind["validation"][step] for step in sorted(by_kind["validation"])],
        events=events,
    )


def read_evaluation(directory: Path, run: TrainingRun) -> Evaluation | None:
    """The held-out evaluation in `directory/evaluations`, or else the run's last validation, or else None."""
    path = directory / "evaluations" / "held_out.json"
    if not path.is_file():
        return _evaluation_from_validation(run)
    tasks = {
        name: TaskResult(
            language=task.get("language") or "",
            domain=task.get("domain") or TEXT,
            tokens=int(task["tokens"]),
            num_bytes=int(task["bytes"]),
            bits_per_byte=float(task["bits_per_byte"]),
            loss=float(task["loss"]),
        )
        for name, task in read_json(path)["tasks"].items()
    }
    return Evaluation(tasks, read_samples(path.with_suffix("").with_suffix(".samples.jsonl")))


def _evaluation_from_validation(run: TrainingRun) -> Evaluation | None:
    """The last validation record as an evaluation; languages and domains are told from the tasks' names."""
    if not run.validation:
        return None
    last = run.validation[-1]
    names = validated_tasks(last)
    tasks = {}
    for name in names:
        value = {part: last[f"validation/{name}/{part}"] for part in ("tokens", "bytes", "bits_per_byte", "loss")}
        language, domain = tags_of(name)
        tasks[name] = TaskResult(
            language, domain, int(value["tokens"]), int(value["bytes"]), value["bits_per_byte"], value["loss"]
        )
    return Evaluation(tasks) if tasks else None


def validated_tasks(record: Mapping[str, Any]) -> list[str]:
    """The tasks of a validation record that have bits per byte (a task without held-out bytes has null)."""
    return [
        key.split("/")[1]
        for key, value in record.items()
        if key.startswith("validation/") and key.endswith("/bits_per_byte") and value is not None
    ]


def tags_of(task: str) -> tuple[str, str]:
    """(language, domain) of a task or a pattern of tasks by its name; ("", "other") for a task of the user's own."""
    tags = next((TASK_TAGS[name] for name in TASK_TAGS if fnmatch.fnmatchcase(name, task)), UNTAGGED)
    return (tags.language if tags.domain == TEXT else ""), tags.domain


def read_samples(path: Path) -> dict[str, Samples]:
    """Documents by task; {} where none were kept."""
    if not path.is_file():
        return {}
    rows: dict[str, list[tuple[str, float, float]]] = {}
    for sample in read_jsonl(path):
        rows.setdefault(sample["task"], []).append((str(sample["id"]), sample["nll"], sample["bytes"]))
    return {
        task: Samples(
            np.array([row[0] for row in listed]),
            np.array([row[1] for row in listed], dtype=np.float64),
            np.array([row[2] for row in listed], dtype=np.float64),
        )
        for task, listed in rows.items()
    }


def read_json(path: Path) -> dict[str, Any]:
    """One JSON file.

    Raises:
      UserError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}).") from error


def _read_json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; a last line without its newline is one that a kill cut short, and is left out.

    Raises:
      UserError: another line is not JSON, with its number.
    """
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON ({error}).") from error
    return records
