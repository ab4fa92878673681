"""From stages and sweeps to jobs: every variant with its directory, bindings, needs and checked configuration."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aya_jax import config as configuration
from aya_jax.config.loading import load
from aya_jax.config.source import parse_value
from aya_jax.studies.config import StageConfig, StudyConfig
from aya_jax.studies.needs import (
    all_needs,
    bindings_of,
    job_key,
    needed_variants,
    placeholders,
    stage_named,
    stage_variants,
    substitute,
    variants_named,
)
from aya_jax.studies.sweeps import Variant

if TYPE_CHECKING:
    from aya_jax.cli import Verb


@dataclass(frozen=True)
class Job:
    """One variant of one stage: what will run, where, and after what.

    Attributes:
      stage: the stage's name.
      variant: coordinates and bindings of the sweep's point.
      verb: the verb of `aya`.
      files: gin files, in order.
      bindings: every binding of the command line, placeholders replaced.
      directory: where it writes.
      needs: keys of the jobs that must have ended well.
    """

    stage: str
    variant: Variant
    verb: str
    files: tuple[str, ...]
    bindings: dict[str, Any]
    directory: Path
    needs: tuple[str, ...]

    @property
    def key(self) -> str:
        """ "pretrain/code_25-seed_1"; the stage's name alone where it does not vary."""
        return job_key(self.stage, self.variant)

    @property
    def arguments(self) -> list[str]:
        """What follows `aya`: the verb, its files and its bindings as gin literals."""
        return [
            self.verb,
            *self.files,
            *(f"--gin.{name}={_flag_value(value)}" for name, value in self.bindings.items()),
        ]

    @property
    def command(self) -> list[str]:
        """The process to start: this interpreter running the command line."""
        return [sys.executable, "-m", "aya_jax", *self.arguments]

    @property
    def shown_command(self) -> str:
        """The same for a person to paste into a shell."""
        return " ".join(["aya", *map(_shell_quoted, self.arguments)])


def _flag_value(value: Any) -> str:
    """The value as a flag has it: a string that is no gin literal needs no quotes there."""
    if isinstance(value, str) and value.strip() == value:
        try:
            parse_value(value)
        except ValueError:
            return value
    return repr(value)


def _shell_quoted(argument: str) -> str:
    """The argument for a POSIX shell, in double quotes where it holds single ones and nothing that a shell expands."""
    if "'" in argument and not set(argument) & set('"$`\\!'):
        return f'"{argument}"'
    return shlex.quote(argument)


def make_plan(config: StudyConfig) -> list[Job]:
    """All jobs of a valid study, each after the ones that it needs, otherwise in the order of the file."""
    study_dir = Path(config.run_dir)
    by_name = {stage.name: stage for stage in config.stages}
    jobs: list[Job] = []
    for name in _in_order_of_needs(config.stages):
        stage = by_name[name]
        for variant in stage_variants(stage, by_name):
            jobs.append(_job(stage, variant, by_name, study_dir))
    return jobs


def _job(stage: StageConfig, variant: Variant, by_name: dict[str, StageConfig], study_dir: Path) -> Job:
    bindings = bindings_of(stage, variant)
    directories = {"study": str(study_dir)} | {
        placeholder: str(
            _directory(study_dir, stage_named(placeholder), variants_named(placeholder, variant, by_name)[0])
        )
        for placeholder in placeholders(bindings) - {"study"}
    }
    directory = _directory(study_dir, stage.name, variant)
    return Job(
        stage=stage.name,
        variant=variant,
        verb=stage.verb,
        files=stage.files,
        bindings=substitute(bindings, directories) | {stage.output: str(directory)},
        directory=directory,
        needs=tuple(
            job_key(needed, other)
            for needed in all_needs(stage)
            for other in needed_variants(stage, variant, needed, by_name)
        ),
    )


def _directory(study_dir: Path, stage: str, variant: Variant) -> Path:
    return study_dir / stage / variant.label if variant.label else study_dir / stage


def _in_order_of_needs(stages: Sequence[StageConfig]) -> list[str]:
    """Stage names, each after its needs; a stable order."""
    ordered: list[str] = []
    waiting = list(stages)
    while waiting:
        ready = next(stage for stage in waiting if set(all_needs(stage)) <= set(ordered))
        ordered.append(ready.name)
        waiting.remove(ready)
    return ordered


def resolve_jobs(jobs: Sequence[Job]) -> dict[str, configuration.Resolved]:
    """Resolves the configuration of every job, so that a mistake in the last stage is reported before the first starts.

    Raises:
      ConfigError: with the problems of all jobs; one that several variants share is told once.
    """
    resolved: dict[str, configuration.Resolved] = {}
    failures: dict[str, list[str]] = {}
    for job in jobs:
        try:
            resolved[job.key] = configuration.resolve(
                _root_class(job.verb),
                files=[*_verb(job.verb).base, *job.files],
                bindings=[f"{name}={_flag_value(value)}" for name, value in job.bindings.items()],
            )
        except configuration.ConfigError as error:
            for problem in error.problems:
                failures.setdefault(problem.replace(str(job.directory), "<its directory>"), []).append(job.key)
    if failures:
        raise configuration.ConfigError([f"{_and_more(keys)}: {problem}" for problem, keys in failures.items()])
    return resolved


def _verb(name: str) -> Verb:
    from aya_jax.cli import VERBS  # the command line imports this module by name when `aya study` is typed

    return VERBS[name]


def _root_class(verb: str) -> type:
    return load(_verb(verb).root)


def _and_more(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more like it"


def describe_plan(config: StudyConfig, jobs: Sequence[Job]) -> dict[str, Any]:
    """What `study.json` holds: enough for the report and for a person to see how the directories came about."""
    study_dir = Path(config.run_dir)
    return {
        "format_version": 1,
        "title": config.analysis.title,
        **({"mixing": dataclasses.asdict(config.analysis.mixing)} if config.analysis.mixing else {}),
        "jobs": [
            {
                "key": job.key,
                "stage": job.stage,
                "label": job.variant.label,
                "coordinates": dict(job.variant.coordinates),
                "verb": job.verb,
                "directory": job.directory.relative_to(study_dir).as_posix(),
                "needs": list(job.needs),
                "command": job.shown_command,
            }
            for job in jobs
        ],
    }


def json_text(value: Any) -> str:
    """JSON text as the study writes it: indented, in the order given, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
