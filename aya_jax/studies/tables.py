"""The report's tables, as cells that HTML and Markdown both render."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aya_jax.config import leaves
from aya_jax.studies.comparison import Comparison, Measure
from aya_jax.studies.figures import signed
from aya_jax.studies.findings import group_title
from aya_jax.studies.intervals import Interval
from aya_jax.studies.ledger import Entry, ledger, total_tokens
from aya_jax.studies.progress import duration
from aya_jax.studies.runs import CODE_KINDS, StudyRecord, TrainingRun


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
      text: what it says.
      note: small print after it, such as an interval.
      tone: -1 (better) to 1 (worse), colours the ground; None leaves it.
      faint: whether it is to step back: a difference that its interval does not tell from zero.
      bar: a share from 0 to 1 drawn under the text; None for none.
    """

    text: str
    note: str = ""
    tone: float | None = None
    faint: bool = False
    bar: float | None = None

    @property
    def plain(self) -> str:
        """Text and note, for Markdown."""
        return f"{self.text} {self.note}".strip().replace("|", "\\|")


@dataclass(frozen=True)
class Column:
    """A heading; numbers are set to the right."""

    title: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table with the words that go with it."""

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def noted(self) -> list[bool]:
        """Which columns have a cell with small print: there every number leaves room for it, so that numbers stay aligned."""
        return [any(cell.note for cell in column) for column in zip(*self.rows, strict=True)]


def differences_table(
    comparison: Comparison, measures: Sequence[Measure], name: str, title: str, caption: str
) -> Table:
    """Level of the baseline and difference of each other group, one row for each measure, coloured by size."""
    others = [group for group in comparison.groups if group is not comparison.baseline]
    differences = {(m.name, g.label): comparison.difference(m, g) for m in measures for g in others}
    scale = max((abs(value.estimate) for value in differences.values()), default=0.0) or 1.0
    rows = [
        (
            Cell(measure.title),
            Cell(f"{(level := comparison.level(measure, comparison.baseline)).estimate:.3f}", _half_width(level)),
            *(_difference_cell(differences[measure.name, group.label], scale) for group in others),
        )
        for measure in measures
    ]
    columns = (
        Column("", numeric=False),
        Column(group_title(comparison, comparison.baseline)),
        *(Column(group_title(comparison, group)) for group in others),
    )
    return Table(name, title, caption, columns, tuple(rows))


def _difference_cell(difference: Interval, scale: float) -> Cell:
    unsure = not math.isnan(difference.low) and not difference.excludes_zero
    return Cell(signed(difference.estimate), _half_width(difference), tone=difference.estimate / scale, faint=unsure)


def _half_width(interval: Interval) -> str:
    """ "±0.004": half the interval's width; "" where there is none."""
    return "" if math.isnan(interval.low) else f"±{(interval.high - interval.low) / 2:.3f}"


def variants_table(record: StudyRecord, comparison: Comparison | None) -> Table:
    """Every trained model: size of its training, last losses, time."""
    overall = comparison.overall if comparison else []
    rows = []
    for model in record.models:
        last = model.lineage[-1]
        loss = last.train[-1].get("loss") if last.train else None
        speed = last.train[-1].get("tokens_per_second") if last.train else None
        rows.append(
            (
                Cell(model.label),
                Cell(f"{sum(run.train[-1]['step'] if run.train else 0 for run in model.lineage):,}"),
                Cell(count(sum(run.tokens for run in model.lineage))),
                Cell("" if loss is None else f"{loss:.3f}"),
                *(Cell(f"{measure.of(model.evaluation):.3f}" if model.evaluation else "") for measure in overall),
                Cell(duration(sum(run.seconds for run in model.lineage))),
                Cell(f"{speed:,.0f}" if speed else ""),
            )
        )
    columns = (
        Column("variant", numeric=False),
        Column("steps"),
        Column("tokens"),
        Column("training loss", hint="nats per token or per pair, last record"),
        *(Column(f"{measure.title.lower()} bits/byte") for measure in overall),
        Column("time"),
        Column("tokens/s"),
    )
    title = "Every variant" if len(record.models) > 1 else "The run"
    caption = (
        "Last values; the training loss is in nats per token (of preferences and rewards, per pair), over the mixture."
    )
    return Table("variants", title, caption, columns, tuple(rows))


def ledger_table(runs: Sequence[TrainingRun]) -> Table | None:
    """Planned and trained tokens of every training run, text and code apart; None where no configuration tells."""
    rows = []
    for run in runs:
        entries = ledger(run)
        if not entries:
            continue
        text = [entry for entry in entries if entry.domain not in CODE_KINDS]
        code = [entry for entry in entries if entry.domain in CODE_KINDS]
        planned, trained = (sum(getattr(entry, field) for entry in entries) for field in ("planned", "trained"))
        share = sum(entry.planned for entry in code) / planned
        rows.append(
            (
                Cell(run.name),
                Cell(count(total_tokens(run.config))),
                Cell(count(trained), bar=trained / planned),
                Cell(count(sum(entry.trained for entry in text))),
                Cell(count(sum(entry.trained for entry in code))),
                Cell(f"{100 * share:.3g} %", bar=share),
                Cell(_epochs(text)),
                Cell(_epochs(code)),
            )
        )
    if not rows:
        return None
    columns = (
        Column("run", numeric=False),
        Column("planned"),
        Column("trained"),
        Column("text"),
        Column("code"),
        Column("share of code"),
        Column("epochs of text"),
        Column("epochs of code"),
    )
    caption = (
        "Tokens that the mixture planned (steps × batch × sequence length) and those trained so far, shared out by the "
        "rates. Epochs say how often a task's text was read: the least and the most among its tasks."
    )
    return Table("ledger", "Token ledger", caption, columns, tuple(rows))


def _epochs(entries: Sequence[Entry]) -> str:
    epochs = [entry.epochs for entry in entries if entry.epochs is not None]
    if not epochs:
        return ""
    low, high = f"{min(epochs):.2g}", f"{max(epochs):.2g}"
    return low if low == high else f"{low} to {high}"


def differences_in_configuration(runs: Sequence[TrainingRun]) -> Table | None:
    """The fields in which the runs' configurations differ, and nothing else; None where there is nothing to compare."""
    flat = {run.name: dict(leaves(run.config)) for run in runs if run.config}
    names = list(dict.fromkeys(name for fields in flat.values() for name in fields))
    differing = [
        name for name in names if len({repr(fields.get(name)) for fields in flat.values()}) > 1 and not _is_place(name)
    ]
    if len(flat) < 2 or not differing:
        return None
    rows = tuple((Cell(run), *(Cell(_shown(fields.get(name))) for name in differing)) for run, fields in flat.items())
    columns = (Column("run", numeric=False), *(Column(_short(name, differing), hint=name) for name in differing))
    caption = "Only fields that differ between runs; everything else is the same. Places of files are left out."
    return Table("configuration", "Differences in configuration", caption, columns, rows)


def _is_place(name: str) -> bool:
    return name.rsplit(".", 1)[-1] in ("run_dir", "model_dir", "store_dir", "vocabulary", "init_from", "data_dir")


def _short(name: str, names: Sequence[str]) -> str:
    """The end of a dotted name, as long as needed to tell it from the others."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        short = ".".join(parts[-length:])
        if sum(f".{other}".endswith(f".{short}") for other in names) == 1:
            return short
    return name


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def environment_table(runs: Sequence[TrainingRun]) -> Table | None:
    """Versions, commit and devices, every value that differs listed. None where no run kept its environment."""
    flat = [
        dict(leaves({name: value for name, value in run.environment.items() if name != "earlier"}))
        for run in runs
        if run.environment
    ]
    if not flat:
        return None
    rows = []
    for name in dict.fromkeys(name for fields in flat for name in fields):
        values = list(dict.fromkeys(_shown_list(fields[name]) for fields in flat if name in fields))
        rows.append((Cell(name.replace("_", " ").replace(".", " · ")), Cell("; ".join(values))))
    columns = (Column("", numeric=False), Column("", numeric=False))
    return Table("environment", "Environment", "As each run recorded it when it started.", columns, tuple(rows))


def profile_table(runs: Sequence[TrainingRun], operations: int = 10) -> Table | None:
    """Where the time of traced steps went, by part and by operation. None where no run traced any."""
    rows = []
    for run in runs:
        if not run.profile:
            continue
        parts = run.profile["parts"].items()
        rows += [(Cell(run.name), Cell(part), Cell(""), _share_cell(share)) for part, share in parts]
        for each in run.profile["operations"][:operations]:
            rows.append((Cell(run.name), Cell(each["source"]), Cell(each["name"]), _share_cell(each["share"])))
    if not rows:
        return None
    columns = (
        Column("run", numeric=False),
        Column("part", numeric=False),
        Column("operation", numeric=False),
        Column("share"),
    )
    caption = "Shares of the device's time in the traced steps: the parts of a step, then the largest operations."
    return Table("profile", "Where the time went", caption, columns, tuple(rows))


def _share_cell(share: float) -> Cell:
    return Cell(f"{share:.1%}", bar=share)


def _shown_list(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def count(number: float) -> str:
    """A number of tokens with three figures: "410 k", "1.20 M", "40.0 B"."""
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            size = number / scale
            return f"{size:.{0 if size >= 100 else 1 if size >= 10 else 2}f} {unit}"
    return f"{number:.0f}"
