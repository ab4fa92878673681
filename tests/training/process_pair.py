"""Runs `aya` as several processes on this machine, one such run at a time, with a limit on everything."""

import contextlib
import fcntl
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training import small_run

SECONDS = 240.0

# Gloo prints a line in pieces and from several threads, so that a line may be torn, or several be in one.
_GLOO = re.compile(
    r"(?:\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d+|\s)+"
)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps test workers from running several processes each at the same time."""
    with open(Path(tempfile.gettempdir()) / "aya_jax_processes.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def one_at_a_time() -> Iterator[None]:
    """`alone`, for all tests of a module that imports it and names it in `pytestmark`."""
    with alone():
        yield


class Processes:
    """Several processes of one run; leaving the context kills what is left of them."""

    def __init__(self, *arguments: object, devices: int, count: int = 2, each: dict[int, list[str]] | None = None):
        """`each` gives further arguments to single processes, by number."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        flags = [f"--coordinator_address=127.0.0.1:{port}", f"--process_count={count}", "--join_timeout=120"]
        self.all = [
            small_run.start(*arguments, *flags, f"--process_index={i}", *(each or {}).get(i, []), devices=devices)
            for i in range(count)
        ]

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.all:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def finish(self, seconds: float = SECONDS) -> list[tuple[int, str]]:
        """(exit code, output) of each, without what Gloo prints."""
        end = time.monotonic() + seconds
        found = []
        for process in self.all:
            output, _ = process.communicate(timeout=max(0.1, end - time.monotonic()))
            lines = [line for line in output.splitlines() if "[Gloo]" not in line and not _GLOO.fullmatch(line)]
            found.append((process.returncode, "\n".join(lines)))
        return found


def run(*arguments: object, devices: int, count: int = 2) -> list[str]:
    """The outputs of processes that are to succeed."""
    with Processes(*arguments, devices=devices, count=count) as processes:
        found = processes.finish()
    assert [code for code, _ in found] == [0] * count, found
    return [output for _, output in found]
