"""What a generation is asked for and what it gives, whoever does the work: our engine, or an endpoint on the network.

A teacher, a judge, a server and a person at a terminal all speak these types, so that any of them works with any model.
Nothing here imports JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig

Prompt = str | tuple[int, ...] | tuple[Message, ...]
"""A text to go on with, token ids as they are, or a conversation to answer."""

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt, and how to go on from it.

    Attributes:
      id: returned with the response; unique among the requests of one call.
      prompt: what to go on from.
      sampling: how, how far, and how often.
    """

    id: str
    prompt: Prompt
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of a prompt or of an output.

    Attributes:
      id: in the model's vocabulary; None where a remote endpoint does not tell.
      text: what it adds to the text; may be empty, or a part of a character shown as U+FFFD.
      log_prob: natural logarithm of its probability under the model as it is, before temperature and filters; None where
        it was not asked for or, for a prompt's first token, does not exist.
      top: the likeliest tokens at this place as (id, text, log_prob), the likeliest first; as many as were asked for.
    """

    id: int | None
    text: str
    log_prob: float | None = None
    top: tuple[tuple[int | None, str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """One sample.

    Attributes:
      text: without the stop string that ended it, and without special tokens.
      tokens: all that were sampled, the stop token included; empty where a remote endpoint does not tell.
      finish_reason: "stop": a stop token or string; "length": max_tokens, or the model's longest sequence.
    """

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, kw_only=True)
class Response:
    """What came of a request.

    Attributes:
      id: the request's.
      completions: one for each of `sampling.n`.
      prompt_tokens: how many tokens the prompt was.
      prompt: its tokens with their log-probabilities, where `sampling.prompt_log_probs` asks for them.
    """

    id: str
    completions: tuple[Completion, ...]
    prompt_tokens: int
    prompt: tuple[Token, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FailedResponse(Response):
    """In place of an answer to a request that failed, where a generator is told to go on without it.

    One prompt of a hundred thousand that a provider always refuses, or that makes its server fail, must not stop the
    others, nor go missing silently: every request has its response, and this one has no completions.

    Attributes:
      error: what happened.
    """

    error: str


class Generator(Protocol):
    """Prompts in, texts with log-probabilities out."""

    name: str
    """Which model it is, for records and cache keys."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Yields each request's response as soon as it is complete, in no particular order.

        Requests are read as there is room for them, so a long or endless iterable is fine.

        Raises:
          UserError: a request cannot be served (a prompt longer than the model takes, say); it names the request.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What a streamed sample has grown by.

    Attributes:
      index: which sample of the request.
      text: new text; never half a character, nor what may be the beginning of a stop string.
      tokens: the tokens that came since the last delta.
      finish_reason: with the last delta of the sample.
      prompt: the prompt's tokens, where `sampling.prompt_log_probs` asks for them: once, before all else, in a delta of
        sample 0 that holds nothing else.
    """

    index: int
    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish_reason: FinishReason | None = None
    prompt: tuple[Token, ...] = ()


class Job(Protocol):
    """A request that is being worked on."""

    prompt_tokens: int

    def cancel(self) -> None:
        """Ends it: what it occupies is free at once, and every unfinished sample gets a delta "cancelled". Any thread."""
        ...


class StreamingGenerator(Generator, Protocol):
    """A generator that can tell what comes as it comes."""

    def start(self, request: Request, listener: Callable[[Delta], None]) -> Job:
        """Queues a request and returns; the listener is called from another thread until every sample has finished.

        Safe to call from any thread.

        Raises:
          UserError: as `generate`, at once.
        """
        ...
