"""The report's table of held-out judged answers: how well runs of preferences and rewards tell them apart, by language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aya_jax.studies.runs import TrainingRun
from aya_jax.studies.tables import Cell, Column, Table

# Accuracy and margin, as the objectives call them.
_NAMES = (("rewards/accuracies", "rewards/margins"), ("accuracy", "margin"))


def pairs_table(runs: Sequence[TrainingRun]) -> Table | None:
    """Every run's first and last measurement of held-out pairs, in all and by language; None where no run has any."""
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        names = next((pair for pair in _NAMES if run.validation and pair[0] in run.validation[-1]), None)
        if names is None:
            continue
        last = run.validation[-1]
        ends = [run.validation[0], last] if len(run.validation) > 1 else [last]
        languages = sorted(key.split("/")[1] for key in last if key.startswith("language/") and key.endswith("/pairs"))
        rows += [_row(run.name, f"step {record['step']:,}", record, "", *names) for record in ends]
        if len(languages) > 1:
            rows += [_row("", language, last, f"language/{language}/", *names) for language in languages]
    if not rows:
        return None
    columns = (
        Column("run", numeric=False),
        Column("", numeric=False),
        Column("accuracy", hint="pairs whose chosen answer has the higher reward"),
        Column("margin", hint="mean reward of the chosen answers less that of the rejected ones"),
        Column("pairs"),
    )
    caption = "Held-out pairs: how often the chosen answer has the higher reward, with its 95 % interval (Wilson)."
    return Table("pairs", "Held-out pairs", caption, columns, tuple(rows))


def _row(run: str, what: str, record: Mapping[str, Any], prefix: str, accuracy: str, margin: str) -> tuple[Cell, ...]:
    low, high = (record[f"{prefix}{accuracy}/{end}"] for end in ("low", "high"))
    return (
        Cell(run),
        Cell(what),
        Cell(f"{record[prefix + accuracy]:.1%}", f"{low:.1%} to {high:.1%}"),
        Cell(f"{record[prefix + margin]:.4f}"),
        Cell(f"{record[prefix + 'pairs']:,}"),
    )
