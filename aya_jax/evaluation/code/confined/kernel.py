"""What a process asks of the Linux kernel to give up its own rights, for good.

Each function is one mechanism and stands alone: limits, namespaces, Landlock, capabilities, the system call filter.
None of them can be taken back by the process, whoever it runs as. `__main__` says in which order they are used.

This file imports nothing of the project: the launcher runs it inside an interpreter that sees the standard library
only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Iterable, Mapping

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 1, 22, 38, 2
_CLONE_NEWUTS, _CLONE_NEWIPC, _CLONE_NEWUSER, _CLONE_NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
_SIGKILL = 9

# linux/landlock.h; the numbers of the calls are the same on every machine.
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION_FLAG, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 1, 1 << 2, 1 << 3, 1 << 7, 1 << 8, 1 << 12
_TRUNCATE = 1 << 14
_FILE_RIGHTS_OF_VERSION = (13, 14, 15, 15, 16)  # how many rights over files version 1, 2, ... knows
_BOTH_TCP_RIGHTS, _BOTH_SCOPES = 3, 3
_READ = _READ_FILE | _READ_DIR
# Nothing is deleted or renamed in the scratch folder: what a program writes stays in sight of whoever measures it.
_SCRATCH = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


class Unavailable(Exception):
    """A mechanism that this machine does not offer; its text says which, and why."""


def limit_resources(limits: Mapping[str, int]) -> None:
    """Sets limits, soft and hard alike, by the names of `resource.RLIMIT_...` without that prefix."""
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def leave_namespaces() -> bool:
    """Moves into a network of its own that has no device up, and says whether it could.

    A user namespace is what lets a plain user do so; containers often forbid it, and root can do without.
    """
    own = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS
    return any(_libc.unshare(flags) == 0 for flags in (own | _CLONE_NEWUSER, own))


def forbid_new_privileges() -> None:
    """No program that is executed from here on gains rights; Landlock and seccomp ask for this.

    Raises:
      Unavailable: the kernel refuses.
    """
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def landlock_version() -> int:
    """Which version of Landlock the kernel has.

    Raises:
      Unavailable: none: an old kernel, one that was started without it, or a container that forbids it.
    """
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION_FLAG)
    if version < 1:
        raise Unavailable(f"Landlock, which Linux has since 5.13 ({_reason()})")
    return version


def confine_files(readable: Iterable[str], listable: Iterable[str], writable: Iterable[str], scratch: str) -> None:
    """From here on, files are what lies beneath these paths; nothing can be executed.

    Args:
      readable: files, and folders with all that is in them; a path that is not there or not to be had is passed over.
      listable: folders whose names may be seen, theirs and those of the folders in them, but no file's content.
      writable: files that may be read and written.
      scratch: the folder in which files and folders may be made.

    Raises:
      Unavailable: no Landlock.
    """
    version = landlock_version()
    handled = (1 << _FILE_RIGHTS_OF_VERSION[min(version, len(_FILE_RIGHTS_OF_VERSION)) - 1]) - 1
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _BOTH_TCP_RIGHTS)
    if version >= 6:
        attributes += struct.pack("=Q", _BOTH_SCOPES)
    ruleset = _libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        raise Unavailable(f"Landlock ({_reason()})")
    for paths, rights in ((readable, _READ), (listable, _READ_DIR), (writable, _READ_FILE | _WRITE_FILE)):
        for path in paths:
            with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                _allow_beneath(ruleset, path, rights)
    _allow_beneath(ruleset, scratch, _SCRATCH & handled)
    if _libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise Unavailable(f"Landlock ({_reason()})")
    os.close(ruleset)


def drop_capabilities() -> None:
    """Gives up every capability, so that root is no more than the owner of its files.

    Raises:
      Unavailable: the kernel refuses.
    """
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3, this process
    if _libc.capset(header, none) != 0:
        raise Unavailable(f"giving up capabilities ({_reason()})")


def die_with_parent(parent: int) -> None:
    """Is killed when the parent's thread ends that started this process; at once, if that has ended.

    Comes after the last change of rights, which takes it back.
    """
    _prctl("a signal at the parent's death", _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), _SIGKILL)


def install_filter(program: bytes) -> None:
    """Has a filter judge every system call of this process from here on.

    Args:
      program: an array of `struct sock_filter`.

    Raises:
      Unavailable: the kernel has no seccomp filters, or a container forbids them.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of 8 bytes, and where they are, aligned as a pointer is.
    pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    where = ctypes.create_string_buffer(pointer, len(pointer))
    _prctl("seccomp filters", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(where))


def _allow_beneath(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= ~(_READ_DIR | _MAKE_DIR | _MAKE_REG | _MAKE_SYM)
        rule = struct.pack("=Qi", rights, descriptor)  # struct landlock_path_beneath_attr
        if _libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_RULE_PATH_BENEATH, rule, 0) != 0:
            raise Unavailable(f"a Landlock rule for {path} ({_reason()})")
    finally:
        os.close(descriptor)


def _prctl(what: str, option: int, *arguments: int) -> None:
    if _libc.prctl(option, *arguments, *[0] * (4 - len(arguments))) != 0:
        raise Unavailable(f"{what} ({_reason()})")


def _reason() -> str:
    return os.strerror(ctypes.get_errno())
