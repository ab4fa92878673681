"""The system calls that a confined program may make, as a seccomp-BPF filter.

Everything that is not listed is refused: a call that the kernel learns tomorrow is refused too, and a wrong number in a
table makes the filter stricter instead of weaker. What is missing says the most: no `socket`, so no network and no
AF_UNIX; no `fork`, `vfork` or `execve`, and of `clone` only what makes a thread, so that the one process is all there
is to end; no signal to any process but itself, no `ptrace`, no `mount`, no `setrlimit`, and no `chmod`, `chown` or
`utime`, over which Landlock has no say. A few calls are allowed for some arguments only: see `_checked`.

A filter is an array of instructions (`struct sock_filter`) of the classic BPF machine over `struct seccomp_data`
(linux/seccomp.h): the call's number, the architecture, and six 64-bit arguments.

This file imports nothing of the project: the launcher runs it inside an interpreter that sees the standard library
only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # SECCOMP_RET_*
EPERM, ENOSYS = 1, 38

_LOAD, _JUMP_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

# Name: number on x86_64 and on aarch64 (asm/unistd_64.h and asm-generic/unistd.h); None where there is no such call.
NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    # files: what may be opened is Landlock's to say
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "close": (3, 57), "close_range": (436, 436), "lseek": (8, 62), "fstat": (5, 80), "newfstatat": (262, 79),
    "stat": (4, None), "lstat": (6, None), "statx": (332, 291), "access": (21, None), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "getdents64": (217, 61), "mkdir": (83, None), "mkdirat": (258, 34), "symlink": (88, None),
    "symlinkat": (266, 36), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83), "umask": (95, 166),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    # memory
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "msync": (26, 227), "brk": (12, 214),
    # threads and signals of its own
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "pause": (34, None),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
    # who and where it is
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getgroups": (115, 158), "getresuid": (118, 148),
    "getresgid": (120, 150), "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156), "uname": (63, 160),
    "sysinfo": (99, 179), "getrusage": (98, 165), "times": (100, 153), "getrlimit": (97, 163),
    # time and chance
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "setitimer": (38, 103), "getitimer": (36, 102),
    "alarm": (37, None), "getrandom": (318, 278),
}  # fmt: skip

CHECKED_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "fcntl": (72, 25), "ioctl": (16, 29), "kill": (62, 129),
    "tgkill": (234, 131), "clone": (56, 220), "clone3": (435, 435), "prlimit64": (302, 261),
}  # fmt: skip

# Flags of what glibc's pthread_create asks for; musl adds CLONE_DETACHED, which the kernel ignores.
_THREAD_FLAGS, _CLONE_DETACHED = 0x3D0F00, 0x400000
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; F_SETOWN and F_SETSIG would send signals to others.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
# TCGETS and TIOCGWINSZ (is this a terminal?), FIOCLEX, FIONCLEX.
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x5451, 0x5450)
_O_RDONLY, _O_WRONLY, _O_RDWR, _O_ACCMODE, _O_TRUNC, _O_TMPFILE = 0, 1, 2, 3, 0o1000, 0o20000000


class Instruction(NamedTuple):
    """One `struct sock_filter`.

    Attributes:
      code: what to do.
      if_true: how many instructions to pass over where a comparison holds.
      if_false: how many where it does not.
      value: its operand.
    """

    code: int
    if_true: int
    if_false: int
    value: int


class Check(NamedTuple):
    """A condition on 32 bits of an argument, which after a mask must be one of some values.

    Attributes:
      argument: which of the six.
      values: what it may be.
      mask: the bits that count.
      high: whether the upper half is meant (pointers; the kernel reads the lower half of everything else here).
    """

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    high: bool = False


def build_filter(machine: str, pid: int) -> list[Instruction]:
    """The filter of one process.

    Args:
      machine: as `os.uname().machine` says.
      pid: the process; it may send signals to itself.

    Raises:
      KeyError: no table for this machine.
    """
    column = list(ARCHITECTURES).index(machine) if machine in ARCHITECTURES else None
    if column is None:
        raise KeyError(machine)
    program = [
        _load(_ARCHITECTURE_AT),
        Instruction(_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _return(KILL),  # another architecture's numbers (32-bit calls) mean other calls
        _load(_NUMBER_AT),
    ]
    for numbers in NUMBERS.values():
        if numbers[column] is not None:
            program += [Instruction(_JUMP_EQUAL, 0, 1, numbers[column]), _return(ALLOW)]
    for name, checks in _checked(pid).items():
        number = CHECKED_NUMBERS[name][column]
        if number is not None:
            body = [instruction for check in checks for instruction in _check(check)] + [_return(ALLOW)]
            program += [Instruction(_JUMP_EQUAL, 0, len(body), number), *body]
    # The C library asks for threads by clone3, whose flags lie in memory where no filter sees them, and falls back to clone
    # only when it is told that there is no such call.
    program += [Instruction(_JUMP_EQUAL, 0, 1, CHECKED_NUMBERS["clone3"][column]), _return(ERRNO | ENOSYS)]
    return [*program, _return(ERRNO | EPERM)]


def encode(program: Sequence[Instruction]) -> bytes:
    """The instructions as the kernel reads them."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _checked(pid: int) -> dict[str, tuple[Check, ...]]:
    # Reading with O_TRUNC empties a file without the right to write under Landlock's first two versions; O_TMPFILE makes
    # files that no listing of the scratch folder shows.
    judged = _O_TRUNC | _O_TMPFILE | _O_ACCMODE
    flags = (_O_RDONLY, _O_WRONLY, _O_RDWR, _O_WRONLY | _O_TRUNC, _O_RDWR | _O_TRUNC)
    itself = (Check(0, (pid,)),)
    return {
        "open": (Check(1, flags, judged),),
        "openat": (Check(2, flags, judged),),
        "fcntl": (Check(1, _FCNTL_COMMANDS),),
        "ioctl": (Check(1, _IOCTL_COMMANDS),),
        "kill": itself,
        "tgkill": itself,
        "clone": (Check(0, (_THREAD_FLAGS,), 0xFFFFFFFF & ~_CLONE_DETACHED),),
        "prlimit64": (Check(2, (0,)), Check(2, (0,), high=True)),  # asking for limits, not setting them
    }


def _check(check: Check) -> list[Instruction]:
    """Falls through where the check holds, and refuses the call where it does not."""
    offset = _ARGUMENTS_AT + 8 * check.argument + (4 if check.high else 0)  # both machines are little-endian
    left = len(check.values)
    compare = [Instruction(_JUMP_EQUAL, left - i, 0, value) for i, value in enumerate(check.values)]
    return [_load(offset), Instruction(_AND, 0, 0, check.mask), *compare, _return(ERRNO | EPERM)]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _return(action: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, action)
