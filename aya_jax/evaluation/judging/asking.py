"""Questions to a judge and its replies, whatever is judged: each question gets exactly one reply, if only an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import FailedResponse, Generator, Request, Response

T = TypeVar("T")


def judge_sampling(max_tokens: int = 4096, seed: int = 0) -> SamplingConfig:
    """How judges are sampled: the likeliest token always, and room for an own answer (Arena-Hard: temperature 0, 4096)."""
    return SamplingConfig(max_tokens=max_tokens, temperature=0.0, seed=seed)


@dataclass(frozen=True)
class Question(Generic[T]):
    """What a judge is asked.

    Attributes:
      id: unique among the questions of one call.
      messages: the judge's prompt.
      about: what it is about, handed back with the reply.
    """

    id: str
    messages: tuple[Message, ...]
    about: T


@dataclass(frozen=True)
class Reply(Generic[T]):
    """What came of a question.

    Attributes:
      about: the question's.
      text: the judge's words; "" where there are none.
      error: why there are none.
    """

    about: T
    text: str
    error: str = ""


def ask(judge: Generator, questions: Iterable[Question[T]], sampling: SamplingConfig) -> Iterator[Reply[T]]:
    """Yields a reply to every question, in the order in which the judge gives them.

    Questions are read as the judge has room. A request that failed, and one that the judge never answers, is a reply with
    an error: it must be counted, and it must not end the work on the others.

    Raises:
      UserError: two questions have the same id, or as `Generator.generate`.
    """
    waiting: dict[str, T] = {}
    seen: set[str] = set()

    def requests() -> Iterator[Request]:
        for question in questions:
            if question.id in seen:
                raise UserError(f"{question.id!r} is to be judged twice; an id must be unique within a language")
            seen.add(question.id)
            waiting[question.id] = question.about
            yield Request(id=question.id, prompt=question.messages, sampling=sampling)

    for response in judge.generate(requests()):
        yield _reply(waiting.pop(response.id), response)
    for about in waiting.values():
        yield Reply(about, "", "the judge gave no response")


def _reply(about: T, response: Response) -> Reply[T]:
    if isinstance(response, FailedResponse):
        return Reply(about, "", response.error or "the request failed")
    if not response.completions:
        return Reply(about, "", "the response holds no completion")
    completion = response.completions[0]
    cut = completion.finish_reason == "length"
    # Cut short is no error in itself: the verdict may have been given. It explains one that is missing.
    return Reply(about, completion.text, "the reply reached max_tokens" if cut else "")
