"""Conversations from records of the usual layouts, as documents: JSON of their messages, which `prepare` renders.

Every record becomes `{"messages": [{"role", "content"}, ...]}` in one canonical form, so that a document is the same, and
is held out or not, whatever layout it came in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from aya_jax.data.sources.record import BadRecord, Record, Source, keep_good, lone_surrogate, missing_field

Turns = tuple[tuple[str, str], ...]
Message = dict[str, str]

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
}
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
_HH_TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}


@dataclasses.dataclass(frozen=True)
class ConversationSource:
    """A source whose records are conversations.

    Attributes:
      records_of: reads the records with all of their fields (`text_field` None).
      turns: role and field of each turn, in order, where the layout is none of the usual ones; fields of one role that follow
        each other are one turn of several paragraphs.
      where: fields and the values that they must have; other records are left out.
      on_bad_record: "stop" at the first record that is no conversation to learn from, or "skip" and count them.
    """

    records_of: Source
    turns: Turns = ()
    where: tuple[tuple[str, str], ...] = ()
    on_bad_record: Literal["stop", "skip"] = "stop"

    @property
    def description(self) -> str:
        """That of the records."""
        return f"conversations of {self.records_of.description}"

    def digest(self) -> str:
        """sha256 of the records' and of how they are read."""
        return hashlib.sha256(
            json.dumps([self.records_of.digest(), "conversations", self.turns, self.where, self.on_bad_record]).encode()
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
        for field, value in self.where:
            if field not in record.fields:
                return BadRecord(record.location, missing_field(field, tuple(record.fields), "where"))
            if record.fields[field] not in (value, value.encode()):
                return None
        messages = conversation(record.fields, self.turns)
        problem = messages if isinstance(messages, str) else find_problem(messages)
        if problem is not None:
            return BadRecord(record.location, problem)
        text = json.dumps({"messages": messages}, ensure_ascii=False, separators=(",", ":"))
        return Record(record.id, text, record.location, {})


def conversation(fields: Mapping[str, Any], turns: Turns = ()) -> list[Message] | str:
    """The messages of a record, or what is wrong with it.

    Layouts: `messages` of role and content; `conversations` of from and value (ShareGPT); `chosen` as one text of
    "\\n\\nHuman:" and "\\n\\nAssistant:" turns (hh-rlhf); columns of a question and its answer (`_PAIRS`).
    """
    if turns:
        return _from_columns(fields, turns)
    if "messages" in fields:
        return _from_list(fields["messages"], "messages", "role", "content")
    if "conversations" in fields:
        return _from_list(fields["conversations"], "conversations", "from", "value")
    for pair in _PAIRS:
        if all(name in fields for _, name in pair if name not in _OPTIONAL):
            return _from_columns(fields, tuple(turn for turn in pair if turn[1] in fields))
    chosen = fields.get("chosen")
    if isinstance(chosen, str) and chosen.startswith("\n\nHuman:"):
        return from_hh(chosen)
    there = ", ".join(list(fields)[:12]) or "none"
    return (
        f"no conversation (fields: {there}); known are messages, conversations, inputs with targets, instruction with response "
        "or output, question with answer, prompt with response or completion; name others in turns: (('user', FIELD), "
        "('assistant', FIELD))"
    )


def _from_list(value: Any, field: str, role_key: str, text_key: str) -> list[Message] | str:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return f"field {field!r} is no list of turns"
    messages = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping) or not {role_key, text_key} <= turn.keys():
            return f"{field}[{number}] has no {role_key!r} and {text_key!r}"
        role = _ROLES.get(str(turn[role_key]).lower())
        if role is None:
            return f"{field}[{number}].{role_key} is {turn[role_key]!r}; known are {', '.join(_ROLES)}"
        if not isinstance(turn[text_key], str):
            return f"{field}[{number}].{text_key} is {type(turn[text_key]).__name__}, not a string"
        messages.append({"role": role, "content": turn[text_key]})
    return messages


def _from_columns(fields: Mapping[str, Any], turns: Turns) -> list[Message] | str:
    messages: list[Message] = []
    for role, name in turns:
        text = fields.get(name)
        if isinstance(text, bytes):  # how TFDS gives strings
            text = text.decode("utf-8", "surrogateescape")
        if not isinstance(text, str):
            return f"field {name!r} is {'missing' if name not in fields else type(text).__name__}, not a string"
        if name in _OPTIONAL and not text.strip():
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        else:
            messages.append({"role": role, "content": text})
    return messages


def from_hh(text: str) -> list[Message]:
    """The turns of hh-rlhf's one text for a conversation."""
    messages: list[Message] = []
    at = 0
    while at < len(text):
        marker = next(marker for marker in _HH_TURNS if text.startswith(marker, at))
        begin = at + len(marker)
        following = [place for other in _HH_TURNS if (place := text.find(other, begin)) >= 0]
        at = min(following, default=len(text))
        messages.append({"role": _HH_TURNS[marker], "content": text[begin:at].strip()})
    return messages


def find_problem(messages: Sequence[Message]) -> str | None:
    """Why a conversation cannot be learnt from; None where it can.

    It may open with a system message; then users and assistants take turns, and an assistant has the last word.
    """
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            return f"turn {number + 1} is the {message['role']}'s, where the {expected}'s was expected"
    if not turns or turns[-1]["role"] != "assistant":
        return "it does not end with a turn of the assistant, so there is nothing to learn from"
    for number, message in enumerate(messages):
        if not message["content"].strip():
            return f"message {number + 1}, the {message['role']}'s, is empty"
        surrogate = lone_surrogate(message["content"])
        if surrogate is not None:
            return f"message {number + 1} has half a surrogate pair at character {surrogate}, which is no Unicode text"
    return None
