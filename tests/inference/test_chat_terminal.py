"""A conversation with somebody whose answers are known."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aya_jax.cli import parse_arguments
from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.inference.chat_terminal import converse
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Delta, Token


class Parrot:
    """Streams back how many messages there are, the last of them, and the temperature and seed; "long" is refused."""

    name = "parrot"

    def __init__(self):
        self.prompts = []

    def start(self, request, listener):
        if request.prompt[-1].content == "long":
            raise UserError("the prompt is too long")
        self.prompts.append(request.prompt)
        text = (
            f"{len(request.prompt)} {request.prompt[-1].content} {request.sampling.temperature} {request.sampling.seed}"
        )
        for word in text.split(" "):
            listener(Delta(index=0, text=f"{word} ", tokens=(Token(id=1, text=word),)))
        listener(Delta(index=0, finish_reason="stop"))


def talk(*lines):
    parrot, out, left = Parrot(), io.StringIO(), list(lines)

    def read(prompt):
        if not left:
            raise EOFError
        line = left.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    converse(parrot, SamplingConfig(n=4), Console(file=out, width=200), read)
    return parrot, out.getvalue()


def test_what_was_said_before_is_part_of_the_next_prompt():
    parrot, out = talk("one", "two\\", "and more", "/quit", "never")
    first, second = parrot.prompts
    assert first == (Message("user", "one"),)
    assert second == (*first, Message("assistant", "1 one 1.0 0 "), Message("user", "two\nand more"))
    assert "1 one 1.0 0" in out
    assert "tokens/s" in out


def test_commands():
    parrot, out = talk(
        "/system be brief",
        "a",
        "/set temperature 0.5",
        "/retry",
        "/reset",
        "b",
        "/set temprature 1",
        "/set top_p 7",
        "/nope",
        "/help",
    )
    system = Message("system", "be brief")
    assert parrot.prompts == [(system, Message("user", "a"))] * 2 + [(Message("user", "b"),)]
    assert "2 a 0.5 1" in out  # another seed
    for part in ("did you mean temperature?", "expected above 0 and at most 1", "/nope: no such command", "/retry"):
        assert part in out


def test_what_cannot_be_answered_is_taken_back_and_an_interrupted_line_given_up():
    parrot, out = talk("/retry", "long", KeyboardInterrupt(), "short")
    assert parrot.prompts == [(Message("user", "short"),)]
    assert "nothing has been answered yet" in out
    assert "too long" in out


@pytest.mark.parametrize("words", [["generate", "--chat"], ["--chat", "generate"]])
def test_the_flag_asks_for_a_conversation(words):
    assert parse_arguments(words).bindings == ("--gin.GenerateConfig.chat=True",)
