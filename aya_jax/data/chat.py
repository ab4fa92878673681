"""Conversations to token ids, by the chat template that a model was tuned with.

Rendering and ids are those of transformers' `apply_chat_template`, with one difference: text of a message that spells a
control token (`<|END_OF_TURN_TOKEN|>`) stays text. In transformers it becomes the token, and whoever writes a message can
end it and speak for the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from aya_jax.config import UserError
from aya_jax.data import vocabulary
from aya_jax.data.vocabulary import Vocabulary, looks_like_control

_TOKENIZER, _TEMPLATE = "tokenizer.json", "chat_template.jinja"
_NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
      role: "system", "user" or "assistant".
      content: its text.
    """

    role: str
    content: str


class ChatTokenizer:
    """A vocabulary with what its directory says of texts, conversations and their ends.

    Attributes:
      vocabulary: of its ids.
      directory: where its files are; None for bytes.
    """

    def __init__(self, known: Vocabulary, directory: Path | None):
        """Reads the small files beside a vocabulary; `open` is the way in."""
        self.vocabulary = known
        self.directory = directory
        self._raw = None
        if directory is not None and (directory / _TOKENIZER).is_file():
            self._raw = Tokenizer.from_file(str(directory / _TOKENIZER))
            self._raw.no_padding()
            self._raw.no_truncation()
        self._settings = self._read("tokenizer_config.json")
        self._control = re.compile(
            "|".join(map(re.escape, sorted(self._control_tokens(), key=len, reverse=True))) or "(?!)"
        )

    @classmethod
    def open(cls, spec: str) -> ChatTokenizer:
        """Opens what `vocabulary.load` takes: "bytes", a file, or a directory as Hugging Face lays it out.

        Raises:
          UserError: as `vocabulary.load`, or a file beside it is not JSON.
        """
        path = Path(spec)
        directory = None if spec == "bytes" else path if path.is_dir() else path.parent
        return cls(vocabulary.load(spec), directory)

    @functools.cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text: of the vocabulary, generation_config.json and config.json."""
        found = {self.vocabulary.eos_id}
        for file in ("generation_config.json", "config.json"):
            value = self._read(file).get("eos_token_id")
            found |= set(value) if isinstance(value, list) else {value}
        named = self._special_tokens().get("eos_token")
        if self._raw is not None and named is not None:
            found.add(self._raw.token_to_id(named))
        return frozenset(int(i) for i in found if i is not None and 0 <= int(i) < self.vocabulary.size)

    @functools.cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an output: those that end a text, and the one that ends a turn."""
        if self.has_template:
            with contextlib.suppress(UserError):  # a template that refuses the shortest conversation
                return self.end_ids | ({self.turn_end} - {None})
        return self.end_ids

    # Text ------------------------------------------------------------------------------------------------------------

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text with what the tokenizer puts around it (BOS, most often); what spells a control token stays text."""
        before, after = self._around
        return [*before, *self.vocabulary.encode_batch([text])[0], *after]

    def encode_trusted(self, text: str, *, around: bool = True) -> list[int]:
        """Ids of a text in which what spells a control token is that token, as in transformers.

        For texts that nobody else wrote: a conversation that was rendered here, a benchmark's prompt.

        Args:
          text: the text.
          around: with what the tokenizer puts around a text, as `encode_text`.
        """
        if self._raw is None:
            before, after = self._around if around else ((), ())
            return [*before, *self.vocabulary.encode_batch([text])[0], *after]
        return self._raw.encode(text, add_special_tokens=around).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without special tokens."""
        return self.vocabulary.decode(ids)

    def token_text(self, token: int) -> str:
        """One token for people: its text, or the name of a special token."""
        if token in self.vocabulary.special_ids and self._raw is not None:
            return self._raw.id_to_token(token) or ""
        return self.vocabulary.decode([token])

    def stream(self) -> TextStream:
        """For the text of ids that come one by one."""
        return TextStream(self.vocabulary)

    @functools.cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer puts before and after a text."""
        if self._raw is None:
            bos = self.vocabulary.bos_id
            return ([] if bos is None else [bos]), []
        plain = self._raw.encode("a", add_special_tokens=False).ids
        whole = self._raw.encode("a", add_special_tokens=True).ids
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        return [], []

    # Conversations ---------------------------------------------------------------------------------------------------

    @property
    def has_template(self) -> bool:
        """Whether it can render conversations."""
        return self._template_source is not None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The text of a conversation, as the model was tuned with it.

        Raises:
          UserError: there is no template, or it refuses the conversation.
        """
        import jinja2

        try:
            return self._template.render(
                messages=[dataclasses.asdict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens(),
            )
        except jinja2.TemplateError as error:
            raise UserError(f"{self.directory}: the chat template refuses this conversation: {error}") from error

    def encode_chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation.

        Where a message spells a control token, a stand-in that nobody can guess takes its place while the template is
        rendered; then the pieces between are encoded with control tokens, the spellings without.

        Raises:
          UserError: as `render`.
        """
        nonce, spelled = secrets.token_hex(8), []

        def stand_in(match: re.Match[str]) -> str:
            spelled.append(match[0])
            return f"\ue000{nonce}{len(spelled) - 1}\ue001"

        safe = [Message(m.role, self._control.sub(stand_in, m.content)) for m in messages]
        pieces = re.split(f"\ue000{nonce}(\\d+)\ue001", self.render(safe, add_generation_prompt))
        ids: list[int] = []
        for place, piece in enumerate(pieces):
            if place % 2:
                ids += self.vocabulary.encode_batch([spelled[int(piece)]])[0]
            elif piece:
                ids += self._raw.encode(piece, add_special_tokens=False).ids
        return ids

    def encode_training(self, messages: Sequence[Message], first: int = 0) -> tuple[list[int], list[float]]:
        """Token ids of a conversation, and 1 for those to learn: the assistant's turns with the token that ends each.

        Where a turn begins and ends is seen by rendering the conversation up to there, not by looking for a template's markers.
        A model that writes nothing after the end of a turn need not learn what a template puts between turns.

        Args:
          messages: the conversation.
          first: the message from which on the assistant's turns are learnt; those before it are a prompt.

        Raises:
          UserError: as `render`, or the template does not render a conversation as a continuation of its beginning, or what is
            learnt would be nothing, or everything.
        """
        ids = self.encode_chat(messages, add_generation_prompt=False)
        weights = [0.0] * len(ids)
        for number, message in enumerate(messages):
            if message.role != "assistant" or number < first:
                continue
            before = self.encode_chat(messages[:number], add_generation_prompt=True)
            whole = self.encode_chat(messages[: number + 1], add_generation_prompt=False)
            if ids[: len(before)] != before or ids[: len(whole)] != whole or len(before) >= len(whole):
                raise UserError(
                    f"{self.directory}: with this chat template a conversation of {len(messages)} messages does not begin with "
                    f"the same tokens as its first {number + 1}, so the assistant's cannot be told apart; use a template that "
                    "renders turns one after the other"
                )
            ends = [place for place in range(len(before), len(whole)) if whole[place] == self.turn_end]
            last = ends[-1] + 1 if ends else len(whole)
            weights[len(before) : last] = [1.0] * (last - len(before))
        if len(set(weights)) < 2:
            share = "nothing" if not any(weights) else "every token"
            raise UserError(
                f"{self.directory}: with this chat template {share} of a conversation of {len(messages)} messages would be "
                "learnt; a template shows the user's turns and the assistant's"
            )
        return ids, weights

    @functools.cached_property
    def turn_end(self) -> int | None:
        """The control token that ends a turn of the assistant, as the template has it; None where there is none."""
        asked = [Message("user", "a")]
        begun = len(self.encode_chat(asked, add_generation_prompt=True))
        turn = self.encode_chat([*asked, Message("assistant", "a")], add_generation_prompt=False)[begun:]
        return next((token for token in turn if token in self.vocabulary.special_ids), None)

    @property
    def template_digest(self) -> str:
        """SHA-256 of the chat template.

        Raises:
          UserError: there is none.
        """
        return hashlib.sha256(self._required_template().encode()).hexdigest()

    def _required_template(self) -> str:
        if self._template_source is None:
            raise UserError(
                f"{self.directory or self.vocabulary.spec}: this tokenizer has no chat template; put the model's "
                f"{_TEMPLATE} beside its {_TOKENIZER}, or give the prompt as text"
            )
        return self._template_source

    @functools.cached_property
    def _template_source(self) -> str | None:
        if self.directory is not None and self._raw is not None:
            file = self.directory / _TEMPLATE
            if file.is_file():
                return file.read_text(encoding="utf-8")
            given = self._settings.get("chat_template")
            if isinstance(given, list):  # several, by name
                given = {each["name"]: each["template"] for each in given}.get("default")
            return given
        return None

    @functools.cached_property
    def _template(self) -> Any:
        """Compiled in a sandbox: a template comes with a model, from anywhere. The settings are transformers'."""
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        source = self._required_template()

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
            return json.dumps(value, ensure_ascii=ensure_ascii, **options)

        sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        sandbox.filters["tojson"] = to_json
        sandbox.globals["raise_exception"] = refuse
        sandbox.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            return sandbox.from_string(source)
        except jinja2.TemplateError as error:
            raise UserError(f"{self.directory}: the chat template is no valid Jinja template: {error}") from error

    # Files -----------------------------------------------------------------------------------------------------------

    def _read(self, name: str) -> Mapping[str, Any]:
        if self.directory is None or not (self.directory / name).is_file():
            return {}
        try:
            return json.loads((self.directory / name).read_bytes())
        except ValueError as error:
            raise UserError(f"{self.directory / name}: not JSON: {error}") from error

    def _special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token and so on, as templates know them."""
        given = {**self._read("special_tokens_map.json"), **self._settings}
        named = {name: given[name] for name in _NAMED_TOKENS if given.get(name)}
        return {name: token["content"] if isinstance(token, dict) else token for name, token in named.items()}

    def _control_tokens(self) -> set[str]:
        if self._raw is None:
            return set()
        added = self._raw.get_added_tokens_decoder().values()
        return {token.content for token in added if token.special or looks_like_control(token.content)}


class TextStream:
    """Text of ids as they come: what is passed on is final, and together it is what decoding all ids at once gives."""

    def __init__(self, known: Vocabulary):
        self._known = known
        self._ids: list[int] = []  # those that the last text came from, then those that gave none yet
        self._told = 0  # how many of them have been told

    def push(self, ids: Iterable[int]) -> str:
        """New text; nothing while the last character may lack bytes."""
        self._ids += ids
        text = self._new_text()
        if not text or text.endswith("�"):
            return ""
        self._ids, self._told = self._ids[self._told :], len(self._ids) - self._told
        return text

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        text = self._new_text()
        self._ids, self._told = [], 0
        return text

    def _new_text(self) -> str:
        before = self._known.decode(self._ids[: self._told])
        return self._known.decode(self._ids)[len(before) :]
