"""What a model has answered already, on disk: a run that was killed goes on where it was, and no question is put twice.

One file of JSON lines for each model in each number format, named by the digest of its weights: other weights under the same
path are another file. A line that a kill has cut short is left out, and written over by the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from aya_jax.config import UserError
from aya_jax.config.files import unwritable


class Answers:
    """A dictionary from questions to answers that is kept in a file; a context that closes it."""

    def __init__(self, file: Path):
        """Reads what is there.

        Args:
          file: where; made with its folder if it is not there.

        Raises:
          UserError: it cannot be written.
        """
        self.file, self._known = file, {}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._handle = file.open("ab", buffering=0)  # what could not be written is not tried again at the end
        except OSError as error:
            raise unwritable(file, error) from error
        self._handle.truncate(self._read())

    def _read(self) -> int:
        """Takes in the whole lines; gives how many bytes they are."""
        whole = 0
        with self.file.open("rb") as lines:
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
        if not self._handle.closed:
            os.fsync(self._handle.fileno())
            self._handle.close()

    def __enter__(self) -> Answers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def question(*parts: Sequence[Any] | str | int | float | None) -> str:
    """A key for all that decides an answer beside the weights."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
