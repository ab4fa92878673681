"""Writing a file so that a reader sees all of it or none of it, seeing it onto the disk, and telling whether it has changed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from aya_jax.config.errors import UserError


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes `content` (text as UTF-8) beside `path`, flushes it to the disk, and renames it into place.

    Folders above `path` are made. A reader, or a process that starts after a crash, finds the old file or the new one,
    never a part.

    Raises:
      UserError: the folder is not writable, the disk is full, or a folder is in the way.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The error to raise when `path` could not be written: what is the matter and what to do."""
    advice = {
        errno.ENOSPC: "the disk is full; free some space, or choose a folder on another disk",
        errno.EDQUOT: "your disk quota is used up; free some space, or choose a folder elsewhere",
        errno.EACCES: "no permission to write there; choose another folder, or change its permissions",
        errno.EPERM: "no permission to write there; choose another folder, or change its permissions",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOTDIR: "a file is in the way of a folder; choose another path",
        errno.EEXIST: "a file is in the way of a folder; choose another path",
        errno.EISDIR: "a folder is in the way of the file; choose another path",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter path",
    }
    return UserError(f"{path}: cannot be written: {advice.get(error.errno or 0, error.strerror or str(error))}.")


def checksum(content: Any) -> str:
    """XXH3-128, in hex, of bytes or an array of them: against accidents, not against forgers, and as fast as memory."""
    import xxhash

    return xxhash.xxh3_128_hexdigest(content)


def file_checksum(path: str | os.PathLike[str]) -> str:
    """`checksum` of a file."""
    import xxhash

    state, piece = xxhash.xxh3_128(), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as stream:
        while count := stream.readinto(piece):
            state.update(memoryview(piece)[:count])
    return state.hexdigest()


class Syncing:
    """Sees files onto the disk from a thread of its own, while more is written; several threads may use it."""

    def __init__(self, most: int = 16):
        """`most`: files that may wait; then whoever adds another waits."""
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()
        self._most, self._lock = most, threading.Lock()

    def later(self, stream: BinaryIO) -> None:
        """What has been written to a file so far goes to the disk; the file may be closed meanwhile."""
        stream.flush()
        descriptor = os.dup(stream.fileno())
        with self._lock:
            self._pending.append(self._pool.submit(_sync, descriptor))
            oldest = self._pending.popleft() if len(self._pending) > self._most else None
        if oldest is not None:
            oldest.result()

    def wait(self) -> None:
        """Returns when all of it is there.

        Raises:
          OSError: something could not be written.
        """
        with self._lock:
            while self._pending:
                self._pending.popleft().result()
        self._pool.shutdown()


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
