"""Answers as clients of an OpenAI-compatible server read them: whole, or in pieces as they come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from aya_jax.inference.openai_requests import Asked
from aya_jax.inference.protocol import Delta, Token


@dataclasses.dataclass
class Counts:
    """Tokens of a request, as "usage" has them."""

    prompt: int = 0
    completion: int = 0

    def usage(self) -> dict[str, int]:
        """The JSON object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


class Choice:
    """One sample of one prompt, as it grows."""

    def __init__(self, asked: Asked, index: int, echoed: str):
        """`echoed`: the text that the sample begins with, "" without echo."""
        self.finish_reason: str | None = None
        self._asked, self._index = asked, index
        self._begin, self._begun = echoed, False
        self._hidden = asked.max_tokens == 0  # one token was made, since an engine makes one at least
        self._offset = 0  # characters of the tokens so far

    def grow(self, delta: Delta) -> dict[str, Any]:
        """The choice of a chunk that tells of a delta."""
        text, tokens = delta.text, delta.tokens
        if self._hidden:
            text, tokens = "", ()
        first, self._begun = not self._begun, True
        self.finish_reason = "length" if self._hidden and delta.finish_reason else delta.finish_reason
        choice = self._choice(self._begin + text if first else text, (*delta.prompt, *tokens))
        if first and self._asked.chat:
            choice["delta"]["role"] = "assistant"
        return choice

    def _choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        logprobs = None
        if self._asked.log_probs is not None:
            logprobs = self._chat_logprobs(tokens) if self._asked.chat else self._completion_logprobs(tokens)
        found = {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}
        if self._asked.chat:
            found["delta"] = {"content": found.pop("text")}
        return found

    def _chat_logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        return {
            "content": [
                _scored(token.text, token.log_prob)
                | {"top_logprobs": [_scored(text, log_prob) for _, text, log_prob in token.top]}
                for token in tokens
            ]
        }

    def _completion_logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(token.text)
        top = [{text: log_prob for _, text, log_prob in token.top} or None for token in tokens]
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.log_prob for token in tokens],
            "top_logprobs": top if self._asked.log_probs else None,
            "text_offset": offsets,
        }


def envelope(asked: Asked, identity: str, model: str, *, chunk: bool) -> dict[str, Any]:
    """What every answer, and every piece of one, begins with."""
    kind = "text_completion"
    if asked.chat:
        kind = "chat.completion.chunk" if chunk else "chat.completion"
    prefix = "chatcmpl" if asked.chat else "cmpl"
    return {"id": f"{prefix}-{identity}", "object": kind, "created": int(time.time()), "model": model, "choices": []}


def whole(pieces: Sequence[dict[str, Any]], chat: bool) -> dict[str, Any]:
    """One choice of the pieces of a stream."""
    last = pieces[-1]
    found = {"index": last["index"], "finish_reason": last["finish_reason"], "logprobs": None}
    if last["logprobs"] is not None:
        lists = [name for name, value in last["logprobs"].items() if value is not None]
        found["logprobs"] = dict.fromkeys(last["logprobs"]) | {
            name: [each for piece in pieces for each in piece["logprobs"][name]] for name in lists
        }
    if chat:
        text = "".join(piece["delta"]["content"] for piece in pieces)
        return found | {"message": {"role": "assistant", "content": text, "refusal": None}}
    return found | {"text": "".join(piece["text"] for piece in pieces)}


def _scored(text: str, log_prob: float | None) -> dict[str, Any]:
    # A part of a character is shown as U+FFFD, whose bytes are not the token's.
    return {"token": text, "logprob": log_prob, "bytes": None if "�" in text else list(text.encode())}
