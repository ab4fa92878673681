"""Global-MMLU (2412.03304): accuracy on culturally sensitive and agnostic questions, and by kind of language.

2,850 of MMLU's questions were annotated (MA): culturally sensitive (CS) if answering takes knowledge of a culture, a region or
a dialect, else culturally agnostic (CA). A question has one `sample_id` ("subject/split/n") in all 42 languages, so the
bootstrap draws questions, each with all of its translations: languages are not independent samples.

Facts are those of papers.md section 2. What the paper leaves open is decided here: the spread over languages is the sample
standard deviation (n - 1 in the denominator); means over languages weigh languages equally.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.records import ChoiceRecord
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate, ratio

# fmt: off
RESOURCES: Mapping[str, tuple[str, ...]] = {
    "high": ("ar", "zh", "cs", "nl", "en", "fr", "de", "hi", "it", "ja", "fa", "pl", "pt", "ru", "es", "sv", "tr", "vi"),
    "mid": ("bn", "fil", "el", "he", "id", "ko", "lt", "ms", "ro", "sr", "uk"),
    "low": ("am", "ha", "ig", "ky", "mg", "ne", "ny", "sn", "si", "so", "sw", "te", "yo"),
}
HUMAN_TRANSLATED = ("ar", "fr", "hi", "es", "bn", "zh", "de", "id", "it", "ja", "ko", "pt", "sw", "yo")
"""Post-edited by professionals, or from MMMLU: 14, which the paper reports with English beside them."""
# fmt: on
LANGUAGES = tuple(sorted(language for level in RESOURCES.values() for language in level))
GROUPS: Mapping[str, tuple[str, ...]] = {"all": LANGUAGES, **RESOURCES, "human": (*HUMAN_TRANSLATED, "en")}
SUBSETS = ("all", "MA", "CS", "CA")
TEST_QUESTIONS = 14_042


class Counts(NamedTuple):
    """Annotated questions of a subject category, as published: how many subjects have any, and how many there are."""

    ma_subjects: int
    cs_subjects: int
    ca_subjects: int
    ma: int
    cs: int
    ca: int


COUNTS: Mapping[str, Counts] = {
    "STEM": Counts(19, 11, 19, 950, 23, 927),
    "Humanities": Counts(13, 12, 11, 650, 442, 208),
    "Social Sciences": Counts(12, 11, 12, 600, 208, 392),
    "Medical": Counts(7, 5, 7, 350, 19, 331),
    "Business": Counts(4, 4, 4, 200, 36, 164),
    "Other": Counts(2, 2, 2, 100, 64, 36),
}


@dataclass(frozen=True)
class Answers:
    """One model's answers to the same questions in several languages.

    Attributes:
      languages: the dim L.
      questions: sample ids, the dim Q.
      correct: 0, 1, or NaN where a language lacks the question; float64 [L, Q].
      labels: "CS", "CA", or "-" where a question is not annotated; [Q].
      subjects, categories: of each question; [Q].
    """

    languages: tuple[str, ...]
    questions: tuple[str, ...]
    correct: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    categories: np.ndarray

    def mask(self, subset: str) -> np.ndarray:
        """Which questions are in one of `SUBSETS`; bool [Q]."""
        if subset == "all":
            return np.ones(len(self.questions), bool)
        return self.labels != "-" if subset == "MA" else self.labels == subset


class Spread(NamedTuple):
    """Accuracy over a group of languages.

    Attributes:
      languages: those of the group that there are answers in.
      mean: of their accuracies.
      deviation: their sample standard deviation; None for fewer than two.
    """

    languages: tuple[str, ...]
    mean: Estimate
    deviation: Estimate


def tabulate(records: Sequence[ChoiceRecord], file: str = "records") -> Answers:
    """Arranges records by language and question.

    Args:
      records: with the published columns in their metadata: cultural_sensitivity_label, is_annotated, subject and
        subject_category; ids are sample ids.
      file: what errors name.

    Raises:
      UserError: a column is missing or unusable, a language has a question twice, or translations of a question differ in
        their columns.
    """
    languages = tuple(dict.fromkeys(record.language for record in records))
    columns: dict[str, tuple[str, str, str]] = {}
    numbers: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        found = _columns(record, f"{file}:{number}")
        if columns.setdefault(record.id, found) != found:
            raise UserError(
                f"{file}:{number}: question {record.id!r} has the label, subject and category {found} in language "
                f"{record.language!r}, and {columns[record.id]} before"
            )
        numbers.setdefault(record.id, len(numbers))
    correct = np.full((len(languages), len(numbers)), np.nan)
    rows = {language: row for row, language in enumerate(languages)}
    for number, record in enumerate(records, 1):
        at = rows[record.language], numbers[record.id]
        if not np.isnan(correct[at]):
            raise UserError(f"{file}:{number}: question {record.id!r} is there twice in language {record.language!r}")
        correct[at] = record.correct
    labels, subjects, categories = np.array(list(columns.values()), dtype=object).reshape(-1, 3).T
    return Answers(languages, tuple(numbers), correct, labels, subjects, categories)


def counted(answers: Answers) -> dict[str, Counts]:
    """The counts of `COUNTS`, of the questions that there are."""
    table = {}
    for category in dict.fromkeys(answers.categories):
        masks = [answers.mask(subset) & (answers.categories == category) for subset in ("MA", "CS", "CA")]
        subjects = (len(set(answers.subjects[mask])) for mask in masks)
        table[category] = Counts(*subjects, *(int(mask.sum()) for mask in masks))
    return table


def accuracy(
    answers: Answers,
    subsets: Iterable[str] = SUBSETS,
    bootstrap: Bootstrap | None = None,
    category: str | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Accuracy by subset and language, each question counting once.

    Args:
      answers: one model's.
      subsets: of `SUBSETS`.
      bootstrap: over questions, drawn within the subset.
      category: only questions of this subject category.
    """
    table = {}
    for subset in subsets:
        correct = _chosen(answers, subset, category)
        found = estimate(lambda counts, of=correct: _accuracies(counts, of), correct.shape[1], bootstrap or Bootstrap())
        table[subset] = {language: found.at(row) for row, language in enumerate(answers.languages)}
    return table


def spread(
    answers: Answers,
    subsets: Iterable[str] = SUBSETS,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    bootstrap: Bootstrap | None = None,
) -> dict[str, dict[str, Spread]]:
    """Mean and standard deviation of accuracy over languages, by subset and group of languages.

    Questions are drawn jointly for all languages. A group of which there are no answers is left out.

    Args:
      answers: one model's.
      subsets: of `SUBSETS`.
      groups: name → languages.
      bootstrap: over questions, drawn within the subset.
    """
    members = {
        name: [row for row, language in enumerate(answers.languages) if language in group]
        for name, group in groups.items()
    }
    members = {name: rows for name, rows in members.items() if rows}
    table = {}
    for subset in subsets:
        correct = _chosen(answers, subset)

        def statistic(counts: np.ndarray, correct: np.ndarray = correct) -> np.ndarray:
            accuracies = _accuracies(counts, correct)
            return np.stack([_mean_and_deviation(accuracies[:, rows]) for rows in members.values()], axis=1)

        found = estimate(statistic, correct.shape[1], bootstrap or Bootstrap())
        table[subset] = {
            name: Spread(tuple(answers.languages[row] for row in rows), found.at(number, 0), found.at(number, 1))
            for number, (name, rows) in enumerate(members.items())
        }
    return table


def _columns(record: ChoiceRecord, where: str) -> tuple[str, str, str]:
    """Label, subject and category of a record."""
    values = []
    for name in ("subject", "subject_category"):
        value = record.metadata.get(name)
        if not isinstance(value, str) or not value:
            raise UserError(f"{where}: field {name!r} is {value!r}; it has to be a string")
        values.append(value)
    annotated, label = record.metadata.get("is_annotated"), record.metadata.get("cultural_sensitivity_label")
    if not isinstance(annotated, bool):
        raise UserError(f"{where}: field 'is_annotated' is {annotated!r}; it has to be true or false")
    if annotated and label not in ("CS", "CA"):
        raise UserError(
            f"{where}: field 'cultural_sensitivity_label' is {label!r}; an annotated question has 'CS' or 'CA'"
        )
    return (str(label) if annotated else "-", *values)


def _chosen(answers: Answers, subset: str, category: str | None = None) -> np.ndarray:
    """Answers to the questions of a subset; [L, Q]."""
    if subset not in SUBSETS:
        raise UserError(f"subset {subset!r}: known are {', '.join(SUBSETS)}")
    mask = answers.mask(subset)
    return answers.correct[:, mask if category is None else mask & (answers.categories == category)]


def _accuracies(counts: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Copies of questions [R, Q] and answers [L, Q] → accuracies [R, L]; NaN for a language without answers."""
    there = ~np.isnan(correct)
    return ratio(counts @ np.where(there, correct, 0.0).T, counts @ there.T.astype(np.float64))


def _mean_and_deviation(accuracies: np.ndarray) -> np.ndarray:
    """Over languages that have answers: [R, L] → [R, 2]."""
    there = ~np.isnan(accuracies)
    number = there.sum(axis=1)
    mean = ratio(np.where(there, accuracies, 0.0).sum(axis=1), number)
    squares = np.where(there, accuracies - mean[:, None], 0.0) ** 2
    variance = ratio(squares.sum(axis=1), np.maximum(number - 1, 0))
    return np.stack([mean, np.sqrt(variance)], axis=1)
