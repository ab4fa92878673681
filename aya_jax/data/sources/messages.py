"""Messages of a conversation out of a record's fields, and what keeps a conversation from being learnt from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from aya_jax.data.sources.record import lone_surrogate

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
_HH_TURNS = {"\n\nHuman:": "user", "\n\nAssistant:": "assistant"}


def from_list(value: Any, field: str, role_key: str = "role", text_key: str = "content") -> list[Message] | str:
    """The messages of a list of turns, or what is wrong with it."""
    if isinstance(value, Mapping) and {role_key, text_key} <= value.keys():
        # How `datasets` gives a sequence of structs: a list of each field.
        value = [
            dict(zip((role_key, text_key), turn, strict=False))
            for turn in zip(value[role_key], value[text_key], strict=False)
        ]
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


def from_columns(fields: Mapping[str, Any], turns: Turns, optional: Sequence[str] = ()) -> list[Message] | str:
    """A message of each column, or what is wrong with one; columns of one role that follow each other are one message.

    Args:
      fields: the record.
      turns: role and column of each; of "one|other" the record's own content draws one.
      optional: columns that are left out where they are empty.
    """
    messages: list[Message] = []
    for role, name in turns:
        name = _drawn(fields, name)
        text = fields.get(name)
        if isinstance(text, bytes):  # how TFDS gives strings
            text = text.decode("utf-8", "surrogateescape")
        if not isinstance(text, str):
            return f"field {name!r} is {'missing' if name not in fields else type(text).__name__}, not a string"
        if name in optional and not text.strip():
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        else:
            messages.append({"role": role, "content": text})
    return messages


def _drawn(fields: Mapping[str, Any], name: str) -> str:
    """One of the columns of "one|other", each as likely, the same for the same texts."""
    names = name.split("|")
    if len(names) == 1:
        return name
    content = json.dumps([str(fields.get(each)) for each in names])
    return names[int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "little") % len(names)]


def is_hh(value: Any) -> bool:
    """Whether a field is hh-rlhf's one text for a conversation."""
    return isinstance(value, str) and value.startswith("\n\nHuman:")


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
