"""Texts that a model writes for an evaluation: each is asked for once, and kept as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.subject import Subject
from aya_jax.inference.config import EngineConfig
from aya_jax.inference.protocol import FailedResponse, Request, Response
from aya_jax.training.console import Track


def write_texts(
    subject: Subject,
    requests: Sequence[tuple[str, Request]],
    answers: Answers,
    *,
    engine: EngineConfig,
    max_length: int | None,
    track: Track,
    label: str,
    keep: Callable[[Response], Any] = lambda response: [completion.text for completion in response.completions],
) -> list[Any]:
    """What the model wrote for each request, in their order; what `answers` knows is not asked again.

    Args:
      subject: the model.
      requests: each with the key of its answer (`answers.question`); an id is there once, and names it in errors.
      answers: what is known, and grows.
      engine: what generates.
      max_length: tokens of a prompt and its answer together; None: as many as the model reads.
      track: for progress.
      label: of the progress.
      keep: what is kept of a response, in a form that JSON has.

    Raises:
      UserError: a request does not fit the model, or fails; it names the request.
    """
    wanted = {request.id: (key, request) for key, request in requests if answers.get(key) is None}
    with track(label, len(wanted)) as advance:
        if wanted:
            samples = sum(request.sampling.n for _, request in wanted.values())
            with subject.generator(engine, subject.max_length(max_length), samples) as generator:
                for response in generator.generate(request for _, request in wanted.values()):
                    if isinstance(response, FailedResponse):
                        raise UserError(
                            f"{response.id}: {response.error}; what was written before is kept: start again"
                        )
                    answers.put({wanted[response.id][0]: keep(response)})
                    advance(1)
    return [answers.get(key) for key, _ in requests]
