"""Where a job runs. The study speaks to an `Executor`; this machine's is here, a scheduler's would be another class."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class RunningJob(Protocol):
    """A job that an executor has started."""

    @property
    def identity(self) -> int:
        """What finds it again: here the process id."""
        ...

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        ...

    def stop(self) -> None:
        """Asks it to save what it has and to end; returns at once."""
        ...


class Executor(Protocol):
    """Starts jobs."""

    def start(self, command: Sequence[str], log: Path) -> RunningJob:
        """Starts a command whose output and errors are appended to `log`."""
        ...


class LocalExecutor:
    """Runs jobs as processes of this machine.

    Each is the head of its own process group, so that Ctrl-C reaches the study alone, which then stops its jobs.

    Args:
      inherit: file descriptors that the processes keep open: the study's lock among them, so that it is held until the
        last process has ended even where the study itself was killed.
    """

    def __init__(self, inherit: Sequence[int] = ()):
        self._inherit = tuple(inherit)

    def start(self, command: Sequence[str], log: Path) -> LocalProcess:
        """See `Executor.start`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            return LocalProcess(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=self._inherit,
                    start_new_session=True,
                )
            )


class LocalProcess:
    """A process of this machine and its group."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    @property
    def identity(self) -> int:
        """The process id."""
        return self._process.pid

    def poll(self) -> int | None:
        """See `RunningJob.poll`; a process ended by signal n gives 128 + n, as a shell does."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def stop(self) -> None:
        """Sends SIGTERM to the group: training saves a checkpoint and ends."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
