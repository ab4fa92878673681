"""Who sits on the bench: a model that writes verdicts, whose replies are kept, or a reward model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.judging.judge import Judged, RewardFunction
from aya_jax.inference.protocol import Completion, FailedResponse, Generator, Request, Response

_BATCHES = 32


class RememberingJudge:
    """A generator that puts no question twice: replies are kept on disk, those that failed are not."""

    def __init__(self, judge: Generator, identity: str, answers: Answers, advance: Callable[[int], None]):
        """Wraps a judge.

        Args:
          judge: who answers what is not known.
          identity: of the judge's weights, or of the endpoint's model.
          answers: what is known.
          advance: is told of every reply, known or new.
        """
        self.name, self._judge, self._identity, self._answers, self._advance = (
            judge.name,
            judge,
            identity,
            answers,
            advance,
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """As `Generator.generate`; what is known comes first."""
        keys, new = {}, []
        for request in requests:
            key = self._key(request)
            if (known := self._answers.get(key)) is None:
                keys[request.id] = key
                new.append(request)
            else:
                self._advance(1)
                yield _response(request.id, *known)
        for response in self._judge.generate(new):
            if not isinstance(response, FailedResponse) and response.completions:
                said = response.completions[0]
                self._answers.put({keys[response.id]: (said.text, said.finish_reason)})
            self._advance(1)
            yield response

    def _key(self, request: Request) -> str:
        said = [(message.role, message.content) for message in request.prompt]
        return question("judge", self._identity, said, dataclasses.asdict(request.sampling))


def _response(name: str, text: str, finish_reason: Any) -> Response:
    completion = Completion(text=text, tokens=(), finish_reason=finish_reason)
    return Response(id=name, completions=(completion,), prompt_tokens=0)


def reward_function(config: Any, say: Callable[[str], None], advance: Callable[[int], None]) -> RewardFunction:
    """A reward model of ours as a function of answers.

    Raises:
      UserError: it gives no rewards, or lacks its tokenizer.
    """
    from aya_jax.parallel.config import MeshConfig
    from aya_jax.parallel.mesh import make_mesh
    from aya_jax.synthesis.reward_scorer import RewardScorer
    from aya_jax.synthesis.scorers import Answer

    shape = MeshConfig(fsdp=1, tensor=-1)
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        scorer = RewardScorer(config, mesh, shape.logical_axes, say)

    def rewards(judged: Sequence[Judged]) -> list[float]:
        found: list[float] = []
        step = _BATCHES * config.rows  # those of like length come together, and progress is seen
        for start in range(0, len(judged), step):
            some = judged[start : start + step]
            with jax.set_mesh(mesh):
                found += scorer.score([Answer(each.messages, each.text, {}) for each in some])
            advance(len(some))
        return found

    return rewards
