"""Items of BBQ, StereoSet and CrowS-Pairs, from rows as they are published.

BBQ: `data/*.jsonl` of nyu-mll/BBQ. Which answer names the stereotyped group is `target_loc` of its additional_metadata.csv, by
category and example; where that file does not say it, it is told from the groups of the row, if exactly one answer has one of
them. Rows of which neither tells are left out, as BBQ's own analysis leaves them out; without the file they are an error.
StereoSet: dev.json of moinnadeem/StereoSet (gold labels are words) or the rows of the Hugging Face data set (columns of lists,
gold labels are numbers). CrowS-Pairs: crows_pairs_anonymized.csv, or the rows of the Hugging Face data set and its
translations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.records import choice_number, text_field

_ANSWERS = ("ans0", "ans1", "ans2")
_GOLD = ("anti-stereotype", "stereotype", "unrelated")  # in the order of the Hugging Face data set's class labels
_DIRECTIONS = {"stereo": True, "antistereo": False, "0": True, "1": False}


@dataclass(frozen=True)
class BbqItem:
    """One question of BBQ.

    Attributes:
      id: "<category>/<example>".
      category: such as "Age".
      ambiguous: whether the context leaves the answer open.
      negative: whether the question asks for the harmful role.
      label: the right answer's number.
      unknown: the number of the answer that is some form of "unknown".
      target: the number of the answer that names the stereotyped group.
      prompt: context and question, as lm-evaluation-harness puts them.
      answers: three.
    """

    id: str
    category: str
    ambiguous: bool
    negative: bool
    label: int
    unknown: int
    target: int
    prompt: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class StereoSetItem:
    """One context of StereoSet.

    Attributes:
      id: of the row.
      kind: "intersentence" or "intrasentence".
      target: the term that it is about.
      bias_type: "gender", "profession", "race" or "religion".
      context: what stands before the sentence, or the sentence with a blank.
      sentences: the stereotype, the anti-stereotype and the unrelated one, in this order.
    """

    id: str
    kind: str
    target: str
    bias_type: str
    context: str
    sentences: tuple[str, str, str]


@dataclass(frozen=True)
class CrowsPair:
    """One pair of CrowS-Pairs.

    Attributes:
      id: number of the row.
      bias_type: such as "race-color".
      stereo: whether the pair shows a stereotype; else it goes against one.
      more, less: the sentence that is more stereotyping, and the other.
    """

    id: str
    bias_type: str
    stereo: bool
    more: str
    less: str


def bbq_items(
    rows: Iterable[Mapping[str, Any]],
    metadata: Iterable[Mapping[str, Any]] = (),
    file: Path | str = "rows",
) -> list[BbqItem]:
    """Items from rows of BBQ.

    Args:
      rows: of the JSONL files.
      metadata: rows of additional_metadata.csv, as strings or numbers; a `target_loc` that is no answer's says nothing.
      file: what errors name.

    Raises:
      UserError: a row lacks a field or has an unusable one; or there is no metadata, and a row does not say which answer is the
        stereotyped group's.
    """
    targets = {(str(row["category"]), str(row["example_id"])): _location(row.get("target_loc")) for row in metadata}
    found = (_bbq_item(row, targets, f"{file}:{number}") for number, row in enumerate(rows, 1))
    return [item for item in found if item is not None]


def stereoset_items(rows: Iterable[Mapping[str, Any]], kind: str, file: Path | str = "rows") -> list[StereoSetItem]:
    """Items from rows of StereoSet: `json.load(...)["data"][kind]` of dev.json, or of the Hugging Face data set.

    Raises:
      UserError: a row lacks a field, or has not one sentence of each kind.
    """
    return [_stereoset_item(row, kind, f"{file}:{number}") for number, row in enumerate(rows, 1)]


def crows_pairs(rows: Iterable[Mapping[str, Any]], file: Path | str = "rows", first: int = 1) -> list[CrowsPair]:
    """Pairs from rows of CrowS-Pairs, which errors name by file and line, the first row being in line `first`.

    Raises:
      UserError: a row lacks a field or has an unusable one.
    """
    pairs = []
    for number, row in enumerate(rows):
        where = f"{file}:{number + first}"
        direction = str(row.get("stereo_antistereo"))
        if direction not in _DIRECTIONS:
            raise UserError(
                f"{where}: field 'stereo_antistereo' is {direction!r}; it has to be 'stereo' or 'antistereo'"
            )
        more, less = text_field(row, "sent_more", where), text_field(row, "sent_less", where)
        bias_type = str(row.get("bias_type"))
        pairs.append(CrowsPair(str(row.get("id", number)), bias_type, _DIRECTIONS[direction], more, less))
    return pairs


def _location(value: Any) -> int | None:
    """Of an answer, as R writes numbers; None for its NA, for an "x" of no answer, and for nothing."""
    text = str(value).strip().removesuffix(".0")
    return int(text) if text in ("0", "1", "2") else None


def _bbq_item(row: Mapping[str, Any], targets: Mapping[tuple[str, str], int | None], where: str) -> BbqItem | None:
    """None where there is metadata, and nothing says which answer is the stereotyped group's."""
    category = text_field(row, "category", where)
    example = str(row.get("example_id"))
    answers = tuple(text_field(row, name, where) for name in _ANSWERS)
    info = row.get("answer_info")
    if not isinstance(info, Mapping) or not all(isinstance(info.get(name), Sequence) for name in _ANSWERS):
        raise UserError(f"{where}: field 'answer_info' is {info!r}; it has to have the groups of ans0, ans1 and ans2")
    groups = [[str(group) for group in info[name]] for name in _ANSWERS]
    unknown = [number for number, of_answer in enumerate(groups) if "unknown" in of_answer]
    if len(unknown) != 1:
        raise UserError(f"{where}: field 'answer_info': {len(unknown)} answers are 'unknown'; one has to be")
    label = choice_number(row.get("label"), where, "label")
    target = targets.get((category, example))
    if target is None:
        found = _stereotyped(row, groups, unknown[0], where)
        if len(found) != 1 and targets:
            return None
        if len(found) != 1:
            raise UserError(
                f"{where}: field 'answer_info': {len(found)} answers are of a stereotyped group, one has to be; put BBQ's "
                "additional_metadata.csv beside it, whose 'target_loc' says which it is"
            )
        target = found[0]
    if label > 2 or not 0 <= target <= 2 or target == unknown[0]:
        raise UserError(f"{where}: label {label} and target {target}; both are 0 to 2, and the target is not 'unknown'")
    return BbqItem(
        id=f"{category}/{example}",
        category=category,
        ambiguous=_one_of(row, "context_condition", ("ambig", "disambig"), where) == "ambig",
        negative=_one_of(row, "question_polarity", ("neg", "nonneg"), where) == "neg",
        label=label,
        unknown=unknown[0],
        target=target,
        prompt=f"{text_field(row, 'context', where)}\n\nQ: {text_field(row, 'question', where)}\nA:",
        answers=answers,
    )


def _stereotyped(row: Mapping[str, Any], groups: Sequence[Sequence[str]], unknown: int, where: str) -> list[int]:
    """The answers that have a stereotyped group among their groups."""
    metadata = row.get("additional_metadata")
    stereotyped = metadata.get("stereotyped_groups") if isinstance(metadata, Mapping) else None
    if not isinstance(stereotyped, Sequence) or isinstance(stereotyped, str):
        raise UserError(f"{where}: field 'additional_metadata.stereotyped_groups' is missing")
    wanted = {str(group).casefold() for group in stereotyped}
    return [
        number
        for number, of_answer in enumerate(groups)
        if number != unknown and wanted & {group.casefold() for group in of_answer}
    ]


def _stereoset_item(row: Mapping[str, Any], kind: str, where: str) -> StereoSetItem:
    sentences = row.get("sentences")
    if isinstance(sentences, Mapping):
        pairs = list(zip(sentences.get("gold_label", ()), sentences.get("sentence", ()), strict=False))
    elif isinstance(sentences, Sequence) and all(isinstance(sentence, Mapping) for sentence in sentences):
        pairs = [(sentence.get("gold_label"), sentence.get("sentence")) for sentence in sentences]
    else:
        raise UserError(f"{where}: field 'sentences' is {sentences!r}; it has to be three sentences with gold labels")
    named = {(_GOLD[gold] if isinstance(gold, int) and 0 <= gold < len(_GOLD) else gold): text for gold, text in pairs}
    if len(pairs) != len(_GOLD) or set(named) != set(_GOLD):
        raise UserError(
            f"{where}: field 'sentences': gold labels {[gold for gold, _ in pairs]}; each kind has to be there once"
        )
    return StereoSetItem(
        id=str(row.get("id")),
        kind=kind,
        target=text_field(row, "target", where),
        bias_type=text_field(row, "bias_type", where),
        context=text_field(row, "context", where),
        sentences=(named["stereotype"], named["anti-stereotype"], named["unrelated"]),
    )


def _one_of(row: Mapping[str, Any], name: str, known: Sequence[str], where: str) -> str:
    value = row.get(name)
    if value not in known:
        raise UserError(f"{where}: field {name!r} is {value!r}; it has to be {' or '.join(map(repr, known))}")
    return str(value)
