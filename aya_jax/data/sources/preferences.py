"""Judged answers: pairs, one preferred to the other, from records of the usual layouts, and single ones with a value.

Every pair becomes `{"prompt": [...], "chosen": [...], "rejected": [...]}`, lists of messages, and `"margin"` where the
record says by how much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aya_jax.data.sources.messages import Message, Turns, find_problem, from_columns, from_hh, from_list, is_hh

SIDES = ("chosen", "rejected")
_PROMPTS = ("prompt", "question", "instruction", "input")
_SYSTEMS = ("system", "system_prompt")
_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))
Pair = tuple[list[Message], list[Message], list[Message]]


def preference(fields: Mapping[str, Any], turns: Turns = ()) -> dict[str, Any] | str:
    """The document of a pair, or what is wrong with the record.

    Layouts: `chosen` and `rejected` as texts beside a prompt (`prompt`, `question`, `instruction` or `input`, with a `system`
    column where there is one); as lists of messages, which follow a prompt that is a list too and else are whole
    conversations (their common beginning is the prompt); as hh-rlhf's texts of whole conversations. `turns` names the columns
    of another layout, with the roles "chosen" and "rejected". The margin is in `margin`, or the difference of
    `score_chosen` and `score_rejected`.
    """
    pair = _find_pair(fields, turns)
    if isinstance(pair, str):
        return pair
    prompt, chosen, rejected = pair
    for side, answer in zip(SIDES, (chosen, rejected), strict=True):
        if not answer:
            return f"{side} adds nothing to the prompt: it has no turn of its own"
        problem = find_problem([*prompt, *answer])
        if problem is not None:
            return f"{side}: {problem}"
        if answer[0]["role"] != "assistant":
            return f"{side}: the answer begins with the {answer[0]['role']}'s turn, where the assistant's was expected"
    if chosen == rejected:
        return "chosen and rejected are the same: there is nothing to prefer"
    margin = _margin(fields)
    if isinstance(margin, str):
        return margin
    document: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return document if margin is None else document | {"margin": margin}


def _find_pair(fields: Mapping[str, Any], turns: Turns) -> Pair | str:
    if turns:
        prompt = tuple(turn for turn in turns if turn[0] not in SIDES)
        return _texts(fields, prompt, dict(turns))
    missing = [side for side in SIDES if side not in fields]
    if missing:
        there = ", ".join(list(fields)[:12]) or "none"
        return (
            f"no pair: {' and '.join(missing)} missing (fields: {there}); name other columns in turns: (('user', FIELD), "
            "('chosen', FIELD), ('rejected', FIELD))"
        )
    chosen, rejected = (fields[side] for side in SIDES)
    if is_hh(chosen) and is_hh(rejected):
        return _split(from_hh(chosen), from_hh(rejected))
    if _is_list(chosen) or _is_list(rejected):
        return _lists(fields)
    prompt = next((name for name in _PROMPTS if name in fields), None)
    if prompt is None:
        return f"no prompt beside chosen and rejected: none of the fields {', '.join(_PROMPTS)}"
    systems = [("system", name) for name in _SYSTEMS if fields.get(name)]
    return _texts(fields, (*systems[:1], ("user", prompt)), {side: side for side in SIDES})


def _texts(fields: Mapping[str, Any], prompt: Turns, columns: Mapping[str, str]) -> Pair | str:
    """A pair of which every turn is a column."""
    found = [from_columns(fields, prompt), *(from_columns(fields, (("assistant", columns[side]),)) for side in SIDES)]
    problem = next((each for each in found if isinstance(each, str)), None)
    return problem if problem is not None else tuple(found)  # type: ignore[return-value]


def _lists(fields: Mapping[str, Any]) -> Pair | str:
    """A pair of lists of messages."""
    answers = [from_list(fields[side], side) for side in SIDES]
    problem = next((each for each in answers if isinstance(each, str)), None)
    if problem is not None:
        return problem
    if not _is_list(fields.get("prompt")):
        return _split(*answers)
    prompt = from_list(fields["prompt"], "prompt")
    return prompt if isinstance(prompt, str) else (prompt, *answers)


def _split(chosen: list[Message], rejected: list[Message]) -> Pair | str:
    """Two whole conversations as what they share and what they do not."""
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if chosen == rejected:
        return "chosen and rejected are the same: there is nothing to prefer"
    if not same:
        return "chosen and rejected do not begin with the same turn, so they answer no common prompt"
    return chosen[:same], chosen[same:], rejected[same:]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | Mapping) and not isinstance(value, str | bytes)


def _margin(fields: Mapping[str, Any]) -> float | str | None:
    """By how much chosen is preferred; None where the record does not say."""
    scores = next((pair for pair in _SCORES if all(name in fields for name in pair)), None)
    names = ("margin",) if "margin" in fields else scores
    if names is None:
        return None
    values = [_number(fields, name) for name in names]
    problem = next((value for value in values if isinstance(value, str)), None)
    return problem or (values[0] if len(values) == 1 else values[0] - values[1])


def _number(fields: Mapping[str, Any], name: str) -> float | str:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return f"field {name!r} is {value!r}, not a finite number"
    return float(value)


def scored(fields: Mapping[str, Any], turns: Turns = ()) -> dict[str, Any] | str:
    """The document of a judged answer (`prompt` and `answer`, lists of messages, and `value`), or what is wrong with it."""
    del turns
    prompt, answer = (from_list(fields.get(name), name) for name in ("prompt", "answer"))
    problem = next((each for each in (prompt, answer) if isinstance(each, str)), None) or find_problem(
        [*prompt, *answer]
    )
    if problem is not None:
        return problem
    value = _number(fields, "value")
    return value if isinstance(value, str) else {"prompt": prompt, "answer": answer, "value": value}
