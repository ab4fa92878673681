"""Programs that attack: each succeeds when it is run as it is, and fails in the sandbox."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aya_jax.evaluation.code import sandbox
from aya_jax.evaluation.code.sandbox import Limits, Outcome, run_program

SECRET = "tulip-4711"
_IMPORT = "from aya_jax.evaluation.code.sandbox import run_program"
_BRIEF = Limits(wall_seconds=5, cpu_seconds=5)


@pytest.fixture(autouse=True)
def _scratch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scratch folders in a place of the test's own, where nothing and nobody may be left."""
    home = tmp_path / "scratch"
    home.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    yield
    assert list(home.iterdir()) == []
    assert processes_in(home) == []


def processes_in(folder: Path) -> list[int]:
    """The processes that have their working folder there, deleted or not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd").startswith(str(folder)):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def plainly(program: str, cwd: Path, **environment: str) -> str:
    """What a program prints when nothing holds it back."""
    command = [sys.executable, "-I", "-S", "-B", "-c", program]
    run = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=30)
    return run.stdout


def aya(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the project in a process of its own."""
    where = {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": tempfile.gettempdir()}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env={**where, **environment}, capture_output=True, text=True, timeout=60)


class TestFiles:
    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        file = tmp_path / "secret"
        file.write_text(SECRET)
        return file

    @pytest.mark.parametrize(
        "attack",
        [
            "print(open({secret!r}).read())",
            "import os; os.symlink({secret!r}, 'link'); print(open('link').read())",
            "import os; os.link({secret!r}, 'link'); print(open('link').read())",
            "import os; os.chdir(os.path.dirname({secret!r})); print(open('secret').read())",
            "import os; print(open('/proc/self/root' + {secret!r}).read())",
            "import os; print(open(f'/proc/{{os.getppid()}}/root' + {secret!r}).read())",
            "import os; print(os.listdir(os.path.dirname({secret!r})), 'tulip-4711')",
            "import os, shutil; shutil.copy({secret!r}, 'copy'); print(open('copy').read())",
            "import ctypes; l = ctypes.CDLL(None); b = ctypes.create_string_buffer(99)\n"
            "l.read(l.open({secret!r}.encode(), 0), b, 99); print(b.value.decode())",
        ],
    )
    def test_a_secret_cannot_be_read(self, attack: str, secret: Path, tmp_path: Path) -> None:
        folder = tmp_path / "plain"
        folder.mkdir()
        program = attack.format(secret=str(secret))
        assert SECRET in plainly(program, folder)
        outcome = run_program(program, _BRIEF)
        assert SECRET not in outcome.stdout + outcome.stderr.replace(program, "")
        assert not outcome.stdout.strip()

    def test_the_environment_of_the_parent_cannot_be_read(self) -> None:
        attack = "import os\nprint(dict(os.environ))\nprint(open(f'/proc/{os.getppid()}/environ').read())"
        plain = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {attack!r}], env=dict())"
        assert SECRET in aya(plain, AYA_SECRET=SECRET).stdout
        ended = aya(f"{_IMPORT}\no = run_program({attack!r})\nprint(o.stdout, o.stderr)", AYA_SECRET=SECRET)
        assert ended.stdout.startswith("{}\n")
        assert "PermissionError" in ended.stdout
        assert SECRET not in ended.stdout

    @pytest.mark.parametrize(
        "attack",
        [
            "open({target!r}, 'w').write('x')",
            "open({target!r}, 'a').write('x')",
            "import os; os.close(os.open({target!r}, os.O_RDONLY | os.O_TRUNC))",
            "import os; os.truncate({target!r}, 0)",
            "import os; os.unlink({target!r})",
            "import os; os.rename({target!r}, {target!r} + '2')",
            "import os; os.chmod({target!r}, 0o777)",
            "import os; os.utime({target!r}, (1, 1))",
            "import os; open(os.path.dirname({target!r}) + '/new', 'w')",
            "import os; os.mkdir(os.path.dirname({target!r}) + '/new')",
            "import os; os.symlink({target!r}, 'link'); open('link', 'w')",
            "import os; os.symlink('/', os.path.dirname({target!r}) + '/new')",
        ],
    )
    def test_nothing_outside_can_be_changed(self, attack: str, tmp_path: Path) -> None:
        def state(folder: Path) -> list[tuple[str, int, float, str]]:
            files = sorted(folder.iterdir())
            return [
                (f.name, f.lstat().st_mode, f.lstat().st_mtime, f.read_text() if f.is_file() else "") for f in files
            ]

        folder, plain = tmp_path / "folder", tmp_path / "plain"
        folder.mkdir(), plain.mkdir()
        (folder / "target").write_text("untouched")
        before = state(folder)
        program = attack.format(target=str(folder / "target"))
        outcome = run_program(program, _BRIEF)
        assert outcome.status == "failed"
        assert state(folder) == before
        plainly(program, plain)
        assert state(folder) != before

    def test_the_scratch_folder_cannot_be_deleted(self) -> None:
        outcome = run_program(
            "import os, shutil\nopen('a', 'w').write('x')\nshutil.rmtree(os.getcwd(), ignore_errors=True)\n"
            "print(os.listdir('.'))"
        )
        assert outcome.stdout == "['a']\n"

    def test_installed_packages_cannot_be_read(self) -> None:
        outcome = run_program(
            "import sys, os\nsys.path.append(os.path.dirname(os.__file__) + '/site-packages')\nimport pip"
        )
        assert outcome.status == "failed"


class TestNetwork:
    def test_nothing_reaches_a_listener(self, tmp_path: Path) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract,
        ):
            udp.bind(("127.0.0.1", 0))
            unix.bind(str(tmp_path / "s"))
            abstract.bind(f"\0aya-test-{os.getpid()}")
            program = textwrap.dedent(f"""
                import socket
                for family, kind, address in [
                    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", {tcp.getsockname()[1]})),
                    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", {udp.getsockname()[1]})),
                    (socket.AF_UNIX, socket.SOCK_DGRAM, {str(tmp_path / "s")!r}),
                    (socket.AF_UNIX, socket.SOCK_DGRAM, "\\0aya-test-{os.getpid()}"),
                ]:
                    try:
                        s = socket.socket(family, kind)
                        s.connect(address)
                        s.send(b"x")
                        print("sent")
                    except PermissionError:
                        print("refused")
            """)
            for listener in (tcp, udp, unix, abstract):
                listener.settimeout(0.2)
            assert run_program(program, _BRIEF).stdout == "refused\n" * 4
            for listener in (tcp, udp, unix, abstract):
                with pytest.raises(TimeoutError):
                    listener.accept() if listener is tcp else listener.recv(9)
            assert plainly(program, tmp_path) == "sent\n" * 4
            tcp.accept()[0].close()
            assert [listener.recv(9) for listener in (udp, unix, abstract)] == [b"x"] * 3


class TestProcesses:
    @pytest.mark.parametrize(
        "attack",
        [
            "import os\nif os.fork() == 0: os._exit(0)\nprint('done')",
            "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os._exit(0)\n    os._exit(0)\n"
            "print('done')",
            "import os\nos.posix_spawn('/bin/true', ['true'], {})\nprint('done')",
            "import subprocess\nsubprocess.run(['/bin/true'])\nprint('done')",
            "import os\nos.system('echo done')",
            "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo done'])",
            "import sys, os\nos.execv(sys.executable, ['python', '-c', 'print(\"done\")'])",
        ],
    )
    def test_no_second_process_and_no_other_program(self, attack: str, tmp_path: Path) -> None:
        assert "done" in plainly(attack, tmp_path)
        assert "done" not in run_program(attack, _BRIEF).stdout

    def test_a_fork_bomb_is_one_refusal(self) -> None:
        outcome = run_program("import os\nwhile True:\n    os.fork()", _BRIEF)
        assert outcome.status == "failed"
        assert "PermissionError" in outcome.stderr

    def test_a_thread_bomb_is_ended(self) -> None:
        bomb = "import threading, time\nthreading.stack_size(1 << 15)\n" + (
            "while True:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
        )
        assert run_program(bomb, _BRIEF).status in ("threads", "failed")
        few = "import threading, time\nthreading.stack_size(1 << 15)\n" + (
            "for _ in range(6):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)"
        )
        assert run_program(few, Limits(threads=3)).status == "threads"

    def test_the_parent_cannot_be_killed(self) -> None:
        attack = "import os\nos.kill(os.getppid(), 9)"
        plain = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {attack!r}])\nprint('alive')"
        assert aya(plain).returncode == -9
        ended = aya(f"{_IMPORT}\nprint(run_program({attack!r}).stderr)\nprint('alive')")
        assert "PermissionError" in ended.stdout
        assert ended.stdout.endswith("alive\n")

    @pytest.mark.parametrize("whom", ["os.getppid()", "-1", "0", "1", "-os.getpgrp()"])
    def test_no_signal_to_anybody_else(self, whom: str, tmp_path: Path) -> None:
        attack = f"import os\nos.kill({whom}, 0)\nprint('allowed')"  # signal 0 asks whether one may
        assert plainly(attack, tmp_path) == "allowed\n" or os.getuid() != 0
        assert "PermissionError" in run_program(attack, _BRIEF).stderr

    def test_signals_that_files_send_are_refused(self) -> None:
        outcome = run_program("import fcntl, os\nfcntl.fcntl(1, 8, os.getppid())", _BRIEF)  # F_SETOWN
        assert "PermissionError" in outcome.stderr

    def test_a_program_dies_with_its_parent(self, tmp_path: Path) -> None:
        home = Path(tempfile.gettempdir())
        asleep = "open('up', 'w')\nimport time\ntime.sleep(60)"
        program = f"{_IMPORT}\nrun_program('')\nprint('go', flush=True)\nrun_program({asleep!r})"
        where = {"PYTHONPATH": str(Path(__file__).parents[3]), "TMPDIR": str(home)}
        with subprocess.Popen([sys.executable, "-c", program], env=where, stdout=subprocess.PIPE) as parent:
            assert parent.stdout
            parent.stdout.readline()
            wait_for(lambda: list(home.glob("*/up")))
            confined = processes_in(home)
            parent.kill()
        try:
            wait_for(lambda: not processes_in(home))
        finally:
            for pid in confined:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
        (left,) = home.iterdir()  # whoever is killed cannot clean up
        shutil.rmtree(left)


def wait_for(condition: Callable[[], object]) -> None:
    """Waits until something holds, for at most 5 seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class TestTime:
    def test_sleeping_for_ever_deaf_to_signals(self) -> None:
        outcome, seconds = timed(
            "import signal, time\nfor s in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGXCPU):\n"
            "    signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(60)",
            Limits(wall_seconds=0.5),
        )
        assert (outcome.status, outcome.exit_code) == ("timeout", -9)
        assert seconds < 3

    def test_nothing_to_read_and_everything_closed(self) -> None:
        closed = "import os, time\nfor f in range(64):\n    try: os.close(f)\n    except OSError: pass\ntime.sleep(60)"
        assert run_program(closed, Limits(wall_seconds=0.5)).status == "timeout"

    def test_cpu_seconds(self) -> None:
        busy = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
        outcome = run_program(busy, Limits(wall_seconds=30, cpu_seconds=1))
        assert outcome.status == "timeout"
        assert outcome.seconds < 25


def timed(program: str, limits: Limits) -> tuple[Outcome, float]:
    """An outcome, and how long it took all in all."""
    started = time.monotonic()
    return run_program(program, limits), time.monotonic() - started


class TestSpace:
    def test_a_memory_bomb(self) -> None:
        assert run_program("x = bytearray(2 << 30)").status == "memory"
        assert run_program("x = []\nwhile True: x.append(bytearray(1 << 20))").status == "memory"

    @pytest.mark.parametrize("unit", ["'x' * 1000", "'x'", "'x\\n' * (1 << 22)"])
    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_endless_output(self, unit: str, stream: str) -> None:
        outcome = run_program(f"import sys\nwhile True: sys.{stream}.write({unit})")
        assert outcome.status == "output"
        assert 8000 < len(outcome.stdout + outcome.stderr) < 9000

    def test_too_much_output_of_a_program_that_ends(self) -> None:
        limits = Limits(output_bytes=1000)
        assert run_program("print('x' * 999)", limits).status == "passed"
        assert run_program("print('x' * 1000)", limits).status == "output"

    def test_a_large_file(self) -> None:
        outcome = run_program("f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 20))")
        assert outcome.status == "failed"
        assert "File too large" in outcome.stderr

    @pytest.mark.parametrize(
        "program",
        [
            "for i in range(10**9): open(str(i), 'wb').write(bytes(1 << 20))",
            "for i in range(10**9): open(str(i), 'wb')",
            "import os\nwhile True:\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)",
            "import os\nos.mkdir('d', 0o300)\nos.chdir('d')\nfor i in range(10**9): open(str(i), 'wb')",
        ],
    )
    def test_many_files(self, program: str) -> None:
        assert run_program(program).status == "disk"

    def test_many_files_between_two_looks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox, "_TICK_SECONDS", 60.0)
        assert run_program("for i in range(300): open(str(i), 'wb')").status == "disk"

    @pytest.mark.parametrize(
        "hide",
        ["import os; os.unlink('a')", "import os; os.rename('a', 'b')", "import os; os.open('.', os.O_TMPFILE | 2)"],
    )
    def test_what_is_written_stays_in_sight(self, hide: str) -> None:
        assert "PermissionError" in run_program(f"open('a', 'w').write('x')\n{hide}").stderr


class TestSystemCalls:
    def test_those_that_lead_out_are_refused(self) -> None:
        if platform.machine() != "x86_64":
            pytest.skip("the numbers are those of x86_64")
        calls = {
            "socket": 41, "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "tkill": 200, "chmod": 90,
            "fchmod": 91, "chown": 92, "ptrace": 101, "setrlimit": 160, "chroot": 161, "mount": 165, "pivot_root": 155,
            "setsid": 112, "setuid": 105, "unshare": 272, "setns": 308, "process_vm_readv": 310, "kcmp": 312, "bpf": 321,
            "execveat": 322, "userfaultfd": 323, "memfd_create": 319, "seccomp": 317, "prctl": 157, "io_uring_setup": 425,
            "open_by_handle_at": 304, "openat2": 437, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
            "clone3": 435, "mknod": 133, "link": 86, "shmget": 29, "msgget": 68, "keyctl": 250, "add_key": 248,
            "perf_event_open": 298, "rt_sigqueueinfo": 129, "mq_open": 240, "truncate": 76, "unlink": 87, "rename": 82,
            "sched_setscheduler": 144, "x32 socket": 0x40000000 + 41, "not yet thought of": 999,
        }  # fmt: skip
        program = textwrap.dedent(f"""
            import ctypes, os
            libc = ctypes.CDLL(None, use_errno=True)
            for name, number in {calls!r}.items():
                ctypes.set_errno(0)
                if libc.syscall(number, 17, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (1, 38):
                    print(name, ctypes.get_errno())
            # limits may be asked for, and not set
            print(libc.syscall(302, 0, 0, 0, ctypes.create_string_buffer(16)))
            print(libc.syscall(302, 0, 0, ctypes.create_string_buffer(16), 0), ctypes.get_errno())
        """)
        outcome = run_program(program)
        assert (outcome.status, outcome.stdout) == ("passed", "0\n-1 1\n")

    def test_calls_of_a_32_bit_program_end_the_process(self) -> None:
        if platform.machine() != "x86_64":
            pytest.skip("there is no such way in on this machine")
        program = textwrap.dedent("""
            import ctypes, mmap
            page = mmap.mmap(-1, 4096, prot=7)
            page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
        """)
        outcome = run_program(program)
        assert outcome.status == "killed"
        assert outcome.exit_code in (-31, -11)  # SIGSYS; SIGSEGV where the kernel has no such calls
        assert outcome.stdout == ""


class TestForgery:
    CHECKS = "\ndef check(f):\n    assert f(2) == 4\ncheck(f)"

    @pytest.mark.parametrize(
        "answer",
        [
            "import sys\nsys.exit(0)",
            "import os\nos._exit(0)",
            "def f(x): raise SystemExit",
            "def f(x):\n    import os\n    os._exit(0)",
            "import os, sys\nos._exit = lambda code: None\ndef f(x): sys.exit(0)",
            "import os, sys\nos._exit = os.write = lambda *a: None\ndef f(x): raise MemoryError",
            "import builtins\nbuiltins.BaseException = builtins.SystemExit = KeyError\ndef f(x): raise EOFError",
            "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 5",
            "import sys\nsys.excepthook = lambda *a: None\ndef f(x): return 5",
            "import sys, os\nprint('passed')\nprint('ready')\nsys.stdout.flush()\nos._exit(0)",
            "import os\nfor n in range(3, 64):\n    for said in (b'passed', b'ready', bytes(32)):\n"
            "        try: os.write(n, said)\n        except OSError: pass\nos._exit(0)",
            "import os, signal\nos.kill(os.getpid(), 9)",
            "import os\nos.abort()",
            "import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()\nimport time\ntime.sleep(1)",
            "def f(x): return 5",
            "'''",
        ],
    )
    def test_ending_early_does_not_pass(self, answer: str) -> None:
        assert run_program(f"{answer}\n{self.CHECKS}", _BRIEF).status in ("exited", "failed", "killed", "memory")

    def test_a_right_answer_does(self) -> None:
        assert run_program(f"def f(x): return x * x\n{self.CHECKS}").passed
