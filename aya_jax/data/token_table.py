"""What a run will read: tokens, epochs and share of each task, language and domain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class TableRow:
    """One line of the table.

    Attributes:
      task: name; "" in a total.
      language: tag; "" in a total over languages.
      domain: tag; "" in a total over domains.
      available: tokens in the training store.
      planned: tokens that the run will read.
      epochs: how often it reads each token, on average.
      share: of the run's tokens, 0 to 1.
      num_tasks: how many tasks the row sums.
    """

    task: str
    language: str
    domain: str
    available: int
    planned: int
    share: float
    num_tasks: int = 1

    @property
    def epochs(self) -> float:
        """Planned tokens over available ones."""
        return self.planned / self.available


@dataclass(frozen=True)
class TokenTable:
    """The table that a run starts with.

    Attributes:
      tasks: one row each, in the order of their names.
      languages: totals by language.
      domains: totals by domain.
      total: of everything.
    """

    tasks: tuple[TableRow, ...]
    languages: tuple[TableRow, ...]
    domains: tuple[TableRow, ...]
    total: TableRow


def make_table(rows: Sequence[tuple[str, str, str, int, int]]) -> TokenTable:
    """The table of (task, language, domain, available tokens, planned tokens) of each task."""
    total = sum(planned for *_, planned in rows)
    tasks = tuple(TableRow(*row, share=row[4] / total if total else 0.0) for row in rows)
    return TokenTable(
        tasks=tasks,
        languages=_totals(tasks, lambda row: (row.language, "")),
        domains=_totals(tasks, lambda row: ("", row.domain)),
        total=_sum("", "", tasks),
    )


def _totals(rows: Sequence[TableRow], tags: Callable[[TableRow], tuple[str, str]]) -> tuple[TableRow, ...]:
    keys = sorted({tags(row) for row in rows})
    return tuple(_sum(*key, [row for row in rows if tags(row) == key]) for key in keys)


def _sum(language: str, domain: str, rows: Sequence[TableRow]) -> TableRow:
    available, planned = sum(row.available for row in rows), sum(row.planned for row in rows)
    return TableRow("", language, domain, available, planned, sum(row.share for row in rows), len(rows))


def render_table(table: TokenTable, title: str) -> Table:
    """The table for a terminal: the tasks, and the totals that are of more than one of them."""
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("task", "language", "domain"):
        drawn.add_column(heading, no_wrap=True)
    for heading in ("tokens", "planned", "epochs", "share"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for group in (table.tasks, _of_several(table.languages), _of_several(table.domains), (table.total,)):
        for row in group:
            drawn.add_row(*_cells(row), style="bold" if row == table.total else None)
        if group:
            drawn.add_section()
    return drawn


def _of_several(totals: Sequence[TableRow]) -> list[TableRow]:
    return [total for total in totals if total.num_tasks > 1] if len(totals) > 1 else []


def _cells(row: TableRow) -> tuple[str, ...]:
    name = row.task or ("all" if row.language == row.domain == "" else "")
    return (
        name,
        row.language,
        row.domain,
        _count(row.available),
        _count(row.planned),
        f"{row.epochs:.3g}",
        f"{row.share:.2%}",
    )


def _count(tokens: int) -> str:
    """Four digits and a unit: 812, 4.096 k, 1.5 M."""
    for size, unit in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k")):
        if tokens >= size:
            return f"{tokens / size:.4g}{unit}"
    return str(tokens)
