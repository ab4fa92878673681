"""What a selection leaves on disk: the rows, what is known of each, their prompts, and a summary."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.selection.checks import LeftOut
from aya_jax.selection.clusters import Clusters
from aya_jax.selection.config import SelectConfig
from aya_jax.selection.rows import Row

SELECTED, SELECTION, PROMPTS, SUMMARY = "selected.jsonl", "selection.jsonl", "prompts.jsonl", "selection.json"
LEFT_OUT = "left_out.jsonl"


@dataclasses.dataclass(frozen=True)
class Round:
    """What earlier rounds leave to the next one.

    Attributes:
      number: of the next, from 1.
      taken: int64 [N], how often each row was taken.
      weights: float64 [K], of the clusters.
      gains: by cluster, those of the round before; None in the first.
    """

    number: int
    taken: np.ndarray
    weights: np.ndarray
    gains: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
      rows: all of them.
      drawn: int64 [N], how often each was taken in this round.
      round: what was before.
      vectors: float32 [N, D], where the method asks for them.
      clusters: where the method asks for them.
      quality: float32 [N], where the method asks for it.
      left_out: rows beside these, which were not to be chosen.
    """

    rows: list[Row]
    drawn: np.ndarray
    round: Round
    vectors: np.ndarray | None
    clusters: Clusters | None
    quality: np.ndarray | None
    left_out: Sequence[LeftOut] = ()

    @property
    def taken(self) -> np.ndarray:
        """How often each row was taken, in this round and before it."""
        return self.drawn + self.round.taken


def records(found: Selection, method: str) -> Iterator[dict[str, Any]]:
    """A record of each row that was taken, in the order of rows: its id, how often, its cluster, and why."""
    for number in np.flatnonzero(found.taken):
        row, now = found.rows[number], found.drawn[number] > 0
        record = {"id": row.id, "weight": int(found.taken[number]), "round": found.round.number if now else "earlier"}
        if found.clusters is not None:
            record["cluster"] = int(found.clusters.labels[number])
            record["distance"] = round(float(found.clusters.distances[number]), 6)
        if found.quality is not None:
            record["quality"] = float(found.quality[number])
        yield record | {"reason": method, "language": row.language, "source": row.source}


def write(found: Selection, config: SelectConfig) -> dict[str, Any]:
    """Writes the rows that were taken, as they were and as often, what is known of each, their prompts, and a summary.

    Raises:
      UserError: the disk cannot be written.
    """
    folder, taken = Path(config.run_dir), np.flatnonzero(found.taken)
    lines = (f"{found.rows[number].line}\n" * int(found.taken[number]) for number in taken)
    write_atomic(folder / SELECTED, "".join(lines))
    write_atomic(folder / SELECTION, _lines(records(found, config.method)))
    prompts = (
        {"id": row.id, "messages": [dataclasses.asdict(turn) for turn in row.messages], "lang": row.language}
        for row in (found.rows[number] for number in taken)
        if row.messages
    )
    write_atomic(folder / LEFT_OUT, _lines(_left_out(found)))
    write_atomic(folder / PROMPTS, _lines(prompts))
    summary = summarize(found, config)
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return summary


def summarize(found: Selection, config: SelectConfig) -> dict[str, Any]:
    """What was taken of what: in all, by language, by source and by cluster."""
    summary: dict[str, Any] = {
        "method": config.method,
        "seed": config.seed,
        "round": found.round.number,
        "rows": len(found.rows),
        "budget": config.budget,
        "taken": int(found.taken.sum()),
        "different": int(np.sum(found.taken > 0)),
        "left_out": len(found.left_out),
        "causes": _causes(found.left_out),
        "languages": _counts([row.language for row in found.rows], found.taken),
        "sources": _counts([row.source for row in found.rows], found.taken),
    }
    if found.clusters is not None:
        labels, count = found.clusters.labels, found.clusters.count
        summary["silhouettes"] = {str(k): value for k, value in found.clusters.silhouettes.items()}
        summary["clusters"] = [
            {"rows": int(rows), "taken": int(taken)}
            for rows, taken in zip(
                np.bincount(labels, minlength=count),
                np.bincount(labels, weights=found.taken, minlength=count),
                strict=True,
            )
        ]
        summary["weights"] = found.round.weights.tolist()
        if found.round.gains is not None:
            summary["gains"] = found.round.gains.tolist()
    if found.quality is not None:
        finite = found.quality[np.isfinite(found.quality)]
        summary["quality"] = {
            "mean": float(finite.mean()),
            "taken_mean": float(np.average(np.nan_to_num(found.quality), weights=found.taken)),
            "missing": int(len(found.quality) - len(finite)),
        }
    return summary


def _counts(names: Sequence[str], taken: np.ndarray) -> dict[str, dict[str, int]]:
    """Of each name how many rows there are, and how many were taken."""
    there, chosen = Counter(names), Counter()
    for name, weight in zip(names, taken.tolist(), strict=True):
        chosen[name] += weight
    return {name: {"rows": there[name], "taken": chosen[name]} for name in sorted(there)}


def read_selection(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and the records of a selection.

    Raises:
      UserError: there is none.
    """
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        lines = (folder / SELECTION).read_text(encoding="utf-8").splitlines()
        return summary, [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no selection of `aya select`: {error}") from error


def read_answers(file: Path, prompts: Path) -> dict[str, str]:
    """What a model answers to the prompts of a round, by the row's id.

    Raises:
      UserError: the file cannot be read, or a row is no answer to one of these prompts.
    """
    try:
        known = {json.loads(line)["id"] for line in prompts.read_text(encoding="utf-8").splitlines()}
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{error}; {file} is what `aya generate` writes of {prompts}") from error
    answers = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            answers[record["id"]] = record["completions"][0]["text"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(f"{file}:{number}: no answer of `aya generate` ({error!r})") from error
        if record["id"] not in known:
            raise UserError(f"{file}:{number}: {record['id']!r} is no prompt of {prompts}")
    if not answers:
        raise UserError(f"{file}: no answers")
    return answers


def _causes(left_out: Sequence[LeftOut]) -> dict[str, dict[str, int]]:
    """How many rows were left out for each cause, by language; a row may have several."""
    counts: dict[str, Counter[str]] = {}
    for one in left_out:
        for cause in one.causes:
            counts.setdefault(cause, Counter())[one.row.language] += 1
    return {cause: dict(sorted(languages.items())) for cause, languages in sorted(counts.items())}


def _left_out(found: Selection) -> Iterator[dict[str, Any]]:
    for one in found.left_out:
        yield {"id": one.row.id, "language": one.row.language, "causes": one.causes} | (
            {"of": one.of} if one.of else {}
        )


def _lines(found: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found)
