"""A contamination on disk: which rows it flags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.results import read_summary, samples_file


def contaminated(file: Path) -> set[str]:
    """Ids of the rows that a contamination's summary flags.

    Raises:
      UserError: there is no such summary.
    """
    summary = read_summary(file)
    if summary is None or summary.get("kind") != "contamination":
        raise UserError(f"{file}: no contamination is there; run aya evaluate gin/evaluate/contamination.gin")
    return {record["id"] for record in read_records(file) if record["contaminated"]}


def read_records(file: Path) -> list[dict[str, Any]]:
    """What was found of each row.

    Raises:
      UserError: the records are not there, or damaged.
    """
    path = samples_file(file)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # texts may hold other characters that end lines
        return [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not the records of a contamination ({error}); remove {file}, and start again"
        ) from error
