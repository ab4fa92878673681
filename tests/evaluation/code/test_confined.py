"""Each mechanism by itself: a process that gives up one right only, and what it can then not do; and refusal without them."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from aya_jax.evaluation.code.confined import kernel, syscall_filter

_CODE = Path(kernel.__file__).parent
_HEADERS = {
    "x86_64": [*Path("/usr/include").glob("*/asm/unistd_64.h"), *Path("/usr/include/asm").glob("unistd_64.h")],
    "aarch64": list(Path("/usr/include/asm-generic").glob("unistd.h")),
}
_TABLES = {**syscall_filter.NUMBERS, **syscall_filter.CHECKED_NUMBERS}


def alone(program: str, **paths: str) -> str:
    """What a program prints that may use `kernel` and `syscall_filter`, in a process of its own."""
    source = (
        f"import sys\nsys.path.insert(0, {str(_CODE)!r})\nimport kernel, syscall_filter, os\n{textwrap.dedent(program)}"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", source], capture_output=True, text=True, timeout=30, env=paths
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def without(call: str, argument: int | None, program: str) -> str:
    """What a program prints on a machine without a system call: a filter of the whole process denies it."""
    number = {"landlock": (444, 444), "prctl": (157, 167), "unshare": (272, 97)}[call][platform.machine() != "x86_64"]
    judge = [(0x20, 0, 0, 0), (0x15, 0, 1 if argument is None else 3, number)]
    if argument is not None:
        judge += [(0x20, 0, 0, 16), (0x15, 0, 1, argument)]
    judge += [(0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
    filter_ = b"".join(struct.pack("=HBBI", *each) for each in judge)
    source = (
        "from aya_jax.evaluation.code.confined import kernel\n"
        "from aya_jax.config import UserError\nfrom aya_jax.evaluation.code.sandbox import run_program\n"
        f"kernel.forbid_new_privileges()\nkernel.install_filter({filter_!r})\n{textwrap.dedent(program)}"
    )
    where = {"PYTHONPATH": str(_CODE.parents[3]), "PATH": os.environ.get("PATH", "")}
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, env=where)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


_TRY = """
try:
    print(run_program("print('it ran')"))
except UserError as error:
    print("refused:", error)
"""


class TestRefusal:
    @pytest.mark.parametrize(
        ("call", "argument", "lacks"),
        [("landlock", None, "Landlock"), ("prctl", 22, "seccomp"), ("prctl", 38, "no_new_privs")],
    )
    def test_without_a_mechanism_nothing_is_run(self, call: str, argument: int | None, lacks: str) -> None:
        # prctl 38 is denied to the children only: the test's own filter is in place by then
        said = without(call, argument, _TRY)
        assert said.startswith("refused: programs cannot be confined on this machine, so none was run. It lacks ")
        assert lacks in said
        assert "it ran" not in said

    def test_without_namespaces_it_runs(self) -> None:
        assert "it ran" in without("unshare", None, _TRY)

    def test_a_sandbox_that_leaks_is_found(self) -> None:
        leak = """
            import pathlib, shutil, tempfile
            from aya_jax.evaluation.code import sandbox
            copy = pathlib.Path(tempfile.mkdtemp()) / "confined"
            shutil.copytree(sandbox._LAUNCHER, copy)
            main = copy / "__main__.py"
            main.write_text(main.read_text().replace("kernel.confine_files(", "(lambda *a: None)("))
            sandbox._LAUNCHER = copy
        """
        said = without("unshare", None, textwrap.dedent(leak) + _TRY)
        assert said.startswith("refused: ")
        assert "a program could read a file" in said
        assert "a program could open a socket" not in said


class TestMechanisms:
    def test_landlock_alone_hides_files_and_lets_nothing_be_executed(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "scratch").mkdir()
        program = f"""
            def attempt(what, *arguments):
                try:
                    what(*arguments)
                    print("yes", end=" ")
                except PermissionError:
                    print("no", end=" ")
            kernel.forbid_new_privileges()
            for confined in (False, True):
                if confined:
                    kernel.confine_files((), ({str(tmp_path)!r},), (), {str(tmp_path / "scratch")!r})
                attempt(os.listdir, {str(tmp_path)!r})
                attempt(open, {str(tmp_path / "secret")!r})
                attempt(open, "/etc/passwd")
                attempt(open, {str(tmp_path / "scratch" / "new")!r}, "w")
                attempt(os.posix_spawn, "/bin/true", ["true"], {{}})
        """
        assert alone(program) == "yes yes yes yes yes yes no no yes no"

    @pytest.mark.skipif(not shutil.which("unshare"), reason="nothing here says whether namespaces are allowed")
    def test_a_network_namespace_alone_reaches_nobody(self) -> None:
        program = """
            import socket
            server = socket.create_server(("127.0.0.1", 0))
            own = kernel.leave_namespaces()
            try:
                socket.create_connection(server.getsockname(), timeout=1)
                print(own, "reached")
            except OSError:
                print(own, "not reached")
        """
        ways = (["unshare", "-Urn", "true"], ["unshare", "-n", "true"])
        if not any(subprocess.run(way, capture_output=True).returncode == 0 for way in ways):
            pytest.skip("this machine allows no namespaces")
        assert alone(program) == "True not reached"

    def test_capabilities_are_gone(self) -> None:
        program = """
            kernel.drop_capabilities()
            print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapPrm", "CapInh"))])
        """
        assert alone(program) == str(["0" * 16] * 3)

    def test_limits_are_soft_and_hard(self) -> None:
        program = (
            "import resource\nkernel.limit_resources({'NOFILE': 50})\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))"
        )
        assert alone(program) == "(50, 50)"

    def test_an_orphan_ends_itself(self) -> None:
        child = "if os.fork() == 0:\n    kernel.die_with_parent(1 << 22)\n    print('alive')\nelse: print(os.wait()[1])"
        assert alone(child) == "9"


class TestFilter:
    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_the_numbers_are_those_of_the_kernel(self, machine: str) -> None:
        if not _HEADERS[machine]:
            pytest.skip("the kernel's headers are not installed")
        text = _HEADERS[machine][0].read_text()
        numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
        numbers |= {"newfstatat": numbers.get("newfstatat", numbers.get("fstatat", -1))}
        column = list(syscall_filter.ARCHITECTURES).index(machine)
        assert {name: pair[column] for name, pair in _TABLES.items()} == {name: numbers.get(name) for name in _TABLES}

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_what_it_says(self, machine: str) -> None:
        column = list(syscall_filter.ARCHITECTURES).index(machine)
        program = syscall_filter.encode(syscall_filter.build_filter(machine, 77))
        allow, refuse, absent = 0x7FFF0000, 0x50001, 0x50026

        def judge(name: str, *arguments: int) -> int:
            return judged(program, syscall_filter.ARCHITECTURES[machine], _TABLES[name][column], arguments)

        thread = 0x3D0F00
        assert judge("read") == allow
        assert judge("clone3") == absent
        assert [judge("kill", pid) for pid in (77, 78, 0, 1, 2**64 - 1, 2**32 - 77)] == [allow, *[refuse] * 5]
        assert [judge("tgkill", pid) for pid in (77, 1)] == [allow, refuse]
        flags = (thread, thread | 0x400000, 17, 0x10000, thread & ~0x10000, thread | 0x40000000, thread | 0x10000000)
        assert [judge("clone", each) for each in flags] == [allow, allow, *[refuse] * 5]
        assert [judge("openat", 0, 0, each) for each in (0, 1, 2, 0o101, 0o1102, 0o2000000)] == [allow] * 6
        assert [judge("openat", 0, 0, each) for each in (0o1000, 3, 0o20200002, 0o20000001)] == [refuse] * 4
        assert [judge("fcntl", 0, each) for each in (1, 1030, 8, 10, 15, 1031)] == [allow, allow, *[refuse] * 4]
        assert [judge("ioctl", 0, each) for each in (0x5401, 0x5412)] == [allow, refuse]
        assert [judge("prlimit64", 0, 7, each) for each in (0, 1, 1 << 32)] == [allow, refuse, refuse]
        native = syscall_filter.ARCHITECTURES[machine]
        listed = {pair[column] for pair in syscall_filter.NUMBERS.values()}
        checked = {pair[column] for pair in syscall_filter.CHECKED_NUMBERS.values()}
        for number in set(range(600)) - checked:
            assert judged(program, native, number, ()) == (allow if number in listed else refuse)
            assert judged(program, native, number | 0x40000000, ()) == refuse  # x32
            assert judged(program, 0x40000003, number, ()) == 0x80000000  # i386

    def test_the_two_tables_allow_the_same(self) -> None:
        for name, (x86, arm) in _TABLES.items():
            assert x86 is not None, name
            assert arm is not None or f"{name}at" in _TABLES or name in _OF_OLD, name

    def test_an_unknown_machine_has_none(self) -> None:
        with pytest.raises(KeyError):
            syscall_filter.build_filter("pdp11", 1)


_OF_OLD = {
    "stat",
    "lstat",
    "access",
    "readlink",
    "dup2",
    "pipe",
    "poll",
    "select",
    "pause",
    "getpgrp",
    "time",
    "alarm",
    "open",
}


def judged(program: bytes, architecture: int, number: int, arguments: tuple[int, ...]) -> int:
    """What a filter says to a call: the machine of linux/filter.h in a few lines."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += if_true if accumulator == value else if_false
        elif code == 0x06:  # BPF_RET | BPF_K
            return value
        else:
            raise AssertionError(code)
