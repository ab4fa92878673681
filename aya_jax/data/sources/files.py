"""Documents from files: JSONL, Parquet and text, read as streams and cut into shards by the list of files alone.

How shards are dealt, with F files in sorted order and n shards:

* F >= n: files stay whole, file i belongs to shard i % n.
* F < n: shard s reads file s % F and no other; the c shards of one file share its records one by one (record j of the
  file goes to the (j % c)-th of them).

So no shard opens a file that it has no part in, and what a shard holds depends on the sorted list of files, on the
shard's number and on the number of shards, never on sizes or on which machine asks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

from aya_jax.config import UserError
from aya_jax.data.sources import parquet, storage
from aya_jax.data.sources.record import BadRecord, Record, check_shard, keep_good, make_record

Format = Literal["jsonl", "parquet", "text", "lines"]

_BY_SUFFIX: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
_BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class Part:
    """The records of one file that a shard reads: those whose 0-based number is `index` modulo `count`."""

    file: storage.File
    index: int
    count: int

    def has(self, number: int) -> bool:
        """Whether the file's record of this number, from 0, belongs to the part."""
        return number % self.count == self.index


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Documents in files.

    Attributes:
      patterns: paths with `*`, `?`, `[...]`, `**`; every one must match. gs://, s3:// and others go through fsspec.
      text_field: the JSON field or Parquet column with the text; None leaves the text empty and keeps all fields. "text" and
        "lines" have no fields and ignore it.
      format: "jsonl" (one object per line), "parquet", "text" (a file is a document), "lines" (a line is a document),
        or None: by each file's suffix (.jsonl .ndjson .parquet .txt .md). All but Parquet may be .gz or .zst.
      on_bad_record: "stop" raises at the first bad record; "skip" leaves bad records and empty files out and logs, per
        file, how many. A file that is truncated or damaged as a whole stops either way.
    """

    patterns: tuple[str | os.PathLike[str], ...]
    text_field: str | None = "text"
    format: Format | None = None
    on_bad_record: Literal["stop", "skip"] = "stop"

    @property
    def description(self) -> str:
        """The patterns and how they are read."""
        return f"{' '.join(map(os.fspath, self.patterns))} ({self.format or 'by suffix'}, field {self.text_field!r})"

    def digest(self) -> str:
        """sha256 of how files are read and of each file's name, size and mark, in order.

        A local file's mark is the sha256 of its bytes; a remote one's is what the store gives (checksum, entity tag or
        time of change). Where the files lie does not matter.

        Raises:
          UserError: nothing matches a pattern, or a file cannot be read.
        """
        marks = [storage.fingerprint(file) for file in storage.find(self.patterns)]
        reading = (self.text_field, self.format, self.on_bad_record)
        return hashlib.sha256(json.dumps([reading, marks]).encode()).hexdigest()

    def records(self, shard: int, num_shards: int, skipped: Counter[str] | None = None) -> Iterator[Record]:
        """The shard's documents in the order of files and lines, holding one (Parquet: one batch of rows) at a time.

        Args:
          shard, num_shards: which part of the source; see the module's docstring for the rule.
          skipped: with on_bad_record="skip", gets the number of bad records added under each file's path.

        Raises:
          UserError: naming file, line and field; `BadRecord` where leaving the record out would help.
        """
        check_shard(shard, num_shards)
        for part in deal(storage.find(self.patterns), shard, num_shards):
            counted = skipped if skipped is not None else Counter()
            yield from keep_good(self._read(part), self.on_bad_record, part.file.path, counted)

    def _read(self, part: Part) -> Iterator[Record | BadRecord]:
        kind = self.format or format_of(part.file.path)
        if kind == "parquet":
            return parquet.read(part.file, part.has, self.text_field)
        if kind == "text":
            return _read_text(part)
        return _read_lines(part, _RecordOf(self.text_field) if kind == "jsonl" else None)


def deal(files: tuple[storage.File, ...], shard: int, num_shards: int) -> list[Part]:
    """What a shard reads, by the rule of the module's docstring."""
    if len(files) >= num_shards:
        return [Part(file, 0, 1) for file in files[shard::num_shards]]
    number = shard % len(files)
    return [Part(files[number], shard // len(files), len(range(number, num_shards, len(files))))]


def format_of(path: str) -> Format:
    """A file's format by its suffix, a compression's suffix left aside.

    Raises:
      UserError: the suffix says nothing.
    """
    stem = path
    for suffix in storage.COMPRESSIONS:
        stem = stem.removesuffix(suffix)
    kind = next((kind for suffix, kind in _BY_SUFFIX.items() if stem.endswith(suffix)), None)
    if kind is None:
        known = ", ".join(_BY_SUFFIX)
        raise UserError(
            f"{path}: the name does not say what this is ({known}); set format: jsonl, parquet, text or lines"
        )
    return kind


class _RecordOf(NamedTuple):
    """That lines are JSON objects, and which field has their text."""

    text_field: str | None


def _read_lines(part: Part, objects: _RecordOf | None) -> Iterator[Record | BadRecord]:
    """Lines as JSON objects, or as documents; blank ones are none. Lines end at "\\n" only."""
    number, offset, line_number = 0, 0, 0
    with storage.opened(part.file) as stream:
        for line_number, line in enumerate(stream, start=1):
            start, offset = offset, offset + len(line)
            content = line.removeprefix(_BOM) if line_number == 1 else line
            if content.isspace() or not content:
                continue
            if part.has(number):
                yield _line_record(part.file, line_number, content, start, objects)
            number += 1
    if number == 0 and part.index == 0:
        yield BadRecord(part.file.path, "the file has blank lines only" if line_number else "the file is empty")


def _line_record(
    file: storage.File, line_number: int, line: bytes, offset: int, objects: _RecordOf | None
) -> Record | BadRecord:
    location = f"{file.path}:{line_number}"
    try:
        text = line.removesuffix(b"\n").decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} of the line, byte {offset + error.start} of the uncompressed file"
        return BadRecord(location, f"invalid UTF-8 (0x{line[error.start]:02x}) at {where}")
    id_ = f"{file.name}:{line_number}"
    if objects is None:
        return Record(id_, text, location, {})
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return BadRecord(location, f"broken JSON: {error.msg} (character {error.pos + 1} of the line)")
    except ValueError as error:  # a number of thousands of digits
        return BadRecord(location, f"broken JSON: {error}")
    except RecursionError:
        return BadRecord(location, "broken JSON: nested too deeply")
    if not isinstance(value, dict):
        wanted = "" if objects.text_field is None else f" with a field {objects.text_field!r}"
        return BadRecord(location, f"a JSON {_json_name(value)}, not an object{wanted}")
    return make_record(id_, location, value, objects.text_field)


def _json_name(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]


def _read_text(part: Part) -> Iterator[Record | BadRecord]:
    """The whole file as one document."""
    if not part.has(0):
        return
    with storage.opened(part.file) as stream:
        content = stream.read().removeprefix(_BOM)
    if not content:
        yield BadRecord(part.file.path, "the file is empty")
        return
    location = f"{part.file.path}:1"
    try:
        yield Record(f"{part.file.name}:1", content.decode("utf-8"), location, {})
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"invalid UTF-8 (0x{content[error.start]:02x}) at byte {error.start} of the uncompressed file"
        yield BadRecord(f"{part.file.path}:{line}", problem)
