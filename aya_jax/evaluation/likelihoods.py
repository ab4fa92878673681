"""Log-probabilities of continuations, each computed once for a model and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.scoring import Continuation, Likelihood

Score = Callable[[Sequence[Continuation], Callable[[dict[int, Likelihood]], None]], None]
"""What computes them and hands them over by their numbers, as they come: `Scorer.score` with the parameters bound."""


def likelihood_keys(asked: Sequence[Continuation], max_length: int) -> list[str]:
    """What `answers` knows each by, whatever evaluation asks."""
    return [question("likelihood", max_length, one.context, one.tokens) for one in asked]


def known_or_scored(
    asked: Sequence[Continuation], score: Score, answers: Answers, *, max_length: int, advance: Callable[[int], None]
) -> list[Likelihood]:
    """The log-probability of each continuation; what `answers` knows, from whatever evaluation, is not computed again.

    Args:
      asked: what.
      score: what computes them.
      answers: what is known of the model, and grows.
      max_length: tokens that the model reads, which decide what a long context loses.
      advance: told how many more are there.
    """
    keys = likelihood_keys(asked, max_length)
    numbers = list({key: number for number, key in enumerate(keys) if answers.get(key) is None}.values())
    advance(len(asked) - len(numbers))

    def take(found: dict[int, Likelihood]) -> None:
        answers.put({keys[numbers[n]]: (one.log_prob, one.greedy) for n, one in found.items()})
        advance(len(found))

    if numbers:
        score([asked[number] for number in numbers], take)
    return [Likelihood(*answers.get(key)) for key in keys]
