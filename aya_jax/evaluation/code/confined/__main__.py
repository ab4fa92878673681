"""Gives up this process's rights, then runs one program in it; `sandbox.py` starts it with a job on standard input.

The job is JSON: source, scratch, parent (a process id), limits (of `resource`), report and proof (file descriptors).
What is written to `report` is `ready` when every right is given up; then, when the program has run to its end, the
bytes that lie in `proof`, `failed` when it raised, or `memory`; or in place of all that `refused` and what this machine
lacks, and the program was not started.

The proof is not read before the program, tests included, has run to its last line: up to there it is nowhere in this
process's memory. A program that ends early, in whatever way, has not shown it.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import sys
import types
from typing import Any

import kernel
import syscall_filter

_NAME = "<program>"
_PROOF_BYTES = 32
_PACKAGES = ("site-packages", "dist-packages")
# Libraries that modules of the standard library are linked with, as the system's loader finds them, and time zones.
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")


def main() -> None:
    """Reads the job, gives up rights, runs the program."""
    with open(0, encoding="utf-8", closefd=False) as stream:
        job = json.load(stream)
    os.environ.clear()  # the interpreter itself has put LC_CTYPE there
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    library = sys.path[1:]  # the first is this folder
    sys.path[:] = library
    try:
        give_up_rights(job, library)
    except kernel.Unavailable as error:
        os.write(job["report"], f"refused{error}".encode())
        os._exit(1)
    os.write(job["report"], b"ready")
    for name in ("kernel", "syscall_filter"):
        del sys.modules[name]
    run(job["source"], job["report"], job["proof"])


def give_up_rights(job: dict[str, Any], library: list[str]) -> None:
    """All of it, in the only order that works: namespaces ask for rights that are dropped, the filter forbids the rest.

    Raises:
      Unavailable: this machine lacks a mechanism that nothing else replaces.
    """
    readable = _readable(library)
    kernel.leave_namespaces()  # a second lock on the network; the filter is the first
    kernel.forbid_new_privileges()
    kernel.confine_files(readable, library, (os.devnull,), job["scratch"])
    kernel.drop_capabilities()
    kernel.die_with_parent(job["parent"])
    kernel.limit_resources(job["limits"])
    try:
        program = syscall_filter.build_filter(os.uname().machine, os.getpid())
    except KeyError as error:
        raise kernel.Unavailable(f"a list of system calls for {error} machines") from error
    kernel.install_filter(syscall_filter.encode(program))


def run(source: str, report: int, proof: int) -> None:
    """Runs the program as `__main__`, reports how it ended, and ends.

    What is needed afterwards is at hand before the program can put something else in its place, and no way but the last
    line of the program leads to where the proof is read.
    """
    read, write, leave, flush, stdout, stderr = os.read, os.write, os._exit, _flush, sys.stdout, sys.stderr
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    module.__builtins__ = builtins  # type: ignore[attr-defined]
    try:
        exec(compile(source, _NAME, "exec", dont_inherit=True), module.__dict__)
    except MemoryError:
        write(2, b"MemoryError\n")
        write(report, b"memory")
        leave(1)
    except SystemExit as error:
        flush(stdout, stderr)
        code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            write(2, f"{error.code}\n".encode(errors="replace"))
        leave(code & 0xFF)
    except BaseException as error:
        flush(stdout, stderr)
        _show(source, error)
        write(report, b"failed")
        leave(1)
    else:
        flush(stdout, stderr)
        write(report, read(proof, _PROOF_BYTES))
        leave(0)


def _show(source: str, error: BaseException) -> None:
    import linecache
    import traceback

    linecache.cache[_NAME] = (len(source), None, source.splitlines(keepends=True), _NAME)
    inner = error.__traceback__ and error.__traceback__.tb_next  # without the launcher's own frame
    traceback.print_exception(type(error), error, inner)
    sys.stderr.flush()


def _flush(*streams: Any) -> None:
    for stream in streams:
        with contextlib.suppress(Exception):  # the program may have closed it
            stream.flush()


def _readable(library: list[str]) -> list[str]:
    """The standard library without the packages installed into it, and the shared libraries that it needs."""
    beside = os.path.join(sys.base_prefix, "lib")
    return [
        *_SYSTEM,
        *(path for path in library if not os.path.isdir(path)),  # python311.zip
        *(os.path.join(folder, name) for folder in library for name in _names(folder) if name not in _PACKAGES),
        *(os.path.join(beside, name) for name in _names(beside) if ".so" in name),
    ]


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


main()
