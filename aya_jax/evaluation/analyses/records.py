"""Records of multiple-choice questions: a plain form, and rows as lm-evaluation-harness logs them.

A plain row says `id`, `language`, `label` (the right choice's number or letter) and `scores` (a log-probability for each
choice) or `correct`; everything else in it is metadata. A row of the harness (`--log_samples`) has the question in `doc`,
the right choice in `target`, and in `filtered_resps` (or `resps`) one [log-probability, is-greedy] for each choice, as
strings in files and as numbers in memory; `acc` is whether it counted the answer right. Its language is that of its task,
which the row does not say.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aya_jax.config.errors import UserError

_PLAIN = ("id", "language", "label", "scores", "correct")


@dataclass(frozen=True)
class ChoiceRecord:
    """One answered multiple-choice question.

    Attributes:
      id: of the question; translations of one question share it.
      language: ISO 639 code.
      correct: whether the model's choice was right.
      label: number of the right choice; None where the row does not say.
      scores: log-probability of each choice; empty where the row has none.
      metadata: all other fields of the row, or of its `doc`.
    """

    id: str
    language: str
    correct: bool
    label: int | None = None
    scores: tuple[float, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def choice_records(
    rows: Iterable[Mapping[str, Any]], *, language: str | None = None, file: Path | str = "rows"
) -> list[ChoiceRecord]:
    """Records from plain rows, or from rows of lm-evaluation-harness, which may be mixed.

    Args:
      rows: see the module.
      language: of rows that do not say theirs.
      file: what errors name.

    Raises:
      UserError: a row lacks a field or has an unusable one; names file, line and field.
    """
    records = []
    for number, row in enumerate(rows, 1):
        where = f"{file}:{number}"
        read = _harness_record if "doc" in row else _plain_record
        records.append(read(row, language, where))
    return records


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """A field of a row that has to be a string.

    Raises:
      UserError: it is absent or something else.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {value!r}; it has to be a string")
    return value


def choice_number(value: Any, where: str, name: str) -> int:
    """A choice as a number from 0: given as such, as its digits, or as a letter.

    Raises:
      UserError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        if len(text) == 1 and text.upper() in string.ascii_uppercase:
            return ord(text.upper()) - ord("A")
        if text.isdecimal():
            return int(text)
    raise UserError(f"{where}: field {name!r} is {value!r}; it has to be the number of a choice, from 0, or its letter")


def _plain_record(row: Mapping[str, Any], language: str | None, where: str) -> ChoiceRecord:
    label = None if row.get("label") is None else choice_number(row["label"], where, "label")
    scores = _scores(row.get("scores") or (), where, "scores")
    return ChoiceRecord(
        id=str(_required(row, "id", where)),
        language=str(row.get("language") or language or _required(row, "language", where)),
        correct=_correct(row.get("correct"), label, scores, where, "correct"),
        label=label,
        scores=scores,
        metadata={name: value for name, value in row.items() if name not in _PLAIN},
    )


def _harness_record(row: Mapping[str, Any], language: str | None, where: str) -> ChoiceRecord:
    doc = row["doc"]
    if not isinstance(doc, Mapping):
        raise UserError(f"{where}: field 'doc' is {doc!r}; it has to be an object")
    label = choice_number(_required(row, "target", where), where, "target")
    responses = row.get("filtered_resps") or row.get("resps") or ()
    # `resps` has a list of repeats for each choice, `filtered_resps` the one that counts.
    first = [response[0] if isinstance(response, list | tuple) else response for response in responses]
    first = [response[0] if isinstance(response, list | tuple) else response for response in first]
    scores = _scores(first, where, "filtered_resps")
    return ChoiceRecord(
        id=str(doc.get("sample_id") or doc.get("id") or _required(row, "doc_id", where)),
        language=str(language or doc.get("language_code") or doc.get("language") or _required(row, "language", where)),
        correct=_correct(row.get("acc"), label, scores, where, "acc"),
        label=label,
        scores=scores,
        metadata=dict(doc),
    )


def _required(row: Mapping[str, Any], name: str, where: str) -> Any:
    value = row.get(name)
    if value is None or value == "":
        raise UserError(f"{where}: field {name!r} is missing")
    return value


def _scores(values: Iterable[Any], where: str, name: str) -> tuple[float, ...]:
    try:
        scores = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{where}: field {name!r}: {error}; it has to be one log-probability for each choice"
        ) from error
    if any(math.isnan(score) or score == math.inf for score in scores):
        raise UserError(f"{where}: field {name!r} is {scores}; log-probabilities are finite, or -inf")
    return scores


def _correct(given: Any, label: int | None, scores: tuple[float, ...], where: str, name: str) -> bool:
    """As the row says; else whether the likeliest choice, the first of equals, is the right one."""
    if given is not None:
        if given not in (0, 1):
            raise UserError(f"{where}: field {name!r} is {given!r}; it has to be true or false, or 1 or 0")
        return bool(given)
    if label is None or not scores:
        raise UserError(f"{where}: field {name!r} is missing, and there is no label with scores to tell it from")
    if label >= len(scores):
        raise UserError(f"{where}: the right choice is number {label}, and there are {len(scores)} scores")
    return scores.index(max(scores)) == label
