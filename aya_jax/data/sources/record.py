"""The record that every source yields, and what makes one bad."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol

from aya_jax.config import UserError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One document.

    Attributes:
      id: stable name of the document, "<file name>:<line>", the same wherever the files lie.
      text: the document; it may be empty, and has no lone surrogates.
      location: where the user finds it, "<path>:<line>" (lines, rows and documents count from 1).
      fields: the record's other fields.
    """

    id: str
    text: str
    location: str
    fields: Mapping[str, Any]


class BadRecord(UserError):
    """A record, or a whole file, that gives no text. The message begins with its location."""

    def __init__(self, location: str, problem: str):
        super().__init__(f"{location}: {problem}")
        self.location = location


class Source(Protocol):
    """What `prepare` asks of a source of documents."""

    @property
    def description(self) -> str:
        """One line for manifests and messages."""

    def digest(self) -> str:
        """sha256 (hex) that changes when the records would."""

    def records(self, shard: int, num_shards: int) -> Iterator[Record]:
        """The records of one shard, in a fixed order; the shards partition the source for any `num_shards`.

        Raises:
          UserError: the source cannot be read, or a record has no text.
        """


def keep_good(
    found: Iterable[Record | BadRecord], on_bad_record: Literal["stop", "skip"], place: str, skipped: Counter[str]
) -> Iterator[Record]:
    """The records among what was found; bad ones are left out and counted under `place`, with a warning at the end.

    Raises:
      BadRecord: the first of them, where those are not skipped.
    """
    first: BadRecord | None = None
    number_bad = 0
    for record in found:
        if isinstance(record, Record):
            yield record
            continue
        if on_bad_record == "stop":
            raise record
        first = first or record
        number_bad += 1
    if first is not None:
        skipped[place] += number_bad
        logger.warning("%s: bad records left out: %d; the first: %s", place, number_bad, first)


def check_shard(shard: int, num_shards: int) -> None:
    """Raises ValueError unless 0 <= shard < num_shards."""
    if not 0 <= shard < num_shards:
        raise ValueError(f"shard {shard} of {num_shards}: a shard's number is at least 0 and below their count")


def make_record(id_: str, location: str, fields: Mapping[str, Any], text_field: str | None) -> Record | BadRecord:
    """Takes the text out of a record's fields, or says what is wrong with it; without a text field none is taken."""
    if text_field is None:
        return Record(id_, "", location, fields)
    if text_field not in fields:
        return BadRecord(location, missing_field(text_field, tuple(fields)))
    text = fields[text_field]
    if isinstance(text, bytes):  # how TFDS gives strings
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            return BadRecord(location, f"field {text_field!r} is not valid UTF-8 at byte {error.start}")
    if not isinstance(text, str):
        kind = "null" if text is None else type(text).__name__
        return BadRecord(location, f"field {text_field!r} is {kind}, not a string")
    surrogate = lone_surrogate(text)
    if surrogate is not None:
        problem = f"field {text_field!r} has half a surrogate pair at character {surrogate}, which is no Unicode text"
        return BadRecord(location, problem)
    return Record(id_, text, location, {key: value for key, value in fields.items() if key != text_field})


def missing_field(name: str, present: tuple[str, ...], setting: str = "text_field") -> str:
    """Says that the field of a setting is missing, which ones there are, and which was perhaps meant."""
    near = difflib.get_close_matches(name, present, n=1)
    meant = f"; did you mean {setting}={near[0]!r}?" if near else f"; name the one that is meant in {setting}"
    shown = ", ".join(present[:12]) + (", ..." if len(present) > 12 else "")
    return f"no field {name!r} (there are: {shown or 'none'}){meant}"


def lone_surrogate(text: str) -> int | None:
    """Index of the first half of a surrogate pair without the other, or None.

    JSON writes them as `\\ud83d`; Python keeps them, and no tokenizer or file takes them.
    """
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None
