"""MT-Bench: answers graded alone, from 1 to 10, turn by turn (Zheng et al. 2023, arXiv 2306.05685; FastChat's llm_judge).

Each turn's answer has a grade of its own; that to a second turn is graded with the first turn and its answer before it. A
turn's score is the mean grade of its answers, and the model's the mean of all grades, of both turns (FastChat's show_result).
A reply without a grade is left out and counted. Intervals draw questions with all of their turns, in all languages at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.judging.asking import Question, ask, judge_sampling
from aya_jax.evaluation.judging.config import GradeConfig, JudgeConfig
from aya_jax.evaluation.judging.load import EvalPrompt, load_prompts
from aya_jax.evaluation.judging.prompts import grade_prompt
from aya_jax.evaluation.judging.resampling import Estimate, estimates, sums
from aya_jax.evaluation.judging.sitting import Sitting, Work, all_answers_of
from aya_jax.evaluation.judging.verdicts import parse_rating
from aya_jax.evaluation.results import Sample, plain
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Generator

FAMILY = "mt_bench"


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question with a model's answer to each of its turns.

    Attributes:
      prompt: the question.
      answers: one for each turn.
    """

    prompt: EvalPrompt
    answers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Grade:
    """One answer, graded.

    Attributes:
      prompt_id, language, category: of the question.
      turn: from 1.
      rating: from 1 to 10; None where the judge's reply holds none, or never came.
      referenced: whether the judge was shown a reference answer.
      reply: what the judge said.
      error: why there is no rating.
    """

    prompt_id: str
    language: str
    category: str
    turn: int
    rating: float | None
    referenced: bool = False
    reply: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Graded:
    """The mean of some grades.

    Attributes:
      score: from 1 to 10; NaN if nothing was graded.
      graded: answers with a grade.
      unparsed: answers without.
    """

    score: Estimate
    graded: int
    unparsed: int


@dataclass(frozen=True, kw_only=True)
class LanguageGrades:
    """One language.

    Attributes:
      overall: of all grades.
      turns: by turn, "1" first.
      categories: by category, of all turns.
    """

    overall: Graded
    turns: dict[str, Graded]
    categories: dict[str, Graded]


def grade_work(config: JudgeConfig, what: GradeConfig) -> Work:
    """Grades of one model's answers.

    Raises:
      UserError: a file is wrong, or an answer to a turn missing.
    """
    del config
    answered = load_answered(what.answers, what.language)
    calls = sum(len(one.answers) for one in answered)
    return Work(
        calls=calls,
        cost=f"{calls:,} answers to {len(answered):,} questions to be graded, each alone.",
        files=(what.answers,),
        ask=lambda sitting: _graded(sitting, answered, what),
        kind="benchmarks",
    )


def load_answered(file: str, language: str | None) -> list[Answered]:
    """Questions with answers to all of their turns, from a file of `aya generate`.

    Raises:
      UserError: a row is wrong, or has fewer answers than turns.
    """
    answers = all_answers_of(file, language)
    found = []
    for prompt in load_prompts(file, language=language):
        texts = answers[prompt.key]
        if len(texts) < len(prompt.turns):
            raise UserError(
                f"{file}: question {prompt.id!r} ({prompt.language}) has {len(prompt.turns)} turns and {len(texts)} answers; "
                "write them with `aya generate --chat` over rows with `turns`"
            )
        found.append(Answered(prompt=prompt, answers=texts[: len(prompt.turns)]))
    return found


def judge_grades(
    judge: Generator,
    answered: Iterable[Answered],
    *,
    references: Sequence[str] = ("math", "reasoning", "coding"),
    name_language: bool = False,
    sampling: SamplingConfig | None = None,
) -> Iterator[Grade]:
    """Yields a grade of every answer as the judge's replies come.

    Args:
      judge: any generator.
      answered: questions and answers.
      references: categories in which the judge is shown the question's reference answer, where it has one.
      name_language: tell the judge which language the question is in.
      sampling: of the judge's replies; None: `judge_sampling()`, temperature 0.

    Raises:
      UserError: a question comes twice, or as `Generator.generate`.
    """

    def questions() -> Iterator[Question[tuple[EvalPrompt, int, bool]]]:
        for one in answered:
            for turn in range(len(one.answers)):
                reference = _reference(one.prompt, turn, references)
                language = one.prompt.language if name_language else None
                messages = grade_prompt(_before(one, turn), one.answers[turn], reference=reference, language=language)
                name = f"{one.prompt.language}/{one.prompt.id}/{turn + 1}"
                yield Question(name, messages, (one.prompt, turn + 1, bool(reference)))

    for reply in ask(judge, questions(), sampling or judge_sampling(max_tokens=2048)):
        prompt, turn, referenced = reply.about
        rating = parse_rating(reply.text)
        yield Grade(
            prompt_id=prompt.id,
            language=prompt.language,
            category=prompt.category,
            turn=turn,
            rating=rating,
            referenced=referenced,
            reply=reply.text,
            error="" if rating is not None else reply.error or "the reply holds no grade from 1 to 10",
        )


def _before(one: Answered, turn: int) -> tuple[Message, ...]:
    """The conversation that the answer to a turn (from 0) answers."""
    messages = [Message("user", one.prompt.turns[0])]
    for k in range(turn):
        messages += [Message("assistant", one.answers[k]), Message("user", one.prompt.turns[k + 1])]
    return tuple(messages)


def _reference(prompt: EvalPrompt, turn: int, categories: Sequence[str]) -> str:
    return prompt.references[turn] if prompt.category in categories and turn < len(prompt.references) else ""


def grade_scores(
    grades: Sequence[Grade], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[dict[str, LanguageGrades], Estimate]:
    """Means by language, turn and category, and the mean over languages (NaN where one has none).

    Raises:
      UserError: an answer was graded twice.
    """
    counted = Counter((grade.language, grade.prompt_id, grade.turn) for grade in grades)
    if counted and counted.most_common(1)[0][1] > 1:
        language, prompt_id, turn = counted.most_common(1)[0][0]
        raise UserError(f"turn {turn} of question {prompt_id!r} ({language}) was graded twice")
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    overall, macro = _means(grades, lambda grade: grade.language, options)
    found = {}
    for language in sorted({grade.language for grade in grades}):
        own = [grade for grade in grades if grade.language == language]
        found[language] = LanguageGrades(
            overall=overall[language],
            turns=_means(own, lambda grade: str(grade.turn), options)[0],
            categories=_means([g for g in own if g.category], lambda grade: grade.category, options)[0],
        )
    return found, macro


def _means(
    grades: Sequence[Grade], group: Callable[[Grade], str], options: dict[str, Any]
) -> tuple[dict[str, Graded], Estimate]:
    table = sums((group(g), g.prompt_id, g.rating or 0.0, float(g.rating is not None)) for g in grades)
    found, macro = estimates(table, percent=False, **options)
    given, missing = (Counter(group(g) for g in grades if (g.rating is None) == unread) for unread in (False, True))
    return {n: Graded(score=score, graded=given[n], unparsed=missing[n]) for n, score in found.items()}, macro


def _graded(sitting: Sitting, answered: list[Answered], what: GradeConfig) -> tuple[dict[str, Any], list[Sample]]:
    judged = judge_grades(sitting.judge, answered, references=what.references, **sitting.asking)
    grades = sorted(judged, key=lambda grade: (grade.language, grade.prompt_id, grade.turn))
    languages, macro = grade_scores(grades, **sitting.options)
    found = {
        "grades": {"languages": languages, "macro": macro},
        "unparsed": [(g.language, g.prompt_id, g.turn, g.error) for g in grades if g.rating is None][:20],
    }
    return found, _samples(answered, grades)


def _samples(answered: list[Answered], grades: list[Grade]) -> list[Sample]:
    """A record of each question: a tenth of its mean grade and of each turn's, so that two models can be compared."""
    by_question: dict[tuple[str, str], list[Grade]] = {}
    for grade in grades:
        by_question.setdefault((grade.language, grade.prompt_id), []).append(grade)
    samples = []
    for one in answered:
        given = by_question[one.prompt.key]
        ratings = {f"turn_{grade.turn}": grade.rating / 10.0 for grade in given if grade.rating is not None}
        samples.append(
            Sample(
                id=f"{FAMILY}_{one.prompt.language}/{one.prompt.id}",
                task=f"{FAMILY}_{one.prompt.language}",
                family=FAMILY,
                item=one.prompt.id,
                language=one.prompt.language,
                metrics={"rating": float(np.mean(list(ratings.values()))), **ratings} if ratings else {},
                prediction=one.answers[-1],
                target=None,
                prompt=one.prompt.turns[-1],
                doc={
                    "turns": one.prompt.turns,
                    "answers": one.answers,
                    "category": one.prompt.category,
                    "grades": plain([asdict(grade) for grade in given]),
                },
            )
        )
    return samples
