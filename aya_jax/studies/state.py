"""What has happened to each job, on disk: one small JSON file each, written beside and renamed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aya_jax.config import Difference, Resolved, UserError, differences
from aya_jax.config.files import write_atomic
from aya_jax.config.snapshot import from_json, is_excluded, to_json, to_plain
from aya_jax.studies.plan import Job, json_text

Status = Literal["waiting", "running", "done", "failed", "blocked", "stopped"]


@dataclass(frozen=True)
class JobState:
    """The last known state of one job.

    Attributes:
      status: "waiting" (not started), "running", "done", "failed" (ended with an error), "blocked" (something that it
        needs failed), "stopped" (the study was stopped while it ran; it resumes next time).
      fingerprint: digest of the configuration that it ran with.
      snapshot: that configuration as plain data, to say what differs when it changes.
      inputs: needed job → the `completion` which this job read.
      completion: names this completion; "" until done.
      command: what to type to run it by hand.
      log: path of its log, relative to the study's directory.
      exit_code: of the last attempt.
      started, finished: seconds since the epoch.
      process: id of the running process on this host.
      reason: why it is blocked.
    """

    status: Status = "waiting"
    fingerprint: str = ""
    snapshot: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    completion: str = ""
    command: str = ""
    log: str = ""
    exit_code: int | None = None
    started: float | None = None
    finished: float | None = None
    process: int | None = None
    reason: str = ""

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took."""
        return None if self.started is None or self.finished is None else self.finished - self.started


def state_path(study_dir: Path, stage: str, label: str) -> Path:
    """`STUDY_DIR/state/<stage>/<variant>.json`; a stage without variants uses its own name."""
    return study_dir / "state" / stage / f"{label or stage}.json"


class StateStore:
    """Reads and writes the states of one study's jobs."""

    def __init__(self, study_dir: Path):
        self._study_dir = study_dir

    def read(self, stage: str, label: str) -> JobState:
        """The state of one job; "waiting" where nothing was written yet.

        Raises:
          UserError: the file is not one that a study wrote.
        """
        path = state_path(self._study_dir, stage, label)
        try:
            return JobState(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return JobState()
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{path}: not a state that `aya study` wrote ({error}). Remove it to run this job again."
            ) from error

    def write(self, job: Job, state: JobState) -> None:
        """Replaces the state of one job in one step."""
        write_atomic(state_path(self._study_dir, job.stage, job.variant.label), json_text(dataclasses.asdict(state)))


def changed_fields(known: JobState, resolved: Resolved) -> list[Difference]:
    """What differs between the configuration that a job ran with and the one that it would run with now."""
    excluded = getattr(type(resolved.config), "NOT_IN_FINGERPRINT", ())
    found = differences(from_json(json.dumps(known.snapshot)), to_plain(resolved.config))
    return [difference for difference in found if not is_excluded(difference.field, excluded)]


def fresh_state(job: Job, resolved: Resolved) -> JobState:
    """The state of a job that is still to run with this configuration."""
    return JobState(
        fingerprint=resolved.fingerprint,
        snapshot=json.loads(to_json(to_plain(resolved.config))),
        command=job.shown_command,
    )
