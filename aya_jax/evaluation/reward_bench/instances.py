"""Pairs of a reward benchmark, and what a reward model or judge made of each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.data.chat import Message
from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, Subsets, cell_of
from aya_jax.evaluation.rows import Row, read_rows

Preferred = Literal["chosen", "rejected", "neither"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A prompt with a better and a worse answer.

    Attributes:
      id: shared by the pair's translations; unique within a language.
      language: its code, as the benchmark spells it.
      subset: where it is from.
      prompt, chosen, rejected: texts.
    """

    id: str
    language: str
    subset: str
    prompt: str
    chosen: str
    rejected: str

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that is answered."""
        return (Message("user", self.prompt),)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was made of an instance: the record that scores are computed from.

    Attributes:
      id, language, subset: the instance's.
      credit: 1 if the better answer was preferred, 0 if not, between them as the kind of model has it (`credit`).
      preferred: which answer; "neither" for a tie, a judge that changes its mind with the order, or nothing that can be read.
      unparsed: how many replies or rewards could not be read.
      error: why.
    """

    id: str
    language: str
    subset: str
    credit: float
    preferred: Preferred
    unparsed: int = 0
    error: str = ""


def load_instances(
    path: str | os.PathLike[str], *, subsets: Subsets = M_REWARD_BENCH, language: str | None = None
) -> list[Instance]:
    """Rows of M-RewardBench, its translation task among them, or RewardBench: id, language, prompt, chosen, rejected, subset.

    Args:
      path: a .jsonl or .jsonl.gz file.
      subsets: the benchmark's.
      language: of rows that do not name their own, as RewardBench's ("eng_Latn").

    Raises:
      UserError: naming file, line and field: something is missing, a subset is unknown, or an id comes twice.
    """
    found: list[Instance] = []
    seen: dict[tuple[str, str], int] = {}
    for row in read_rows(path):
        instance = _instance(row, subsets, language)
        key = instance.language, instance.id
        if key in seen:
            raise row.problem("id", f"is {instance.id!r} again, for {instance.language} as in line {seen[key]}")
        seen[key] = row.line
        found.append(instance)
    if not found:
        raise UserError(f"{os.fspath(path)}: no rows")
    return found


def _instance(row: Row, subsets: Subsets, language: str | None) -> Instance:
    subset = row.text("subset")
    cell = cell_of(subset) if subsets is M_REWARD_BENCH else None
    if row.fields.get("language") or (language is None and cell is None):
        language = row.text("language")
    if subset not in subsets and cell is None:
        near = did_you_mean(near_names(subset, subsets))
        raise row.problem("subset", f"is {subset!r}, which is none of the benchmark's{near}")
    return Instance(
        id=f"{cell}/{row.id('id')}" if cell else row.id("id"),  # cells may count from the same number
        language=language or cell.partition(" ")[2],
        subset=subset,
        prompt=row.text("prompt"),
        chosen=row.answer("chosen"),
        rejected=row.answer("rejected"),
    )
