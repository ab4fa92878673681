"""Prompts from a JSONL file: every row is checked before any is answered."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Prompt, Request

_SHOWN = 20
_ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of an input file.

    Attributes:
      fields: as they are in the file.
      request: what it asks first; its id is the row's number, from 0.
      later: what the user says next, turn by turn, once the turn before has its answer.
    """

    fields: Mapping[str, Any]
    request: Request
    later: tuple[str, ...] = ()

    def following(self, answers: Sequence[str]) -> Request:
        """What it asks next, after the answers that there are to its first turns.

        Each turn draws by a seed of its own.
        """
        if not answers:
            return self.request
        messages = list(self.request.prompt)
        for answer, turn in zip(answers, self.later, strict=False):
            messages += [Message("assistant", answer), Message("user", turn)]
        seed = row_seed(self.request.sampling.seed, str(len(answers)))
        sampling = dataclasses.replace(self.request.sampling, seed=seed)
        return Request(id=self.request.id, prompt=tuple(messages), sampling=sampling)


class _Wrong(Exception):
    """What is wrong with a row."""


def read_rows(file: str | Path, sampling: SamplingConfig, *, chat: bool) -> list[Row]:
    """The rows of a .jsonl or .jsonl.gz file.

    Args:
      file: of rows with `prompt`, `messages` or `turns` (what a user says, turn by turn; each is answered before the next).
      sampling: what a row's own `sampling` changes.
      chat: a `prompt` is what a user says; `turns` always are, and ask for it.

    A row that names no seed has one that follows from `sampling.seed` and its number.

    Raises:
      UserError: the file cannot be read, or rows are wrong; up to twenty are named, with their lines and fields.
    """
    rows, wrong = [], []
    for line, text in _lines(Path(file)):
        try:
            rows.append(_row(text, str(len(rows)), sampling, chat))
        except _Wrong as error:
            wrong.append(f"{file}:{line}: {error}")
    if wrong:
        more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise UserError("\n".join([*wrong[:_SHOWN], *more, "Nothing was generated."]))
    if not rows:
        raise UserError(f"{file}: no rows")
    return rows


def digest(file: str | Path) -> str:
    """SHA-256 of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8") as stream
        ):
            for number, text in enumerate(stream, 1):
                if text.strip():
                    yield number, text
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _row(text: str, number: str, sampling: SamplingConfig, chat: bool) -> Row:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise _Wrong(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _Wrong("expected an object with `prompt`, `messages` or `turns`")
    chosen = _sampling(fields.get("sampling", {}), dataclasses.replace(sampling, seed=row_seed(sampling.seed, number)))
    if "turns" in fields and not {"prompt", "messages"} & fields.keys():
        first, *later = _turns(fields["turns"], chat)
        if later and chosen.n > 1:
            raise _Wrong(
                f"sampling.n = {chosen.n}: one sample of a conversation of {1 + len(later)} turns is gone on with"
            )
        request = Request(id=number, prompt=(Message("user", first),), sampling=chosen)
        return Row(fields, request, tuple(later))
    return Row(fields, Request(id=number, prompt=_prompt(fields, chat), sampling=chosen))


def _turns(turns: Any, chat: bool) -> list[str]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn for turn in turns):
        raise _Wrong(f"turns = {turns!r:.40}: expected a list of texts")
    if not chat:
        raise _Wrong("turns: they are a conversation; add --chat")
    return turns


def row_seed(seed: int, number: str) -> int:
    """A row's own seed: with one for all, draws of different rows would be alike."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "little") >> 1


def _prompt(fields: Mapping[str, Any], chat: bool) -> Prompt:
    if ("prompt" in fields) == ("messages" in fields):
        raise _Wrong("expected either `prompt`, `messages` or `turns`")
    if "prompt" in fields:
        prompt = fields["prompt"]
        if not isinstance(prompt, str) or not prompt:
            raise _Wrong(f"prompt = {prompt!r:.40}: expected a text")
        return (Message("user", prompt),) if chat else prompt
    messages = fields["messages"]
    if not isinstance(messages, list) or not messages:
        raise _Wrong("messages: expected a list of objects with role and content")
    for place, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise _Wrong(f"messages[{place}]: expected an object with a role and a text as content")
        if message.get("role") not in _ROLES:
            raise _Wrong(f"messages[{place}].role = {message.get('role')!r}: expected one of {', '.join(_ROLES)}")
    return tuple(Message(message["role"], message["content"]) for message in messages)


def _sampling(own: Any, usual: SamplingConfig) -> SamplingConfig:
    if not isinstance(own, dict):
        raise _Wrong("sampling: expected an object")
    kinds = {field.name: type(getattr(usual, field.name)) for field in dataclasses.fields(usual)}
    values = {}
    for name, value in own.items():
        if name not in kinds:
            raise _Wrong(f"sampling.{name}: no such field{did_you_mean(near_names(name, kinds))}")
        if isinstance(value, list):
            value = tuple(value)
        if kinds[name] is float and type(value) is int:
            value = float(value)
        if kinds[name] in (int, float, bool, tuple) and type(value) is not kinds[name]:
            raise _Wrong(f"sampling.{name} = {value!r}: expected {kinds[name].__name__}")
        values[name] = value
    chosen = dataclasses.replace(usual, **values)
    for problem in chosen.validate():
        raise _Wrong(f"sampling.{problem.field} = {getattr(chosen, problem.field)!r}: expected {problem.expected}")
    return chosen
