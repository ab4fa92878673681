"""Conversations from records of the usual layouts, as documents: JSON of their messages, which `prepare` renders.

Every record becomes `{"messages": [{"role", "content"}, ...]}` in one canonical form, or a pair as `preferences.py` has it,
so that a document is the same, and is held out or not, whatever layout it came in.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from aya_jax.data.sources.messages import Message, Turns, find_problem, from_columns, from_hh, from_list, is_hh
from aya_jax.data.sources.preferences import preference, scored
from aya_jax.data.sources.record import BadRecord, Record, Source, keep_good, missing_field

# Columns of question and answer, the first that a record has: aya_dataset, aya_collection and aya_evaluation_suite;
# Dolly; Alpaca; GSM8K; and two common names.
_PAIRS: tuple[Turns, ...] = (
    (("user", "inputs"), ("assistant", "targets")),
    (("user", "instruction"), ("user", "context"), ("assistant", "response")),
    (("user", "instruction"), ("user", "input"), ("assistant", "output")),
    (("user", "question"), ("assistant", "answer")),
    (("user", "prompt"), ("assistant", "response")),
    (("user", "prompt"), ("assistant", "completion")),
)
# Beside an instruction these may be empty.
_OPTIONAL = ("context", "input")


@dataclasses.dataclass(frozen=True)
class ConversationSource:
    """A source whose records are conversations, or pairs of them.

    Attributes:
      records_of: reads the records with all of their fields (`text_field` None).
      form: "chat"; "preference": a prompt with a chosen and a rejected answer; "scored": a prompt with an answer and its value.
      turns: role and field of each turn, in order, where the layout is none of the usual ones; fields of one role that follow
        each other are one turn of several paragraphs.
      where: fields and the values that they must have, or hold where they are lists; other records are left out.
      among: a field and the values that it may have; a record with another is bad.
      on_bad_record: "stop" at the first record that is no conversation to learn from, or "skip" and count them.
    """

    records_of: Source
    form: Literal["chat", "preference", "scored"] = "chat"
    turns: Turns = ()
    where: tuple[tuple[str, str], ...] = ()
    among: tuple[str, tuple[str, ...]] | None = None
    on_bad_record: Literal["stop", "skip"] = "stop"

    @property
    def description(self) -> str:
        """That of the records."""
        return f"{_SAID[self.form]} of {self.records_of.description}"

    def digest(self) -> str:
        """sha256 of the records' and of how they are read."""
        return hashlib.sha256(
            json.dumps(
                [self.records_of.digest(), _SAID[self.form], self.turns, self.where, self.on_bad_record]
                + ([self.among] if self.among else [])
            ).encode()
        ).hexdigest()

    def records(self, shard: int, num_shards: int) -> Iterator[Record]:
        """The shard's conversations, in the order of the records.

        Raises:
          UserError: as the records' source; `BadRecord` where a record is no conversation and those are not skipped.
        """
        found = map(self._found, self.records_of.records(shard, num_shards))
        yield from keep_good(filter(None, found), self.on_bad_record, self.description, Counter())

    def _found(self, record: Record) -> Record | BadRecord | None:
        """A record's conversation, or what is wrong with it; None where it is not wanted."""
        field, known = self.among or ("", ())
        if field in record.fields and not any(holds(record.fields[field], value) for value in known):
            value = record.fields[field]
            return BadRecord(record.location, f"{field} is {value!r}, and known are {', '.join(known)}")
        for field, value in self.where:
            if field not in record.fields:
                return BadRecord(record.location, missing_field(field, tuple(record.fields), "where"))
            if not holds(record.fields[field], value):
                return None
        content = _CONTENT[self.form](record.fields, self.turns)
        if isinstance(content, str):
            return BadRecord(record.location, content)
        return Record(record.id, json.dumps(content, ensure_ascii=False, separators=(",", ":")), record.location, {})


def holds(found: Any, value: str) -> bool:
    """Whether a field has a value, or is a list with it; a list may be written out as text, as aya_redteaming has it."""
    if isinstance(found, bytes):  # how TFDS gives strings
        found = found.decode("utf-8", "surrogateescape")
    if isinstance(found, str) and found.startswith("[") and found.endswith("]"):
        try:
            found = ast.literal_eval(found)
        except (ValueError, SyntaxError):
            return found == value
    return value in found if isinstance(found, list | tuple) else found == value


def conversation(fields: Mapping[str, Any], turns: Turns = ()) -> list[Message] | str:
    """The messages of a record, or what is wrong with it.

    Layouts: `messages` of role and content; `conversations` of from and value (ShareGPT); `chosen` as one text of
    "\\n\\nHuman:" and "\\n\\nAssistant:" turns (hh-rlhf); columns of a question and its answer (`_PAIRS`).
    """
    if turns:
        return from_columns(fields, turns, _OPTIONAL)
    if "messages" in fields:
        return from_list(fields["messages"], "messages")
    if "conversations" in fields:
        return from_list(fields["conversations"], "conversations", "from", "value")
    for pair in _PAIRS:
        if all(name in fields for _, name in pair if name not in _OPTIONAL):
            return from_columns(fields, tuple(turn for turn in pair if turn[1] in fields), _OPTIONAL)
    if is_hh(fields.get("chosen")):
        return from_hh(fields["chosen"])
    there = ", ".join(list(fields)[:12]) or "none"
    return (
        f"no conversation (fields: {there}); known are messages, conversations, inputs with targets, instruction with response "
        "or output, question with answer, prompt with response or completion; name others in turns: (('user', FIELD), "
        "('assistant', FIELD))"
    )


def _chat(fields: Mapping[str, Any], turns: Turns) -> dict[str, Any] | str:
    """The document of a conversation, or what is wrong with it."""
    messages = conversation(fields, turns)
    problem = messages if isinstance(messages, str) else find_problem(messages)
    return problem or {"messages": messages}


_CONTENT = {"chat": _chat, "preference": preference, "scored": scored}
_SAID = {"chat": "conversations", "preference": "preferences", "scored": "scored answers"}
