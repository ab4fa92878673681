"""What a model has answered already, on disk: a run that was killed goes on where it was, and no question is put twice.

A file of JSON lines for each model in each number format, named by the digest of its weights: other weights under the same
path are another file. A line that a kill has cut short is left out, and written over by the next. Where another run writes
the file at this moment, the next number of the name is this run's (`model.jsonl`, `model-1.jsonl`, ...); whoever opens the file
reads all of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from aya_jax.config import UserError
from aya_jax.config.files import unwritable


class Answers:
    """A dictionary from questions to answers that is kept in a file; a context that closes it."""

    def __init__(self, file: Path, *, together: bool = False):
        """Reads what is there.

        Args:
          file: where; made with its folder if it is not there.
          together: whether every process of a run opens it, at the same time, and puts the same answers: process 0 reads and
            writes for all of them.

        Raises:
          UserError: it cannot be written.
        """
        self.file, self._known, self._handle = file, {}, None
        if together:
            from aya_jax.parallel.distributed import agree_on, process_info

            if process_info().index == 0:
                self._open()
            self._known = agree_on(self._known)
        else:
            self._open()

    def _open(self) -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            for file in _numbered(self.file):
                if self._handle is None:
                    handle = file.open("ab", buffering=0)  # what could not be written is not tried again at the end
                    if _is_ours(handle):
                        self.file, self._handle = file, handle
                        handle.truncate(self._read(file))
                        continue
                    handle.close()
                if not file.exists():
                    return
                self._read(file)
        except OSError as error:
            raise unwritable(self.file, error) from error

    def _read(self, file: Path) -> int:
        """Takes in the whole lines; gives how many bytes they are."""
        whole = 0
        with file.open("rb") as lines:
            for line in lines:
                try:
                    key, value = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self._known[key] = value
                whole += len(line)
        return whole

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: str) -> Any | None:
        """The answer to a question, if it is known."""
        return self._known.get(key)

    def put(self, found: Mapping[str, Any]) -> None:
        """Adds answers: when this returns, they survive a kill of this process.

        Raises:
          UserError: the disk is full.
        """
        if self._handle is not None:
            lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in found.items())
            try:
                left = memoryview(lines.encode("utf-8", "surrogatepass"))
                while left:
                    left = left[self._handle.write(left) :]
            except OSError as error:
                raise UserError(
                    f"{self.file}: {error.strerror}; what was answered before is kept: make room, and start again"
                ) from error
        self._known |= found

    def close(self) -> None:
        """Writes to the disk itself."""
        if self._handle is not None and not self._handle.closed:
            os.fsync(self._handle.fileno())
            self._handle.close()

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _numbered(file: Path) -> Iterator[Path]:
    yield file
    for number in itertools.count(1):
        yield file.with_stem(f"{file.stem}-{number}")


def _is_ours(handle: BinaryIO) -> bool:
    """Whether no other run writes the file; until it is closed, none does then."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def question(*parts: Sequence[Any] | str | int | float | None) -> str:
    """A key for all that decides an answer beside the weights."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
