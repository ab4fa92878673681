"""Battles to games: a language model or a reward model says which answer is better, in both orders.

Judges favour a place (the first answer, mostly), so every battle is judged twice with the answers swapped: what a judge
says for the place alone cancels out in scores, and `audit` shows how much of it there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.asking import Question, ask, judge_sampling
from aya_jax.evaluation.judging.battles import Battle, Game, Order, Verdict
from aya_jax.evaluation.judging.prompts import pair_prompt
from aya_jax.evaluation.judging.style import style_of, utf8_bytes
from aya_jax.evaluation.judging.verdicts import Form, parse_verdict
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Generator

CREATIVE = frozenset({"creative_writing"})
"""Categories (of Arena-Hard v2.0) in which the judge writes no answer of its own."""


class Judged(NamedTuple):
    """An answer to be rewarded.

    Attributes:
      messages: the conversation that it answers.
      text: what it says.
    """

    messages: tuple[Message, ...]
    text: str


RewardFunction = Callable[[Sequence[Judged]], Sequence[float]]
"""Answers in, a reward of each out; NaN where one cannot be judged. It is given all at once, to batch them as it likes."""


@dataclass(frozen=True, kw_only=True)
class JudgeCost:
    """What judging comes to, before it starts.

    Attributes:
      calls: requests to the judge.
      prompt_characters, prompt_bytes: of all prompts; bytes are UTF-8.
      prompt_tokens: by the given tokenizer; None without one.
      most_new_tokens: if every reply were as long as it may be.
    """

    calls: int
    prompt_characters: int
    prompt_bytes: int
    prompt_tokens: int | None
    most_new_tokens: int


def questions(
    battles: Iterable[Battle],
    *,
    form: Form = "arena_hard",
    name_language: bool = False,
    no_own_answer: Collection[str] = CREATIVE,
) -> Iterator[Question[tuple[Battle, Order]]]:
    """Yields the two questions of every battle.

    Args:
      battles: what to judge; read one at a time.
      form: which verdicts the judge may give.
      name_language: tell the judge which language the prompt is in.
      no_own_answer: categories in which an "arena_hard" judge does not write its own answer first.
    """
    for battle in battles:
        own = form == "arena_hard" and battle.category not in no_own_answer
        for order in (1, 2):
            messages = pair_prompt(
                form,
                battle.messages,
                *battle.shown(order),
                own_answer=own,
                language=battle.language if name_language else None,
            )
            name = f"{battle.model}/{battle.baseline}/{battle.language}/{battle.prompt_id}/{order}"
            yield Question(name, messages, (battle, order))


def judge_games(
    judge: Generator,
    battles: Iterable[Battle],
    *,
    form: Form = "arena_hard",
    name_language: bool = False,
    no_own_answer: Collection[str] = CREATIVE,
    sampling: SamplingConfig | None = None,
    measure: Callable[[str], float] = utf8_bytes,
) -> Iterator[Game]:
    """Yields two games of every battle as the judge's replies come; one that cannot be read has no verdict.

    Args:
      judge: any generator.
      battles, form, name_language, no_own_answer: as `questions`.
      sampling: of the judge's replies; None: `judge_sampling()`, temperature 0.
      measure: an answer's length, for style control.

    Raises:
      UserError: a battle comes twice, or as `Generator.generate`.
    """
    asked = questions(battles, form=form, name_language=name_language, no_own_answer=no_own_answer)
    for reply in ask(judge, asked, sampling or judge_sampling()):
        battle, order = reply.about
        verdict = parse_verdict(reply.text, form)
        error = "" if verdict else reply.error or "the reply holds no verdict"
        yield _game(battle, order, verdict, measure, reply.text, error)


def estimate_cost(
    battles: Iterable[Battle],
    *,
    form: Form = "arena_hard",
    name_language: bool = False,
    no_own_answer: Collection[str] = CREATIVE,
    sampling: SamplingConfig | None = None,
    count_tokens: Callable[[tuple[Message, ...]], int] | None = None,
) -> JudgeCost:
    """What `judge_games` would ask, added up; nothing is sent.

    Args:
      battles, form, name_language, no_own_answer, sampling: as `judge_games`.
      count_tokens: of a prompt, by the judge's tokenizer.
    """
    most = (sampling or judge_sampling()).max_tokens
    calls = characters = num_bytes = tokens = 0
    for question in questions(battles, form=form, name_language=name_language, no_own_answer=no_own_answer):
        calls += 1
        characters += sum(len(message.content) for message in question.messages)
        num_bytes += sum(utf8_bytes(message.content) for message in question.messages)
        tokens += count_tokens(question.messages) if count_tokens else 0
    return JudgeCost(
        calls=calls,
        prompt_characters=characters,
        prompt_bytes=num_bytes,
        prompt_tokens=tokens if count_tokens else None,
        most_new_tokens=calls * most,
    )


def reward_games(
    reward: RewardFunction,
    battles: Iterable[Battle],
    *,
    margin: float = 0.0,
    measure: Callable[[str], float] = utf8_bytes,
) -> Iterator[Game]:
    """Yields two games of every battle by a reward model: the higher reward wins, a difference up to the margin is a tie.

    A reward model sees no order, so both games say the same; they are both there because scores count games of both orders.

    Args:
      reward: see `RewardFunction`; asked once.
      battles: what to judge.
      margin: the largest difference of rewards that is a tie.
      measure: an answer's length, for style control.

    Raises:
      UserError: a negative margin, or another number of rewards than answers.
    """
    if not margin >= 0:
        raise UserError(f"margin = {margin}: 0 or a positive difference of rewards")
    battles = list(battles)
    answers = [Judged(b.messages, text) for b in battles for text in (b.model_answer, b.baseline_answer)]
    rewards = reward_all(reward, answers)
    for battle, mine, theirs in zip(battles, rewards[::2], rewards[1::2], strict=True):
        gain = mine - theirs
        error = f"rewards {mine} and {theirs}" if math.isnan(gain) else ""
        for order in (1, 2):
            yield _game(battle, order, _verdict(gain if order == 2 else -gain, margin), measure, "", error)


def reward_all(reward: RewardFunction, answers: Sequence[Judged]) -> list[float]:
    """A reward of each answer.

    Raises:
      UserError: the function gives another number of them.
    """
    rewards = [float(value) for value in reward(answers)]
    if len(rewards) != len(answers):
        raise UserError(f"{len(rewards)} rewards for {len(answers)} answers")
    return rewards


def _verdict(gain: float, margin: float) -> Verdict | None:
    if math.isnan(gain):
        return None
    if abs(gain) <= margin:
        return "A=B"
    return "A>B" if gain > 0 else "B>A"


def _game(
    battle: Battle, order: Order, verdict: Verdict | None, measure: Callable[[str], float], reply: str, error: str
) -> Game:
    return Game(
        prompt_id=battle.prompt_id,
        language=battle.language,
        order=order,
        verdict=verdict,
        model=battle.model,
        baseline=battle.baseline,
        category=battle.category,
        model_style=style_of(battle.model_answer, measure),
        baseline_style=style_of(battle.baseline_answer, measure),
        reply=reply,
        error=error,
    )
