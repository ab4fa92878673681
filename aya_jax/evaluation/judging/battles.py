"""Two answers to one prompt, and what a judge says of them: the records that every number of pairwise judging comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.load import EvalPrompt
from aya_jax.evaluation.judging.style import Style

Order = Literal[1, 2]
"""1: the baseline's answer is shown as A; 2: the model's is."""

Verdict = Literal["A>>B", "A>B", "A=B", "B>A", "B>>A"]
STRENGTH: Mapping[Verdict, int] = {"A>>B": 2, "A>B": 1, "A=B": 0, "B>A": -1, "B>>A": -2}
"""How much better A is."""


@dataclass(frozen=True, kw_only=True)
class Battle:
    """A prompt with the answers of two models.

    Attributes:
      prompt_id: shared by the prompt's translations.
      language: of the prompt.
      messages: the conversation that both answer.
      model, baseline: which models answered.
      model_answer, baseline_answer: what they said.
      category: as the benchmark groups the prompt.
    """

    prompt_id: str
    language: str
    messages: tuple[Message, ...]
    model_answer: str
    baseline_answer: str
    model: str = "model"
    baseline: str = "baseline"
    category: str = ""

    def shown(self, order: Order) -> tuple[str, str]:
        """The answers as (A, B)."""
        answers = (self.model_answer, self.baseline_answer)
        return answers if order == 2 else answers[::-1]


@dataclass(frozen=True, kw_only=True)
class Game:
    """A battle judged in one order.

    Attributes:
      prompt_id, language, model, baseline, category: the battle's.
      order: which answer was shown as A.
      verdict: None where the judge's reply holds none, or never came.
      model_style, baseline_style: how the answers look, for style control; None where nobody measured.
      reply: what the judge said.
      error: why there is no reply, or no verdict.
    """

    prompt_id: str
    language: str
    order: Order
    verdict: Verdict | None
    model: str = "model"
    baseline: str = "baseline"
    category: str = ""
    model_style: Style | None = None
    baseline_style: Style | None = None
    reply: str = ""
    error: str = ""

    @property
    def pair(self) -> tuple[str, str, str, str]:
        """What the two orders of one battle share."""
        return self.model, self.baseline, self.language, self.prompt_id

    @property
    def strength(self) -> int | None:
        """How much better the model's answer is: 2, 1, 0 (a tie), -1 or -2; None without a verdict."""
        if self.verdict is None:
            return None
        return STRENGTH[self.verdict] if self.order == 2 else -STRENGTH[self.verdict]

    @property
    def score(self) -> float | None:
        """1 for the model's win, 0.5 for a tie, 0 for a loss; None without a verdict."""
        return None if self.strength is None else 0.5 + 0.5 * (self.strength > 0) - 0.5 * (self.strength < 0)


def make_battles(
    prompts: Iterable[EvalPrompt],
    model_answers: Mapping[tuple[str, str], str],
    baseline_answers: Mapping[tuple[str, str], str],
    *,
    model: str = "model",
    baseline: str = "baseline",
) -> list[Battle]:
    """A battle for every prompt.

    Args:
      prompts: what was asked.
      model_answers, baseline_answers: by (language, id); an empty answer is an answer.
      model, baseline: names of the two.

    Raises:
      UserError: an answer is missing: a score over the prompts that happen to have one would not be the benchmark's.
    """
    prompts = list(prompts)
    for name, answers in ((model, model_answers), (baseline, baseline_answers)):
        missing = [prompt.key for prompt in prompts if prompt.key not in answers]
        if missing:
            language, prompt_id = missing[0]
            raise UserError(
                f"{name} has no answer to {len(missing):,} of {len(prompts):,} prompts, the first {prompt_id!r} ({language})"
            )
    return [
        Battle(
            prompt_id=prompt.id,
            language=prompt.language,
            messages=prompt.messages,
            model_answer=model_answers[prompt.key],
            baseline_answer=baseline_answers[prompt.key],
            model=model,
            baseline=baseline,
            category=prompt.category,
        )
        for prompt in prompts
    ]
