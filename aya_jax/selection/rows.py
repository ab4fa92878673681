"""The rows that are chosen from, in memory: what each says, and where it is from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.data.sources import BadRecord, FileSource, Record
from aya_jax.data.sources.messages import from_list
from aya_jax.data.sources.record import missing_field
from aya_jax.selection.config import RowsConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
      id: by which it is named in what is written.
      messages: what is answered: the turns of a conversation, or the fields but the last as one.
      answer: what the last field, or turn, says.
      language: "und" where the row does not say.
      source: what it is counted by: a field, or the file's name.
      fields: all of it, as it was.
      number: its place among the rows, from 0.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    language: str
    source: str
    fields: Mapping[str, Any]
    number: int = 0

    @property
    def prompt(self) -> str:
        """What is answered, a line for each turn."""
        return "\n".join(message.content for message in self.messages)

    @property
    def text(self) -> str:
        """All that it says."""
        return "\n".join(filter(None, (self.prompt, self.answer)))

    @property
    def line(self) -> str:
        """As a line of JSON, the fields as they were."""
        return json.dumps(self.fields, ensure_ascii=False)


def read(config: RowsConfig) -> tuple[list[Row], str]:
    """The rows in the order of files and lines, and a digest of them and of what is taken from them.

    Raises:
      UserError: naming file, line and field: a file cannot be read, a field is missing or no text, or two rows have one id.
    """
    source = FileSource(config.files, text_field=None)
    rows, seen = [], {}
    for record in source.records(0, 1):
        row = _row(record, config, len(rows))
        if row.id in seen:
            raise UserError(
                f"{record.location}: the id {row.id!r} is that of {seen[row.id]} too; name another RowsConfig.id_field, or none"
            )
        seen[row.id] = record.location
        rows.append(row)
    return rows, json.dumps([source.digest(), config.fields])


def _row(record: Record, config: RowsConfig, number: int) -> Row:
    fields = record.fields
    said = [turn for name in config.fields for turn in _turns(record, name)]
    if not "".join(turn.content for turn in said).strip():
        raise BadRecord(record.location, f"the fields {', '.join(config.fields)} say nothing")
    *before, last = said
    return Row(
        id=record.id if config.id_field is None else _id(record, config.id_field),
        messages=_joined(before),
        answer=last.content,
        language=_label(fields, config.language_field, "und"),
        source=_label(fields, config.source_field, PurePath(record.location.rpartition(":")[0]).name),
        fields=fields,
        number=number,
    )


def _joined(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Turns of one role that follow each other, such as the texts of several fields, as one; empty ones are none."""
    by_role = itertools.groupby((turn for turn in turns if turn.content), key=lambda turn: turn.role)
    return tuple(Message(role, "\n".join(turn.content for turn in some)) for role, some in by_role)


def _turns(record: Record, name: str) -> Iterator[Message]:
    """What a field says: a text, or the turns of a conversation."""
    value = record.fields.get(name)
    if isinstance(value, str):
        yield Message("user", value)
    elif isinstance(value, list) and value:
        turns = from_list(value, name)
        if isinstance(turns, str):
            raise BadRecord(record.location, turns)
        yield from (Message(**turn) for turn in turns)
    elif name not in record.fields:
        raise BadRecord(record.location, missing_field(name, tuple(record.fields), "RowsConfig.fields"))
    else:
        raise BadRecord(record.location, f"field {name!r} is {value!r:.60}; a text or a list of turns is needed")


def _id(record: Record, name: str) -> str:
    value = record.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRecord(
            record.location, f"field {name!r} is {value!r:.60}; RowsConfig.id_field needs a text or a whole number"
        )
    return str(value)


def _label(fields: Mapping[str, Any], name: str | None, otherwise: str) -> str:
    value = None if name is None else fields.get(name)
    return otherwise if value in (None, "") else str(value)
