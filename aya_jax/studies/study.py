"""`aya study`: plan the jobs, run what is not done yet, keep failures apart, report."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import write_atomic
from aya_jax.studies.config import StudyConfig
from aya_jax.studies.executor import Executor, LocalExecutor, RunningJob
from aya_jax.studies.plan import Job, describe_plan, json_text, make_plan, resolve_jobs
from aya_jax.studies.progress import StudyDisplay, plan_table, read_pulse, show_closing
from aya_jax.studies.state import JobState, StateStore, changed_fields, fresh_state

POLL_SECONDS = 0.2


def run(resolved: Resolved) -> None:
    """Runs a study: what is finished is skipped, what failed stops only what needs it, a report closes it.

    Raises:
      ConfigError: a job's configuration has problems; nothing was started.
      UserError: a finished job's configuration changed; another study holds the directory; some jobs failed.
    """
    config: StudyConfig = resolved.config
    console = Console()
    jobs = make_plan(config)
    configurations = resolve_jobs(jobs)
    if config.dry_run:
        console.print(plan_table(jobs))
        for job in jobs:
            console.print(job.shown_command, soft_wrap=True, highlight=False, markup=False)
        return
    study_dir = Path(config.run_dir)
    with locked(study_dir) as lock:
        store = StateStore(study_dir)
        states = starting_states(jobs, configurations, store)
        write_atomic(study_dir / "study.json", json_text(describe_plan(config, jobs)))
        write_atomic(study_dir / "config.gin", resolved.text)
        console.print(plan_table(jobs, states))
        with StudyDisplay(console, jobs, states) as display:
            stopped = execute(
                jobs,
                states,
                store,
                LocalExecutor(inherit=[lock]),
                study_dir,
                max_parallel=config.max_parallel,
                watch=display.update,
            )
        write_report(config, console)
    show_closing(console, jobs, states, study_dir)
    failed = [job.key for job in jobs if states[job.key].status == "failed"]
    if stopped:
        raise UserError("The study was stopped. The same command goes on from here.")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}. The same command tries them again."
        )


@contextlib.contextmanager
def locked(study_dir: Path) -> Iterator[int]:
    """Holds the study's lock; its descriptor, handed to every job, keeps it held until the last of them has ended.

    Raises:
      UserError: another study, or a job that a killed study left running, holds it; or the directory cannot be written.
    """
    try:
        study_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(study_dir / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{study_dir}: cannot be written ({error.strerror}). Choose another RUN_DIR.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"{study_dir}: in use by another `aya study`, or by a job that a killed one left running"
            f"{_running_processes(study_dir)}. Wait for it, or end it, and type the command again."
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _running_processes(study_dir: Path) -> str:
    """The processes that the states on disk name, for the message of a lock that is held."""
    paths = sorted((study_dir / "state").glob("*/*.json"))
    states = [StateStore(study_dir).read(path.parent.name, path.stem) for path in paths]
    processes = [str(state.process) for state in states if state.status == "running"]
    return f" (process {', '.join(processes)})" if processes else ""


def starting_states(
    jobs: Sequence[Job], configurations: Mapping[str, Resolved], store: StateStore
) -> dict[str, JobState]:
    """Where each job stands at the start: done with this very configuration and these very inputs, or waiting.

    Raises:
      UserError: directories hold the work of another configuration or of inputs made anew since, with what differs.
    """
    states: dict[str, JobState] = {}
    refused: list[str] = []
    for job in jobs:
        known, fresh = store.read(job.stage, job.variant.label), fresh_state(job, configurations[job.key])
        if known.status == "waiting" or not _has_content(job.directory):
            states[job.key] = fresh
        elif known.fingerprint != fresh.fingerprint:
            changes = [f"\n      {change}" for change in changed_fields(known, configurations[job.key])]
            refused.append(
                f"{job.key} ({job.directory}) was made from another configuration (old -> new):{''.join(changes)}"
            )
            states[job.key] = fresh
        elif stale := [need for need in known.inputs if known.inputs[need] != _completion(states, need)]:
            refused.append(
                f"{job.key} ({job.directory}) was made from an earlier {', '.join(stale)}, which changed or is gone"
            )
            states[job.key] = fresh
        else:
            states[job.key] = known if known.status == "done" else fresh
    if refused:
        raise UserError(
            "The study was not started, because some directories hold other work:\n  "
            + "\n  ".join(refused)
            + "\nRemove those directories to run these jobs again, or choose another RUN_DIR."
        )
    return states


def _completion(states: Mapping[str, JobState], key: str) -> str:
    return states[key].completion if key in states else ""


def _has_content(output: Path) -> bool:
    """Whether a job has left something: a directory that is not empty, or (the answers of `aya generate`) a file."""
    return output.is_file() or (output.is_dir() and any(output.iterdir()))


def execute(
    jobs: Sequence[Job],
    states: dict[str, JobState],
    store: StateStore,
    executor: Executor,
    study_dir: Path,
    *,
    max_parallel: int,
    watch: Callable[[], None],
) -> bool:
    """Runs every waiting job whose needs are done, until nothing runs and nothing can start. Updates `states`.

    Returns:
      True if a signal (Ctrl-C, SIGTERM) stopped it; running jobs have then been asked to save and have ended.
    """
    running: dict[str, tuple[Job, RunningJob]] = {}
    asked = False

    def record(job: Job, **changes: object) -> None:
        states[job.key] = dataclasses.replace(states[job.key], **changes)
        store.write(job, states[job.key])

    with _stop_signals() as stopping:
        while True:
            for job in jobs:
                if states[job.key].status != "waiting":
                    continue
                broken = [need for need in job.needs if states[need].status in ("failed", "blocked")]
                ready = all(states[need].status == "done" for need in job.needs)
                if broken:
                    record(job, status="blocked", reason=f"needs {', '.join(broken)}")
                elif ready and len(running) < max_parallel and not stopping.is_set():
                    log = Path("logs") / job.stage / f"{job.variant.label or job.stage}.log"
                    process = executor.start(job.command, study_dir / log)
                    running[job.key] = (job, process)
                    record(
                        job,
                        status="running",
                        started=time.time(),
                        process=process.identity,
                        log=log.as_posix(),
                        inputs={need: states[need].completion for need in job.needs},
                    )
            if not running:
                return stopping.is_set()
            if not asked and stopping.wait(POLL_SECONDS):
                asked = True
                for _, process in running.values():
                    process.stop()
            elif asked:
                time.sleep(POLL_SECONDS)
            for key, (job, process) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[key]
                ending = {"exit_code": code, "finished": time.time(), "process": None}
                if stopping.is_set():
                    record(job, status="stopped", **ending)
                elif code or (reason := falls_short(job, states[key])):
                    record(job, status="failed", reason="" if code else reason, **ending)
                else:
                    record(job, status="done", completion=uuid.uuid4().hex, **ending)
            watch()


def falls_short(job: Job, state: JobState) -> str:
    """Why a job that ended well is not done: a training run that something told to stop ends well too. "" if it is."""
    steps = state.snapshot.get("steps")
    if job.verb != "train" or not isinstance(steps, int):
        return ""
    pulse = read_pulse(job.directory / "metrics.jsonl")
    reached = pulse.step if pulse else 0
    return f"was told to stop after step {reached} of {steps}" if reached < steps else ""


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of ending the process (only the main thread can arrange that)."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    previous = {name: signal.signal(name, lambda *_: stopping.set()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)


def write_report(config: StudyConfig, console: Console) -> None:
    """Writes the study's report from whatever is done; says so where nothing is there to report yet."""
    from aya_jax.studies import report  # plotting libraries take a second to import, and a dry run needs none

    try:
        paths = report.write(Path(config.run_dir), config.analysis)
    except UserError as error:
        console.print(f"No report: {error}", highlight=False, markup=False)
        return
    console.print(f"Report: {paths.html}", highlight=False, markup=False)
