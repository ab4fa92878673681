"""Two libraries measured in turn, each in a process of its own: what else happens on the machine meets both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Make = Callable[..., tuple[Callable[[], object], str]]
"""Sets a worker up; gives what is measured, and what it runs."""


def alternate(
    command: Sequence[str], workers: Sequence[str], rounds: int, notes: dict[str, dict[str, object]] | None = None
) -> dict[str, list[float]]:
    """Seconds of each measured call, one worker after the other.

    Args:
      command: starts a script that calls `serve`; the worker's name is added.
      workers: their names.
      rounds: measured calls of each.
      notes: takes, of each worker, `about`, what it says of itself, and `peak_mib`, the most memory that it has held.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = {name: subprocess.Popen([sys.executable, *command, name], **pipes) for name in workers}
    times: dict[str, list[float]] = {name: [] for name in workers}
    try:
        for name, worker in running.items():
            about = _answer(name, worker)
            print(f"  {name}: {about}", file=sys.stderr, flush=True)
            if notes is not None:
                notes[name] = {"about": about}
        for _ in range(rounds):
            for name, worker in running.items():
                worker.stdin.write("go\n")
                worker.stdin.flush()
                times[name].append(_answer(name, worker))
        for name in notes or ():
            notes[name]["peak_mib"] = _peak_mib(running[name].pid)
    finally:
        for worker in running.values():
            worker.stdin.close()
            worker.wait(timeout=60)
    return times


def serve(workers: Mapping[str, Make], name: str, *arguments: object, threads: int, warm_up: int) -> None:
    """A worker: sets up, says what it runs, then makes a call for each line on stdin and answers with its seconds."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    call, description = workers[name](*arguments, threads)
    for _ in range(warm_up):
        call()
    print(json.dumps(description), flush=True)
    for _ in sys.stdin:
        print(json.dumps(seconds(call)), flush=True)


def seconds(call: Callable[[], object]) -> float:
    """The duration of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def _answer(name: str, worker: subprocess.Popen) -> object:
    """What a worker says next; ends the measurement if it has died (its own message is on stderr)."""
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"the {name} worker ended with {worker.wait()}")
    return json.loads(line)
