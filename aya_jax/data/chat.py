"""Conversations to token ids, by the chat template that a model was tuned with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
      role: "system", "user" or "assistant".
      content: its text.
    """

    role: str
    content: str
