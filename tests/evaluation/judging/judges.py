"""Judges whose answers are known, and battles to put before them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.battles import Battle
from aya_jax.inference.protocol import Completion, FailedResponse, Request, Response


def completion(text: str, finish_reason: str = "stop") -> Completion:
    return Completion(text=text, tokens=(), finish_reason=finish_reason)


class StubJudge:
    """Answers with a function of the two texts it is shown (or the one); keeps the requests. Last request first."""

    name = "stub"

    def __init__(self, answer: Callable[..., str | None]):
        self.answer, self.requests = answer, []

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        self.requests = list(requests)
        for request in reversed(self.requests):
            said = self.answer(*shown(request))
            if said is None:
                yield FailedResponse(id=request.id, completions=(), prompt_tokens=0, error="503 from the provider")
            else:
                yield Response(id=request.id, completions=(completion(said),), prompt_tokens=1)


def shown(request: Request) -> list[str]:
    """What stands between the markers named "answer", in order."""
    text = request.prompt[-1].content
    return re.findall(
        r"<<[0-9a-f]{12} answer[ AB]* begins>>\n(.*?)\n<<[0-9a-f]{12} answer[ AB]* ends>>", text, re.DOTALL
    )


def longer(a: str, b: str) -> str:
    """A judge that likes what is longer: the same answer wins in either order."""
    return "[[A=B]]" if len(a) == len(b) else "[[A>B]]" if len(a) > len(b) else "[[B>A]]"


def battles(languages=("en", "ar"), prompts=6, answers=lambda k: ("long answer", "short")) -> list[Battle]:
    return [
        Battle(
            prompt_id=f"p{k}",
            language=language,
            messages=(Message("user", f"Question {k}?"),),
            model_answer=answers(k)[0],
            baseline_answer=answers(k)[1],
        )
        for language in languages
        for k in range(prompts)
    ]
