"""What the terminal shows of a study: the plan, the jobs while they run, and how it ended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aya_jax.studies.plan import Job
from aya_jax.studies.state import JobState

STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "blocked": "yellow",
    "stopped": "yellow",
    "waiting": "dim",
}
LOG_LINES = 12


@dataclass(frozen=True)
class Pulse:
    """How far a training run is, from its metrics file.

    Attributes:
      step: the last recorded step.
      loss: the last recorded training loss.
      steps_per_second: over the records of this attempt; None until there are two.
    """

    step: int
    loss: float | None
    steps_per_second: float | None


def read_pulse(metrics: Path, *, tail_bytes: int = 16384) -> Pulse | None:
    """Reads the end of a `metrics.jsonl`; None where it holds no training record yet. A line cut short is left."""
    try:
        with metrics.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the first line of the tail is cut
        if record.get("kind") == "train":
            records.append(record)
    if not records:
        return None
    first, last = records[0], records[-1]
    elapsed = last["wall_time"] - first["wall_time"]
    advanced = last["step"] - first["step"]
    return Pulse(last["step"], last.get("loss"), advanced / elapsed if elapsed > 0 and advanced > 0 else None)


def plan_table(jobs: Sequence[Job], states: Mapping[str, JobState] | None = None) -> Table:
    """The jobs in order with what they need, and where each stands if that is known."""
    table = Table(title=f"{len(jobs)} jobs", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for heading in ("stage", "variant", "verb", "needs", *(["state"] if states else [])):
        table.add_column(heading, overflow="fold")
    previous = ""
    for job in jobs:
        row = ["" if job.stage == previous else job.stage, job.variant.label, job.verb, ", ".join(_need_stages(job))]
        if states:
            row.append(_styled(states[job.key].status))
        table.add_row(*row)
        previous = job.stage
    return table


def _need_stages(job: Job) -> list[str]:
    return list(dict.fromkeys(need.split("/")[0] for need in job.needs))


def _styled(status: str) -> Text:
    return Text(status, style=STYLES[status])


class StudyDisplay:
    """Shows running jobs live on a terminal; elsewhere prints one line when a job changes its state."""

    def __init__(self, console: Console, jobs: Sequence[Job], states: Mapping[str, JobState]):
        self._console = console
        self._jobs = jobs
        self._states = states
        self._shown = {key: state.status for key, state in states.items()}
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> StudyDisplay:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.update()
        if self._live:
            self._live.__exit__(*exception)

    def update(self) -> None:
        """Prints what changed since the last call and redraws what runs."""
        for job in self._jobs:
            state = self._states[job.key]
            if state.status != self._shown[job.key]:
                self._shown[job.key] = state.status
                taken = f" in {duration(state.seconds)}" if state.status in ("done", "failed") and state.seconds else ""
                self._console.print(_styled(state.status), f"{job.key}{taken}", highlight=False, markup=False)
        if self._live:
            self._live.update(self._running())

    def _running(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("running", "for", "step", "loss", "left"):
            table.add_column(heading, justify="left" if heading == "running" else "right")
        for job in self._jobs:
            state = self._states[job.key]
            if state.status == "running":
                table.add_row(job.key, duration(time.time() - state.started), *_pulse_cells(job, state))
        ended = sum(state.status in ("done", "failed", "blocked") for state in self._states.values())
        return Group(Text(f"{ended} of {len(self._jobs)} jobs ended", style="dim"), table)


def _pulse_cells(job: Job, state: JobState) -> tuple[str, str, str]:
    pulse = read_pulse(job.directory / "metrics.jsonl")
    steps = state.snapshot.get("steps")
    if pulse is None:
        return "", "", ""
    left = ""
    if isinstance(steps, int) and pulse.steps_per_second:
        left = duration(max(0, steps - pulse.step) / pulse.steps_per_second)
    shown_step = f"{pulse.step:,}/{steps:,}" if isinstance(steps, int) else f"{pulse.step:,}"
    return shown_step, "" if pulse.loss is None else f"{pulse.loss:.4f}", left


def show_closing(console: Console, jobs: Sequence[Job], states: Mapping[str, JobState], study_dir: Path) -> None:
    """Prints how every job ended and, for each failure, the end of its log and the command that tries it alone."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("job", "state", "time", ""):
        table.add_column(heading, justify="right" if heading == "time" else "left", overflow="fold")
    for job in jobs:
        state = states[job.key]
        table.add_row(job.key, _styled(state.status), duration(state.seconds), state.reason)
    console.print(table)
    for job in jobs:
        state = states[job.key]
        if state.status == "failed":
            log = study_dir / state.log
            told = [Text(f"\n{job.key} failed (exit code {state.exit_code}); the end of {log}:", style="bold red")]
            told += [Text(f"  │ {line}", style="dim") for line in last_lines(log, LOG_LINES)]
            told.append(Text(f"  alone again: {job.shown_command}"))
            for line in told:
                console.print(line, soft_wrap=True)


def last_lines(path: Path, count: int, *, tail_bytes: int = 65536) -> list[str]:
    """The last lines of a log that are not empty; what was overwritten with carriage returns is left out."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - tail_bytes))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return [line for line in lines if line][-count:]


def duration(seconds: float | None) -> str:
    """ "48 s", "3 min 20 s", "5 h 02 min"; "" for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
