"""JSON lines of benchmarks, read so that whatever is wrong is named by file, line and field."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from aya_jax.config import UserError


@dataclass(frozen=True)
class Row:
    """One line of a file.

    Attributes:
      path: of the file.
      line: its number, from 1.
      fields: what it says.
    """

    path: str
    line: int
    fields: Mapping[str, Any]

    def problem(self, field: str, what: str) -> UserError:
        """The error to raise for a field of this row."""
        return UserError(f"{self.path}:{self.line}: field {field!r} {what}")

    def text(self, *names: str) -> str:
        """The first of the named fields that the row has: a text that is not empty.

        Raises:
          UserError: the row has none of them, or the first is no text or holds only white space.
        """
        name = self._name(*names)
        value = self.fields[name]
        if not isinstance(value, str) or not value.strip():
            raise self.problem(name, f"is {value!r:.60}; a text that is not empty is needed")
        return value

    def answer(self, name: str) -> str:
        """A field that holds what a model said: any text, even none.

        Raises:
          UserError: it is missing or no text.
        """
        value = self.fields[self._name(name)]
        if not isinstance(value, str):
            raise self.problem(name, f"is {value!r:.60}; a text is needed")
        return value

    def id(self, *names: str) -> str:
        """The first of the named fields that the row has, as a text; a whole number will do.

        Raises:
          UserError: the row has none of them, or the first is neither.
        """
        name = self._name(*names)
        value = self.fields[name]
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.problem(name, f"is {value!r:.60}; a text or a whole number is needed")
        return str(value)

    def _name(self, *names: str) -> str:
        for name in names:
            if self.fields.get(name) is not None:
                return name
        others = f" (nor {', '.join(map(repr, names[1:]))})" if names[1:] else ""
        raise self.problem(names[0], f"is missing{others}; the row has {', '.join(sorted(self.fields)) or 'no fields'}")


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    r"""Yields the rows of a .jsonl or .jsonl.gz file; empty lines are passed over. Lines end at "\n" only.

    Raises:
      UserError: the file cannot be read, or a line is no JSON object.
    """
    name = os.fspath(path)
    try:
        with _open(name) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield Row(name, number, _object(name, number, line))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error


def _open(name: str) -> TextIO:
    # newline="\n": texts may hold U+2028 or "\r", which do not end a line of JSON.
    if name.endswith(".gz"):
        return gzip.open(name, "rt", encoding="utf-8", newline="\n")
    return open(name, encoding="utf-8", newline="\n")


def _object(name: str, number: int, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{name}:{number}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{name}:{number}: {type(value).__name__}, and not a JSON object")
    return value
