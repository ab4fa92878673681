"""Which of two answers is preferred, by the three kinds of reward model (papers.md 4).

* Classifier: a scalar reward. Right if the better answer's is higher; a tie is wrong, so that a constant reward scores 0.
* Implicit: the log-ratio of a policy and its reference over the answer's tokens (`judging.implicit`); then as a classifier.
* Generative: a judge that reads both answers and says A or B; half a point where it says neither.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from aya_jax.evaluation.judging.asking import Question, ask, judge_sampling
from aya_jax.evaluation.judging.judge import Judged, RewardFunction, reward_all
from aya_jax.evaluation.judging.prompts import pair_prompt
from aya_jax.evaluation.judging.verdicts import parse_verdict
from aya_jax.evaluation.reward_bench.instances import Instance, Outcome, Preferred
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Generator

Orders = Literal["hashed", "both"]
"""One order for each instance, by a hash of its id; or both, with the mean of their credits."""

_CREDIT: dict[Preferred, float] = {"chosen": 1.0, "rejected": 0.0, "neither": 0.5}


def by_rewards(instance: Instance, chosen: float, rejected: float) -> Outcome:
    """Classifier and implicit models: right if and only if the better answer's reward is higher.

    A reward that is no number is wrong too, and counted as unparsed.
    """
    unparsed = math.isnan(chosen) + math.isnan(rejected)
    preferred: Preferred = "chosen" if chosen > rejected else "rejected" if chosen < rejected else "neither"
    return Outcome(
        id=instance.id,
        language=instance.language,
        subset=instance.subset,
        credit=float(chosen > rejected),
        preferred=preferred,
        unparsed=unparsed,
        error=f"rewards {chosen} and {rejected}" if unparsed else "",
    )


def reward_outcomes(reward: RewardFunction, instances: Iterable[Instance]) -> Iterator[Outcome]:
    """Yields each instance's outcome by a reward function, which is asked for all answers at once.

    Raises:
      UserError: it gives another number of rewards than there are answers.
    """
    instances = list(instances)
    answers = [
        Judged(instance.messages, text) for instance in instances for text in (instance.chosen, instance.rejected)
    ]
    rewards = reward_all(reward, answers)
    for instance, chosen, rejected in zip(instances, rewards[::2], rewards[1::2], strict=True):
        yield by_rewards(instance, chosen, rejected)


def chosen_first(instance_id: str, seed: int = 0) -> bool:
    """Whether the better answer is shown as A: a fair coin that is the same on every run, machine and in every language.

    Upstream draws it anew each time, and scores move by up to four points (reward-bench #272).
    """
    return hashlib.sha256(f"{seed}/{instance_id}".encode()).digest()[0] % 2 == 0


def judge_outcomes(
    judge: Generator,
    instances: Iterable[Instance],
    *,
    orders: Orders = "hashed",
    seed: int = 0,
    name_language: bool = False,
    sampling: SamplingConfig | None = None,
) -> Iterator[Outcome]:
    """Yields each instance's outcome by a judge that reads both answers, once all of its replies are there.

    Args:
      judge: any generator.
      instances: read as the judge has room.
      orders: which orders to show the answers in.
      seed: of the hashed order.
      name_language: tell the judge which language the prompt is in.
      sampling: of its replies; None: `judge_sampling()`, temperature 0.

    Raises:
      UserError: an instance comes twice, or as `Generator.generate`.
    """

    def questions() -> Iterator[Question[tuple[Instance, bool]]]:
        for instance in instances:
            for first in (True, False) if orders == "both" else (chosen_first(instance.id, seed),):
                answers = (instance.chosen, instance.rejected) if first else (instance.rejected, instance.chosen)
                language = instance.language if name_language else None
                messages = pair_prompt("pairwise", instance.messages, *answers, language=language)
                yield Question(f"{instance.language}/{instance.id}/{int(first)}", messages, (instance, first))

    waiting: dict[tuple[str, str], list[tuple[Preferred | None, str]]] = defaultdict(list)
    for reply in ask(judge, questions(), sampling or judge_sampling(max_tokens=2048)):
        instance, first = reply.about
        verdict = parse_verdict(reply.text, "pairwise")
        preferred: Preferred | None = None
        if verdict is not None:
            preferred = "chosen" if (verdict == "A>B") == first else "rejected"
        key = instance.language, instance.id
        waiting[key].append((preferred, "" if verdict else reply.error or "the reply holds no verdict"))
        if len(waiting[key]) == (2 if orders == "both" else 1):
            yield by_verdicts(instance, waiting.pop(key))


def by_verdicts(instance: Instance, replies: Sequence[tuple[Preferred | None, str]]) -> Outcome:
    """The mean credit of (preferred, error) of each reply: 1, 0, or 0.5 where it names no answer (reward-bench)."""
    credit = float(np.mean([_CREDIT[preferred or "neither"] for preferred, _ in replies]))
    return Outcome(
        id=instance.id,
        language=instance.language,
        subset=instance.subset,
        credit=credit,
        preferred="chosen" if credit > 0.5 else "rejected" if credit < 0.5 else "neither",
        unparsed=sum(preferred is None for preferred, _ in replies),
        error="; ".join(error for _, error in replies if error),
    )
