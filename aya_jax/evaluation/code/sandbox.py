"""Runs programs that nobody has read: each in a process that has given up every right but to compute.

The parent (this file) starts an isolated interpreter without an environment, in a session and an empty
scratch folder of its own, and hands it the program on a file that lies in memory. That launcher
(`confined/__main__.py`) gives up its rights and only then compiles the program, in the same process:

* **No network, no other process.** A seccomp filter lets a listed set of system calls through. It has no `socket`, no
  `fork`, no `execve` and no signal to anybody else, so there is one process to end, and ending it leaves nothing. Where
  the machine allows a network namespace, that is a second lock.
* **No files.** Landlock leaves the standard library and the system's shared libraries to read, and the scratch folder
  to write. Nothing in it can be deleted or renamed, so that all that is written stays in the sight of the parent, which
  measures it. That a file elsewhere exists, how large it is and when it was changed can be asked: Landlock has no say
  over `stat`.
* **No more than its share.** Limits of the kernel hold memory, CPU seconds, the size of a file and open files; the
  parent holds the wall clock, threads, all files together and what is printed, of which it keeps no more than the
  limit.
* **Root is nobody.** All capabilities are given up. No right can be had back: `no_new_privs`.

Landlock and seccomp are both needed, and nothing replaces them: where one is missing, or where a probe finds that what
must fail does not, `run_program` refuses. The probe runs once in a process, before the first program.

**What "passed" means.** The program ran to its last line. The parent puts a random proof into a pipe, which the
launcher reads and sends back only then, so `sys.exit(0)`, `os._exit(0)`, exit handlers and printed words do not pass
for it. But program and tests share one interpreter, and within it nothing can be hidden from a program written against
this very launcher: it can look for the pipes among its open files, or walk the interpreter's frames, and send the proof
itself; it can also return objects that say to be equal to everything, or change `builtins` under the tests. A score is
therefore that of a model which does not attack its examiner; the machine is safe either way.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from aya_jax.config import UserError
from aya_jax.config.registry import Problem
from aya_jax.evaluation.code.scratch import remove_tree, within

Status = Literal["passed", "failed", "exited", "timeout", "memory", "output", "threads", "disk", "killed"]

_LAUNCHER = Path(__file__).parent / "confined"
# As `python -I`, but for this: sets come in the same order in every run, so that a score can be repeated. The launcher
# clears it.
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_START_SECONDS = 60.0  # for the interpreter, on a machine that is busy
_TICK_SECONDS = 0.02  # between looks at threads and files
_KEPT = 4096  # bytes of the start, and as many of the end, of what was printed
_REPORT_BYTES = 4096
_OPEN_FILES, _MIB = 64, 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use; it is ended when it takes more.

    Attributes:
      wall_seconds: from the moment that it may run.
      cpu_seconds: over all its threads, with about 0.05 for the interpreter's start; rounded up to whole seconds.
      memory_bytes: of address space, the interpreter's included.
      threads: at once, as seen every 20 ms. There is never a second process.
      file_bytes: of one file.
      disk_bytes: of all files that it writes, as blocks on the disk.
      files: how many files and folders it makes.
      output_bytes: printed, standard output and error together.
    """

    wall_seconds: float = 10.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1024 * _MIB
    threads: int = 16
    file_bytes: int = 16 * _MIB
    disk_bytes: int = 64 * _MIB
    files: int = 256
    output_bytes: int = 1 * _MIB

    def validate(self) -> Iterator[Problem]:
        """Yields what is not positive, and memory that the interpreter itself does not fit in."""
        for name in ("wall_seconds", "cpu_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                yield Problem(name, "a positive number of seconds")
        for name in ("threads", "file_bytes", "disk_bytes", "files", "output_bytes"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.memory_bytes < 64 * _MIB:
            yield Problem("memory_bytes", "at least 64 MiB, 67108864: the interpreter needs some itself")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended.

    Attributes:
      status: "passed": it ran to its last line. "failed": it raised. "exited": it ended the interpreter before its last line,
        whatever the exit code. "killed": a signal ended it, such as that of a crash. The others name the limit that it met.
      exit_code: of its process; minus the signal's number, where a signal ended it.
      stdout: what it printed, without the middle where that is long.
      stderr: likewise, with the traceback.
      seconds: how long it ran.
    """

    status: Status
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it ran to its last line."""
        return self.status == "passed"


def run_program(source: str, limits: Limits | None = None) -> Outcome:
    """Runs a Python program that may do anything, and waits for its end.

    It sees the standard library, an empty environment and an empty standard input, as UTF-8. When its last line has run it is
    over: exit handlers are not called, and threads that still run are not waited for.

    Args:
      source: the program, run as `__main__`.
      limits: what it may use; None: `Limits()`.

    Raises:
      UserError: this machine cannot confine it, so that it was not run; or a limit makes no sense.
    """
    limits = limits or Limits()
    if problems := [f"{problem.field}: {problem.expected}" for problem in limits.validate()]:
        raise UserError("limits of a program: " + "; ".join(problems))
    check_protection()
    return _run(source, limits)


def run_programs(sources: Sequence[str], limits: Limits | None = None, workers: int = 1) -> list[Outcome]:
    """Runs programs side by side, `workers` at a time; outcomes in the order of the programs.

    Raises:
      UserError: as of `run_program`; or workers is below 1.
    """
    if workers < 1:
        raise UserError(f"{workers} workers: at least 1")
    with ThreadPoolExecutor(workers, thread_name_prefix="sandbox") as pool:
        return list(pool.map(lambda source: run_program(source, limits), sources))


@functools.cache
def check_protection() -> None:
    """Runs a program that tries what must fail: a socket, a file, a process, a signal. Once in a process, if all is well.

    Raises:
      UserError: something is missing, or something did not fail.
    """
    if sys.platform != "linux":
        raise UserError(f"programs can be confined on Linux only, and this is {sys.platform}; nothing was run.")
    with tempfile.TemporaryDirectory(prefix="aya_probe_") as folder:
        secret, target = Path(folder) / "secret", Path(folder) / "target"
        secret.write_text("secret", encoding="utf-8")
        probe = _PROBE.format(secret=str(secret), target=str(target))
        outcome = _run(probe, Limits(wall_seconds=_START_SECONDS, cpu_seconds=_START_SECONDS))
    if not outcome.passed or outcome.stdout:
        found = outcome.stdout.strip() or outcome.stderr.strip() or outcome.status
        raise UserError(f"programs cannot be confined on this machine, so none was run. The probe says: {found}")


_PROBE = """
import os, socket
for what, attempt in {{
    "a program could open a socket": lambda: socket.socket(),
    "a program could open an AF_UNIX socket": lambda: socket.socket(socket.AF_UNIX),
    "a program could read a file": lambda: open({secret!r}),
    "a program could write a file": lambda: open({target!r}, "w"),
    "a program could list a folder": lambda: os.listdir("/"),
    "a program could start a process": lambda: os._exit(0) if os.fork() == 0 else None,
    "a program could signal its parent": lambda: os.kill(os.getppid(), 0),
    "a program could run another": lambda: os.execv("/bin/true", ["true"]),
}}.items():
    try:
        attempt()
    except OSError:
        continue
    print(what)
open("scratch", "w").write("this must work")
"""


class _Seen(NamedTuple):
    """What the parent has of a run.

    Attributes:
      broken: the limit that it met first, if any.
      streams: what came through each pipe.
      seconds: since it was ready.
    """

    broken: Status | None
    streams: dict[str, bytearray]
    seconds: float


def _run(source: str, limits: Limits) -> Outcome:
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="aya_code_"))
    proof = secrets.token_bytes(32)
    try:
        with contextlib.ExitStack() as stack:
            report_in, report_out = _pipe(stack)
            proof_in, proof_out = _pipe(stack)
            proof_out.write(proof)
            job = _job(source, limits, scratch, report_out.fileno(), proof_in.fileno())
            process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-S", "-B", "-X", "utf8", str(_LAUNCHER)],
                stdin=stack.enter_context(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                env=_ENVIRONMENT, cwd=scratch, pass_fds=(report_out.fileno(), proof_in.fileno()), start_new_session=True,
            )  # fmt: skip
            stack.callback(_end, process)
            pipes = {name: stack.enter_context(getattr(process, name)) for name in ("stdout", "stderr")}
            report_out.close()
            seen = _watch(process.pid, {**pipes, "report": report_in}, limits, scratch)
            cpu_seconds = _end(process)
        return _judge(seen, process.returncode, cpu_seconds, limits, proof)
    finally:
        remove_tree(scratch)


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    ends = os.pipe()
    reader, writer = (stack.enter_context(io.FileIO(end, mode)) for end, mode in zip(ends, "rw", strict=True))
    return reader, writer


def _job(source: str, limits: Limits, scratch: str, report: int, proof: int) -> io.FileIO:
    """What the launcher reads, in a file without a name."""
    resources = {
        "CPU": math.ceil(limits.cpu_seconds), "AS": limits.memory_bytes, "FSIZE": limits.file_bytes, "NOFILE": _OPEN_FILES,
        "CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0,
    }  # fmt: skip
    job = {
        "source": source, "scratch": scratch, "parent": os.getpid(), "limits": resources, "report": report, "proof": proof,
    }  # fmt: skip
    file = io.FileIO(os.memfd_create("job"), "r+")
    file.write(json.dumps(job).encode())
    file.seek(0)
    return file


def _watch(pid: int, pipes: Mapping[str, io.FileIO], limits: Limits, scratch: str) -> _Seen:
    """Reads what a process writes, until its end or until it takes more than its share."""
    streams = {name: bytearray() for name in pipes}
    with selectors.DefaultSelector() as selector, open(os.pidfd_open(pid), "rb", buffering=0) as life:
        selector.register(life, selectors.EVENT_READ)
        for name, pipe in pipes.items():
            selector.register(pipe, selectors.EVENT_READ, name)
        started = looked = time.monotonic()
        is_ready = False
        while True:
            ready = [key for key, _ in selector.select(_TICK_SECONDS)]
            for key in ready:
                if key.fileobj is not life and not _read(key.fd, streams[key.data]):
                    selector.unregister(key.fileobj)
            now = time.monotonic()
            if not is_ready and streams["report"]:
                is_ready, started = True, now
            broken: Status | None = None
            if sum(map(len, streams.values())) > limits.output_bytes + _REPORT_BYTES:
                broken = "output"
            elif now - started > (limits.wall_seconds if is_ready else _START_SECONDS):
                broken = "timeout"
            elif now - looked >= _TICK_SECONDS:
                looked = now
                broken = _beyond(pid, limits, scratch)
            if broken or any(key.fileobj is life for key in ready):
                break
        if not broken:  # nobody is left who could write: at most what the pipes hold is to come
            for key in list(selector.get_map().values()):
                while key.fileobj is not life and _read(key.fd, streams[key.data]):
                    pass
            if len(streams["stdout"]) + len(streams["stderr"]) > limits.output_bytes:
                broken = "output"
            elif not within(scratch, limits.disk_bytes, limits.files):
                broken = "disk"
        return _Seen(broken, streams, now - started)


def _read(descriptor: int, into: bytearray) -> bool:
    data = os.read(descriptor, 1 << 16)
    into += data
    return bool(data)


def _beyond(pid: int, limits: Limits, scratch: str) -> Status | None:
    with contextlib.suppress(OSError):  # it may have ended, or /proc be hidden; memory bounds threads then
        if len(os.listdir(f"/proc/{pid}/task")) > limits.threads:
            return "threads"
    return None if within(scratch, limits.disk_bytes, limits.files) else "disk"


def _end(process: subprocess.Popen[bytes]) -> float:
    """Ends a process that may have ended, and says how many CPU seconds it took."""
    if process.returncode is not None:
        return 0.0
    os.kill(process.pid, signal.SIGKILL)  # not process.kill(), which reaps it first
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _judge(seen: _Seen, exit_code: int, cpu_seconds: float, limits: Limits, proof: bytes) -> Outcome:
    report = bytes(seen.streams["report"])
    if not report.startswith(b"ready"):
        lacking = report.removeprefix(b"refused").decode(errors="replace")
        raise UserError(
            f"programs cannot be confined on this machine, so none was run. It lacks {lacking}."
            if lacking
            else f"the interpreter that confines programs did not start (exit code {exit_code}): "
            + _shorten(seen.streams["stderr"])
        )
    said = report.removeprefix(b"ready")
    if seen.broken:
        status = seen.broken
    elif exit_code == 0 and secrets.compare_digest(said, proof):
        status = "passed"
    elif exit_code == -signal.SIGKILL and cpu_seconds >= math.ceil(limits.cpu_seconds) - 0.1:
        status = "timeout"
    elif exit_code < 0:
        status = "killed"
    else:
        status = {b"failed": "failed", b"memory": "memory"}.get(said, "exited")
    stdout, stderr = (_shorten(seen.streams[name]) for name in ("stdout", "stderr"))
    return Outcome(status=status, exit_code=exit_code, stdout=stdout, stderr=stderr, seconds=seen.seconds)


def _shorten(printed: bytearray) -> str:
    if len(printed) > 2 * _KEPT:
        left_out = f"\n... {len(printed) - 2 * _KEPT} bytes left out ...\n"
        printed = printed[:_KEPT] + left_out.encode() + printed[-_KEPT:]
    return printed.decode("utf-8", errors="replace")
