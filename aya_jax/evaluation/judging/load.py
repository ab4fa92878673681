"""Prompts of open-ended benchmarks, whichever of their layouts a file has.

| benchmark | id | prompt | more |
| --- | --- | --- | --- |
| Arena-Hard v0.1, v2.0 | uid | prompt | category; cluster or subcategory |
| m-ArenaHard (a file for each language) | question_id | prompt | category, cluster |
| MT-bench, Vicuna | question_id | turns | category, reference |
| Dolly-200, aya_evaluation_suite | source_id, else id | inputs | targets, language |

`source_id` is preferred because it is the same in every language: intervals draw a prompt in all of its languages at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.evaluation.rows import Row, read_rows


@dataclass(frozen=True, kw_only=True)
class EvalPrompt:
    """What models are asked.

    Attributes:
      id: shared by the prompt's translations; unique within a language.
      language: its code, as the benchmark spells it.
      turns: what the user says, turn by turn; most benchmarks have one.
      category, cluster: as the benchmark groups it; "" where it does not.
      references: good answers, one for each turn, where the benchmark has them.
    """

    id: str
    language: str
    turns: tuple[str, ...]
    category: str = ""
    cluster: str = ""
    references: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(language, id): what answers are looked up by."""
        return self.language, self.id

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that a model answers first: the first turn."""
        return (Message("user", self.turns[0]),)


def load_prompts(path: str | os.PathLike[str], *, language: str | None = None) -> list[EvalPrompt]:
    """The prompts of a .jsonl or .jsonl.gz file in any layout of the module's docstring.

    Args:
      path: the file.
      language: of rows that do not name their own.

    Raises:
      UserError: naming file, line and field: a row without prompt, id or language, or an id twice in a language.
    """
    prompts: list[EvalPrompt] = []
    seen: dict[tuple[str, str], int] = {}
    for row in read_rows(path):
        prompt = _prompt(row, language)
        if prompt.key in seen:
            raise row.problem("id", f"is {prompt.id!r} again, for {prompt.language} as in line {seen[prompt.key]}")
        seen[prompt.key] = row.line
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"{os.fspath(path)}: no rows")
    return prompts


def _prompt(row: Row, language: str | None) -> EvalPrompt:
    if language is None or row.fields.get("language"):
        language = row.text("language")
    turns = row.fields.get("turns")
    return EvalPrompt(
        id=row.id("question_id", "uid", "source_id", "id"),
        language=language,
        turns=_texts(row, "turns") if turns is not None else (row.text("prompt", "inputs"),),
        category=_optional(row, "category"),
        cluster=_optional(row, "cluster", "subcategory"),
        references=_texts(row, "reference") if row.fields.get("reference") else _target(row),
    )


def _texts(row: Row, name: str) -> tuple[str, ...]:
    value = row.fields[name]
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise row.problem(name, f"is {value!r:.60}; a list of texts is needed")
    return tuple(value)


def _target(row: Row) -> tuple[str, ...]:
    target = _optional(row, "targets")
    return (target,) if target else ()


def _optional(row: Row, *names: str) -> str:
    value = next((row.fields[name] for name in names if row.fields.get(name) is not None), "")
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise row.problem(names[0], f"is {value!r:.60}, and not a text")
    return str(value)
