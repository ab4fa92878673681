"""Rows that are left out before any are chosen: what nearly repeats another, and what a look at an answer finds wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from aya_jax.config import UserError
from aya_jax.data.near_duplicates import near_duplicates
from aya_jax.data.tasks import LANGUAGES
from aya_jax.selection.config import ChecksConfig
from aya_jax.selection.rows import Row
from aya_jax.synthesis.row_checks import flags

NEAR_DUPLICATE = "near_duplicate"


class LeftOut(NamedTuple):
    """A row that is left out.

    Attributes:
      row: which.
      causes: flags of `synthesis.row_checks`, or "near_duplicate".
      of: the id of the row that it nearly repeats, "" where that is no cause.
    """

    row: Row
    causes: tuple[str, ...]
    of: str = ""


def sift(config: ChecksConfig, rows: Sequence[Row], advance: Callable[[int], None]) -> tuple[list[Row], list[LeftOut]]:
    """The rows that stay, and those that are left out.

    Args:
      config: what is looked for.
      rows: which.
      advance: told of how many more rows were looked at.

    Raises:
      UserError: none stays.
    """
    stay, left_out = [], []
    judged = LANGUAGES if {"wrong_language", "translationese"} & set(config.flags) else ()
    for row in rows:
        language = row.language if row.language in judged else None
        found = tuple(flag for flag in flags(row.prompt, row.answer, language) if flag in config.flags)
        if found:
            left_out.append(LeftOut(row, found))
        else:
            stay.append(row)
        advance(1)
    if config.near_duplicates is not None:
        first = near_duplicates((row.text for row in stay), threshold=config.near_duplicates).tolist()
        left_out += [
            LeftOut(row, (NEAR_DUPLICATE,), stay[of].id)
            for number, (row, of) in enumerate(zip(stay, first, strict=True))
            if of != number
        ]
        stay = [row for number, (row, of) in enumerate(zip(stay, first, strict=True)) if of == number]
    if not stay:
        raise UserError(f"all of {len(rows):,} rows are left out: look for less (ChecksConfig.flags, .near_duplicates)")
    return stay, left_out
