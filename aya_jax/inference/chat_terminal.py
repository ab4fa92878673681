"""A conversation in the terminal: `aya generate --chat`."""

from __future__ import annotations

import dataclasses
import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Delta, Generator, Request

HELP = """\
/system TEXT     say how to answer; begins anew
/reset           begin anew
/retry           another answer to the last message
/set NAME VALUE  change how the next token is chosen: temperature, top_p, max_tokens, seed ...
/quit            end (also Ctrl-D); Ctrl-C stops an answer
A line that ends in a backslash goes on in the next."""


class Conversation:
    """What has been said, and what a line of the user's does to it."""

    def __init__(self, generator: Generator, sampling: SamplingConfig, console: Console):
        """Begins with nothing said."""
        self.messages: list[Message] = []
        self.sampling = dataclasses.replace(sampling, n=1)
        self._generator, self._console = generator, console

    def line(self, text: str) -> bool:
        """Obeys a command, or answers a message; False to end."""
        word, _, rest = text.strip().partition(" ")
        try:
            if word == "/quit":
                return False
            if word == "/help":
                self._say(HELP)
            elif word == "/reset":
                self.messages.clear()
            elif word == "/system":
                self.messages[:] = [Message("system", rest)] if rest else []
            elif word == "/set":
                self._set(*rest.partition(" ")[::2])
            elif word == "/retry":
                self._retry()
            elif word.startswith("/"):
                raise UserError(f"{word}: no such command; /help lists them")
            elif text.strip():
                self._ask(Message("user", text))
        except UserError as error:
            self._say(str(error))
        return True

    def _ask(self, message: Message) -> None:
        """Answers a message; one that cannot be answered is taken back."""
        self.messages.append(message)
        try:
            self.messages.append(Message("assistant", self._answer()))
        except UserError:
            self.messages.pop()
            raise

    def _retry(self) -> None:
        if not self.messages or self.messages[-1].role != "assistant":
            raise UserError("nothing has been answered yet")
        self.sampling = dataclasses.replace(self.sampling, seed=self.sampling.seed + 1)
        self.messages.pop()
        self._ask(self.messages.pop())

    def _answer(self) -> str:
        """Shows an answer as it comes, and how fast it came; returns it, or what there was of it at Ctrl-C."""
        request = Request(id="chat", prompt=tuple(self.messages), sampling=self.sampling)
        begin, said, tokens = time.perf_counter(), "", 0
        for delta in streamed(self._generator, request):
            self._console.print(delta.text, end="", highlight=False, markup=False, soft_wrap=True)
            said, tokens = said + delta.text, tokens + len(delta.tokens)
        rate = f"{tokens / max(time.perf_counter() - begin, 1e-9):,.0f} tokens/s" if tokens else ""
        self._console.print(f"\n[dim]{rate}[/dim]", highlight=False)
        return said

    def _set(self, name: str, value: str) -> None:
        kinds = {field.name: type(getattr(self.sampling, field.name)) for field in dataclasses.fields(self.sampling)}
        kinds = {known: kind for known, kind in kinds.items() if kind in (int, float) and known != "n"}
        if name not in kinds:
            near = did_you_mean(near_names(name, kinds)) or f"; there are {', '.join(kinds)}"
            raise UserError(f"/set {name}: no such number{near}")
        try:
            changed = dataclasses.replace(self.sampling, **{name: kinds[name](value)})
        except ValueError as error:
            raise UserError(f"/set {name} {value}: expected {kinds[name].__name__}") from error
        for problem in changed.validate():
            raise UserError(f"/set {name} {value}: expected {problem.expected}")
        self.sampling = changed

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", highlight=False, markup=False)


def streamed(generator: Any, request: Request) -> Iterator[Delta]:
    """A request's deltas as they come, up to the last one or Ctrl-C; of a generator that cannot stream, one."""
    if not hasattr(generator, "start"):
        for response in generator.generate([request]):
            if not response.completions:
                raise UserError(getattr(response, "error", "no answer"))
            (completion,) = response.completions
            yield Delta(index=0, text=completion.text, tokens=completion.tokens, finish_reason=completion.finish_reason)
        return
    deltas: queue.SimpleQueue[Delta] = queue.SimpleQueue()
    job = generator.start(request, deltas.put)
    while True:
        try:
            delta = deltas.get()
        except KeyboardInterrupt:
            job.cancel()
            continue  # the last delta comes all the same
        yield delta
        if delta.finish_reason is not None:
            return


def converse(
    generator: Generator, sampling: SamplingConfig, console: Console, read: Callable[[str], str] = input
) -> None:
    """Talks with a person until they end it.

    Args:
      generator: who answers.
      sampling: how, to begin with.
      console: where answers are shown.
      read: asks for a line, with a prompt; raises EOFError at the end.
    """
    conversation = Conversation(generator, sampling, console)
    console.print(f"[dim]{generator.name}; /help lists the commands[/dim]", highlight=False)
    while True:
        try:
            text = read("> ")
            while text.endswith("\\"):
                text = text[:-1] + "\n" + read("... ")
        except EOFError:
            return
        except KeyboardInterrupt:  # a line that is given up
            console.print()
            continue
        if not conversation.line(text):
            return
