"""Programs that mean no harm, and what is told of them."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.code.sandbox import Limits, run_program, run_programs
from aya_jax.evaluation.code.scratch import remove_tree, within

_MIB = 1 << 20


class TestNormalPrograms:
    def test_the_standard_library(self) -> None:
        modules = (
            "math re collections itertools json typing random datetime functools heapq bisect string statistics "
            "fractions decimal copy hashlib zlib bz2 lzma dataclasses enum operator cmath array struct abc io textwrap "
            "sqlite3 ctypes unittest urllib.parse zoneinfo threading"
        )
        outcome = run_program("\n".join(f"import {name}" for name in modules.split()) + "\nprint('all')")
        assert (outcome.status, outcome.stdout, outcome.stderr) == ("passed", "all\n", "")

    @pytest.mark.parametrize(
        ("program", "printed"),
        [
            ("import hashlib\nprint(hashlib.md5(b'').hexdigest())", "d41d8cd98f00b204e9800998ecf8427e\n"),
            ("print('नमस्ते 🌷')", "नमस्ते 🌷\n"),
            ("if __name__ == '__main__': print('main')", "main\n"),
            ("import sys\nprint(sys.argv[1:], sys.stdin.read(), sys.stdin.isatty())", "[]  False\n"),
            ("open('a', 'w').write('x')\nprint(open('a').read())", "x\n"),
            (
                "import os\nprint(os.listdir('.'))\nos.mkdir('d')\nopen('d/f', 'w')\nprint(os.listdir('d'))",
                "[]\n['f']\n",
            ),
            ("import contextlib, os\nwith contextlib.redirect_stdout(open(os.devnull, 'w')): print(1)", ""),
            ("import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: 'int'\nprint(A(1))", "A(x=1)\n"),
            (
                "import random\nrandom.seed(0)\nprint(random.random() < 1, type(random.SystemRandom().random()).__name__)",
                "True float\n",
            ),
            ("def f(n): return n and f(n - 1)\nimport sys\nsys.setrecursionlimit(20000)\nprint(f(15000))", "0\n"),
            ("import datetime, time\ntime.sleep(0.01)\nprint(datetime.date(2024, 2, 29).isoformat())", "2024-02-29\n"),
            ("import threading\nt = threading.Thread(target=print, args=('t',))\nt.start()\nt.join()", "t\n"),
            ("x = bytearray(600 << 20)\nprint(len(x) >> 20)", "600\n"),
            ("import sys\nsys.stdout.write('no end of line')", "no end of line"),
            ("import re\nprint(re.sub('a', 'b', 'banana'))", "bbnbnb\n"),
            ("print(0x7fffffff in range(10**12))", "True\n"),
        ],
    )
    def test_what_it_prints(self, program: str, printed: str) -> None:
        outcome = run_program(program)
        assert (outcome.status, outcome.exit_code, outcome.stdout) == ("passed", 0, printed)

    def test_an_exception_is_reported_with_its_line(self) -> None:
        outcome = run_program("def f(x):\n    return 1 / x\n\nf(0)")
        assert (outcome.status, outcome.exit_code) == ("failed", 1)
        assert outcome.stderr.startswith(
            'Traceback (most recent call last):\n  File "<program>", line 4, in <module>\n'
        )
        assert "    return 1 / x\n" in outcome.stderr
        assert outcome.stderr.endswith("ZeroDivisionError: division by zero\n")

    @pytest.mark.parametrize(
        "program",
        ["def f(:", "raise KeyboardInterrupt", "assert False", "\0", "'\ud800'", "int('9' * 9999)", "input()"],
    )
    def test_failures(self, program: str) -> None:
        outcome = run_program(program)
        assert outcome.status == "failed"
        assert "Error" in outcome.stderr or "KeyboardInterrupt" in outcome.stderr

    @pytest.mark.parametrize(
        ("program", "status", "code"),
        [("import sys; sys.exit(3)", "exited", 3), ("raise SystemExit('why')", "exited", 1), ("quit = 1", "passed", 0)],
    )
    def test_exits(self, program: str, status: str, code: int) -> None:
        outcome = run_program(program)
        assert (outcome.status, outcome.exit_code) == (status, code)
        assert outcome.passed == (status == "passed")

    def test_sets_come_in_the_same_order(self) -> None:
        program = "import os\nprint(list({'apple', 'pear', 'plum', 'fig'}), dict(os.environ))"
        first, second = run_programs([program] * 2)
        assert first.stdout == second.stdout
        assert first.stdout.endswith(" {}\n")

    def test_a_long_program(self) -> None:
        assert run_program("x = 1\n" * 100_000 + "print(x)").stdout == "1\n"

    def test_a_crash_is_told_by_its_signal(self) -> None:
        outcome = run_program("import ctypes\nctypes.string_at(0)")
        assert (outcome.status, outcome.exit_code) == ("killed", -11)

    def test_long_output_keeps_both_ends(self) -> None:
        outcome = run_program("print('start' + 'x' * 100_000 + 'end')")
        assert outcome.passed
        assert outcome.stdout.startswith("startxx")
        assert outcome.stdout.endswith("xxend\n")
        assert "\n... 91817 bytes left out ...\n" in outcome.stdout  # 100,009 less 8,192

    def test_seconds(self) -> None:
        assert 0.3 <= run_program("import time; time.sleep(0.3)").seconds < 2


class TestManyPrograms:
    def test_order_is_kept(self) -> None:
        programs = [f"import time; time.sleep({(7 - i) / 50}); print({i})" for i in range(8)]
        assert [outcome.stdout for outcome in run_programs(programs, workers=4)] == [f"{i}\n" for i in range(8)]

    def test_they_run_at_once_and_apart(self) -> None:
        started = time.monotonic()
        outcomes = run_programs(["open('a', 'x'); import time; time.sleep(1)"] * 6, workers=6)
        assert time.monotonic() - started < 4
        assert all(outcome.passed for outcome in outcomes)

    def test_from_threads_of_the_caller_and_none_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        open_files = len(os.listdir("/proc/self/fd"))
        threads = [
            threading.Thread(target=run_programs, args=(["print(1)", "1/0", "while 1: print(1)"],)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(tmp_path.iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == open_files

    def test_no_programs(self) -> None:
        assert run_programs([]) == []

    def test_no_workers(self) -> None:
        with pytest.raises(UserError, match="0 workers"):
            run_programs(["1"], workers=0)


class TestLimits:
    def test_all_that_makes_no_sense_is_named(self) -> None:
        limits = Limits(wall_seconds=0, cpu_seconds=float("inf"), memory_bytes=1, threads=0)
        with pytest.raises(UserError) as caught:
            run_program("1", limits)
        assert all(name in str(caught.value) for name in ("wall_seconds", "cpu_seconds", "memory_bytes", "threads"))

    def test_each_field_is_checked(self) -> None:
        for field in dataclasses.fields(Limits):
            problems = list(dataclasses.replace(Limits(), **{field.name: 0}).validate())
            assert [problem.field for problem in problems] == [field.name]
        assert list(Limits().validate()) == []


class TestScratch:
    def test_within(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "f").write_bytes(bytes(100_000))
        (tmp_path / "link").symlink_to("/")
        assert within(str(tmp_path), 10 * _MIB, 3)
        assert not within(str(tmp_path), 10 * _MIB, 2)
        assert not within(str(tmp_path), 99_999, 3)

    def test_removes_what_is_deep_and_shut(self, tmp_path: Path) -> None:
        folder, outside = tmp_path / "scratch", tmp_path / "outside"
        folder.mkdir(), outside.mkdir()
        (outside / "kept").write_text("kept")
        before = os.getcwd()
        os.chdir(folder)
        try:
            for level in range(1200):
                Path("file").write_text("x")
                Path("link").symlink_to(outside)
                os.mkdir(f"d{level % 10}" * 20, 0o700)
                os.chdir(f"d{level % 10}" * 20)
            os.mkdir("shut", 0)
        finally:
            os.chdir(before)
        assert not within(str(folder), 1 << 40, 1 << 40)  # its path is too long to be looked at
        remove_tree(str(folder))
        assert not folder.exists()
        assert (outside / "kept").read_text() == "kept"

    def test_nothing_to_remove(self, tmp_path: Path) -> None:
        remove_tree(str(tmp_path / "none"))  # as `rm -rf`: no error
        assert list(tmp_path.iterdir()) == []
