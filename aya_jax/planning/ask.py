"""Asking a worker, and waiting for its answer without leaving the reader in the dark."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from aya_jax.config.errors import UserError
from aya_jax.planning.worker import Job

_POLL = 0.2


def ask(job: Job, console: Console, doing: str, timeout: int) -> list[dict[str, Any]]:
    """The worker's answers to a job.

    Args:
      job: what is asked.
      console: shows `doing` and the time that it has taken, on a terminal.
      doing: "Compiling for v5p-128".
      timeout: seconds after which the worker is ended.

    Raises:
      UserError: the worker ended without an answer, or took too long.
    """
    with tempfile.TemporaryDirectory(prefix="aya-plan-") as folder:
        question, reply, log = (Path(folder) / name for name in ("job", "answer.json", "log"))
        question.write_bytes(pickle.dumps(job))
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "aya_jax.planning.worker", str(question), str(reply)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                _wait(worker, console, doing, timeout)
            finally:
                if worker.poll() is None:
                    worker.kill()
                    worker.wait()
        if not reply.exists():
            raise UserError(f"{doing}: {_why(log, worker.returncode)}")
        return json.loads(reply.read_text(encoding="utf-8"))


def _wait(worker: subprocess.Popen, console: Console, doing: str, timeout: int) -> None:
    started = time.monotonic()
    with console.status(doing) as status:
        while worker.poll() is None:
            elapsed = time.monotonic() - started
            if elapsed > timeout:
                raise UserError(f"{doing}: not done after {timeout} seconds; raise PlanConfig.timeout")
            status.update(f"{doing}: {int(elapsed // 60)}:{int(elapsed % 60):02d}")
            time.sleep(_POLL)


def _why(log: Path, code: int) -> str:
    """The last thing that a worker said before it ended."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if code == -signal.SIGKILL:
        return "the compiler's process was killed: this machine has too little memory for it, perhaps"
    if code < 0:
        return f"the compiler itself crashed (signal {-code})"
    return f"the compiler's process ended with code {code}: {lines[-1] if lines else 'it said nothing'}"
