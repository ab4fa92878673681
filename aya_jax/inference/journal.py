"""Answers kept as they come, in any order, and put in order at the end: a run that is killed loses none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from aya_jax.config import UserError
from aya_jax.config.files import unwritable

_SYNC_SECONDS = 1.0


class Journal:
    """`OUTPUT.partial`: a line that says what is asked, then a line for each answer; a context.

    Attributes:
      path: of the journal.
      begun: records of rows of which only the first turns have been answered.
    """

    def __init__(self, output: str | Path, question: str):
        """Opens the journal of an output file, or makes it.

        Args:
          output: the file to write in the end.
          question: changes when the prompts, the model or how it is asked do.

        Raises:
          UserError: the output is there already, or the journal is of another question.
        """
        self._output = Path(output)
        self.path = self._output.with_name(self._output.name + ".partial")
        self._places: dict[int, tuple[int, int]] = {}  # where each row's line is, and how long
        self.begun: dict[int, dict[str, Any]] = {}
        self._synced = time.monotonic()
        if self._output.exists():
            raise UserError(
                f"{self._output} is there already; remove it to generate it again, or choose another OUTPUT"
            )
        try:
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b")  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._read(question)

    @property
    def done(self) -> set[int]:
        """Rows that have been answered."""
        return set(self._places)

    def add(self, row: int, record: dict[str, Any]) -> None:
        """Keeps a row's answer."""
        self._write(row, {"row": row, "record": record})
        self.begun.pop(row, None)
        self._sync()

    def begin(self, row: int, record: dict[str, Any]) -> None:
        """Keeps the answers to a row's first turns."""
        self._write(None, {"row": row, "begun": record})
        self.begun[row] = record
        self._sync()

    def _sync(self) -> None:
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def finish(self) -> None:
        """Writes the output, rows in order, and removes the journal."""
        beside = self._output.with_name(f".{self._output.name}.tmp")
        try:
            with open(beside, "wb") as stream:
                for row in sorted(self._places):
                    place, length = self._places[row]
                    self._file.seek(place)
                    record = json.loads(self._file.read(length))["record"]
                    stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, self._output)
            self.path.unlink()
        except OSError as error:
            raise unwritable(self._output, error) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _read(self, question: str) -> None:
        self._file.seek(0)
        place, lines = 0, []
        for line in self._file:
            if not line.endswith(b"\n"):  # cut off when the run was killed
                break
            lines.append((place, line))
            place += len(line)
        self._file.truncate(place)
        if not lines:
            self._write(None, {"question": question})
            return
        if json.loads(lines[0][1]).get("question") != question:
            raise UserError(
                f"{self.path}: answers of a run with other prompts, another model or other settings; remove it to start "
                "over, or choose another OUTPUT"
            )
        for at, line in lines[1:]:
            content = json.loads(line)
            if "begun" in content:
                self.begun[content["row"]] = content["begun"]
            else:
                self._places[content["row"]] = at, len(line)
                self.begun.pop(content["row"], None)

    def _write(self, row: int | None, content: dict[str, Any]) -> None:
        line = json.dumps(content, ensure_ascii=False).encode() + b"\n"
        try:
            self._file.seek(0, os.SEEK_END)
            place = self._file.tell()
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error
        if row is not None:
            self._places[row] = place, len(line)
