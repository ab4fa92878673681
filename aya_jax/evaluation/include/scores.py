"""INCLUDE (2411.19799): what a generated answer says, and the three numbers that are told apart by it.

A model that knows the answer may still not say it as asked. So an answer from which no single letter can be read is a format
error, and of N answers, of which P could be read and R are right (papers.md section 3):

    total accuracy = R/N        answer accuracy = R/P        format error = 1 - P/N

and total = answer · (1 - format error), exactly. Where a letter would have to be guessed (several are named, "A" may be an
article, a Cyrillic В may be a B or the third letter), the answer is unread: a wrong guess would count as knowledge.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate_sums, ratio
from aya_jax.evaluation.include.languages import relation
from aya_jax.evaluation.include.prompts import ENGLISH, LETTERS, WORDINGS, Question
from aya_jax.evaluation.statistics import wilson_interval

UNSTATED = "unstated"

# What a choice is called, beside the cue of the prompt in each language. After a word for "answer" the last letter counts, as
# reasoning comes first. "Option B is wrong" says nothing about the answer: after these words letters have to agree.
_ANSWER = (
    "correct option", "correct choice", "réponse correcte", "respuesta correcta", "risposta corretta", "resposta correta",
    "doğru seçenek", "cevap", "ответом", "правильный вариант", "правильний варіант", "الجواب", "جواب", "正解", "解答",
    "정답", "התשובה",
)  # fmt: skip
_OPTION = (
    "choice", "option", "opción", "opção", "opzione", "opsi", "optie", "opcja", "seçenek", "вариант", "варіант", "الخيار",
    "گزینه", "选项", "選項", "選択肢", "선택지", "επιλογή", "विकल्प",
)  # fmt: skip


def _after(words: Iterable[str]) -> re.Pattern[str]:
    """A letter after one of the words, with nothing but punctuation and an "is" between; not the first of a list of letters."""
    longest_first = "|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word))))
    link = r"(?:\s*(?:is|ist|es|est|è|é|это|це|to|jest|είναι|है|는|은|は|是|adalah|là|هو|هي|است|היא|הוא))?"
    letter = r"(?-i:([A-D])(?![A-Za-z0-9À-ɏ]|\s*[,、،/]\s*[A-D]\b))"
    return re.compile(rf"(?:{longest_first}){link}[\s:\-–—=*_\"'«“「(\[【]*{letter}", re.IGNORECASE)


_SAID = _after({wording.cue for wording in (ENGLISH, *WORDINGS.values())} | set(_ANSWER))
_NAMED = _after(_OPTION)
_WHOLE = re.compile(r"[\s*_\"'(\[【]*([A-D])[\s*_\"')\].:、。】]*")
_START = re.compile(r"[\s*_\"'(\[【]*([A-D])(?:[*_]*[)\].:、】]|[*_]+\s|\s*[-–—]\s|\s*\n)")
_LINE_START = re.compile(r"^[\s*_(\[【]*([A-D])[*_]*[)\].:、】]", re.MULTILINE)
_MARKED = re.compile(r"\\boxed\{\s*(?:\\text\{)?\s*([A-D])\s*\}|\*\*\s*\(?([A-D])[).:]?\s*\*\*|[(【]\s*([A-D])\s*[)】]")


@dataclass(frozen=True)
class IncludeRecord:
    """One answered question.

    Attributes:
      id, language, country, domain, subject, level, regional_feature: of the question.
      parsed: the letter's number; None for a format error.
      correct: whether it is the right one.
    """

    id: str
    language: str
    country: str
    domain: str
    subject: str
    level: str
    regional_feature: str
    parsed: int | None
    correct: bool

    @property
    def is_regional(self) -> bool:
        """Whether the question takes knowledge of a region or culture."""
        return self.regional_feature != "agnostic"


@dataclass(frozen=True)
class IncludeScores:
    """The three numbers of a set of answers.

    Attributes:
      count, parsed, right: answers, those with a letter, those with the right one.
      total_accuracy: right of all.
      answer_accuracy: right of those with a letter; undefined where there are none.
      format_error: share of answers without a letter.
    """

    count: int
    parsed: int
    right: int
    total_accuracy: Estimate
    answer_accuracy: Estimate
    format_error: Estimate


def parse_answer(text: str) -> int | None:
    """The number of the choice that an answer names, or None where it does not name one and only one.

    What counts, in order: the answer is a letter and punctuation; a letter follows a word for "answer" in one of the
    languages (the last such, as reasoning comes first); a letter with punctuation begins the answer; letters that are
    marked by brackets, bold type, \\boxed{} or a word for "option" are all the same. Full-width letters are letters; those
    of other scripts are not.
    """
    text = unicodedata.normalize("NFKC", text)
    whole = _WHOLE.fullmatch(text)
    if whole:
        return LETTERS.index(whole[1])
    said = _SAID.findall(text)
    if said:
        return LETTERS.index(said[-1])
    start = _START.match(text)
    if start and len(set(_LINE_START.findall(text))) <= 1:
        return LETTERS.index(start[1])
    marked = {next(filter(None, groups)) for groups in _MARKED.findall(text)}
    marked.update(_NAMED.findall(text))
    return LETTERS.index(marked.pop()) if len(marked) == 1 else None


def score(questions: Sequence[Question], outputs: Sequence[str]) -> list[IncludeRecord]:
    """Reads generated answers.

    Raises:
      UserError: there is not one output for each question.
    """
    return score_choices(questions, [parse_answer(output) for output in outputs])


def score_choices(questions: Sequence[Question], choices: Sequence[int | None]) -> list[IncludeRecord]:
    """Records of chosen numbers: of parsed answers, or of the likeliest letters, which have no format errors.

    Raises:
      UserError: there is not one choice for each question.
    """
    if len(questions) != len(choices):
        raise UserError(f"{len(questions)} questions and {len(choices)} answers")
    return [
        IncludeRecord(
            question.id, question.language, question.country, question.domain, question.subject, question.level,
            question.regional_feature, choice, choice == question.answer,
        )
        for question, choice in zip(questions, choices, strict=True)
    ]  # fmt: skip


def summarize(records: Sequence[IncludeRecord], bootstrap: Bootstrap | None = None) -> IncludeScores:
    """Scores of records, with intervals over questions: the bootstrap's, or Wilson's where all answers were alike."""
    outcomes = np.array([[True, record.parsed is not None, record.correct] for record in records]).reshape(-1, 3)

    def statistic(sums: np.ndarray) -> np.ndarray:
        size, parsed, right = sums.T
        return np.stack([ratio(right, size), ratio(right, parsed), ratio(size - parsed, size)], axis=1)

    found = estimate_sums(statistic, outcomes, bootstrap or Bootstrap())
    size, parsed, right = outcomes.sum(axis=0).tolist()
    of = [_share(found.at(number), items) for number, items in enumerate((size, parsed, size))]
    return IncludeScores(size, parsed, right, *of)


def split(
    records: Iterable[IncludeRecord],
    key: Callable[[IncludeRecord], str],
    bootstrap: Bootstrap | None = None,
) -> dict[str, IncludeScores]:
    """Scores of each group of records, such as by `lambda record: record.domain`; every record is in one group.

    Args:
      records: what is divided.
      key: a record's group.
      bootstrap: over the questions of each group.
    """
    groups: dict[str, list[IncludeRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: summarize(groups[name], bootstrap) for name in sorted(groups)}


def splits(
    records: Sequence[IncludeRecord], trained: Sequence[str] = (), bootstrap: Bootstrap | None = None
) -> dict[str, dict[str, IncludeScores]]:
    """The paper's splits: by regional label, regional or agnostic, domain, level, country, language, and training.

    Args:
      records: what is divided; where one does not say (a domain, say), its group is "unstated".
      trained: codes of the languages that the model was trained on; with none there is no split by training, which is
        "trained" on the language, on its "script" in another language, or "neither".
      bootstrap: over the questions of each group.
    """
    keys: dict[str, Callable[[IncludeRecord], str]] = {
        "regional_feature": lambda record: record.regional_feature,
        "regional": lambda record: "regional" if record.is_regional else "agnostic",
        "domain": lambda record: record.domain or UNSTATED,
        "level": lambda record: record.level or UNSTATED,
        "country": lambda record: record.country or UNSTATED,
        "language": lambda record: record.language,
    }
    if trained:
        keys["training"] = lambda record: relation(record.language, trained)
    return {name: split(records, key, bootstrap) for name, key in keys.items()}


def _share(found: Estimate, items: int) -> Estimate:
    """With Wilson's interval in place of one without width."""
    if found.low is None or found.low < found.high:
        return found
    return Estimate(found.value, *wilson_interval(found.value, items))
