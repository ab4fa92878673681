"""Answers that were paid for, on disk: one JSON file each, named by what was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_jax.config.files import unwritable, write_atomic

FORMAT_VERSION = 1


@dataclass(frozen=True)
class CacheSize:
    """How much there is.

    Attributes:
      answers: files.
      bytes: that they hold.
    """

    answers: int
    bytes: int


class RemoteCache:
    """Answers by request, in `directory/<two hex digits>/<SHA-256>.json`.

    A key covers the address and every field of the body, so whatever could change the answer makes another key; the API
    key is in neither. Files are written beside and renamed: any number of processes may read and write the same cache,
    and one that is killed leaves whole files only. A file that is damaged, or that is not the answer to the question, is
    as good as absent.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        """Makes the directory.

        Raises:
          UserError: it cannot be made.
        """
        self.directory = Path(directory).expanduser()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.directory, error) from error

    def get(self, url: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a request, or None."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            entry = json.loads(self.path(url, body).read_bytes())
            asked_the_same = request_key(entry["url"], entry["body"]) == request_key(url, body)
            if asked_the_same and entry["version"] == FORMAT_VERSION and entry["sha256"] == _digest(entry["answer"]):
                return entry["answer"]
        return None

    def put(self, url: str, body: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keeps the answer to a request.

        Raises:
          UserError: the file cannot be written.
        """
        entry = {"version": FORMAT_VERSION, "url": url, "body": body, "sha256": _digest(answer), "answer": answer}
        write_atomic(self.path(url, body), json.dumps(entry, indent=1) + "\n")

    def size(self) -> CacheSize:
        """Counts the files; takes a while for a million."""
        sizes = [file.stat().st_size for file in self.directory.glob("??/*.json") if not file.name.startswith(".")]
        return CacheSize(len(sizes), sum(sizes))

    def path(self, url: str, body: dict[str, Any]) -> Path:
        """Where the answer to a request is, if it is."""
        key = request_key(url, body)
        return self.directory / key[:2] / f"{key}.json"


def request_key(url: str, body: dict[str, Any]) -> str:
    """SHA-256, in hex, of an address and a body, whatever the order of its fields."""
    return _digest({"url": url, "body": body})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()
