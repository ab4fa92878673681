"""`aya select`: which rows to train on, and a page that shows what was taken of what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from aya_jax.config import Resolved, RunDirectory
from aya_jax.config.files import write_atomic
from aya_jax.parallel.mesh import make_mesh
from aya_jax.selection.config import SelectConfig
from aya_jax.selection.principal import principal
from aya_jax.selection.results import SELECTED, Selection, write
from aya_jax.selection.select import select
from aya_jax.studies import palette
from aya_jax.studies.figures import Figure, draw
from aya_jax.studies.report import Section, findings_page
from aya_jax.studies.tables import Cell, Column, Table
from aya_jax.training import environment
from aya_jax.training.console import make_console, tracker

PAGE = "selection.html"
_POINTS = 3000  # on the map: more are a blot, and a page of many megabytes


def run(resolved: Resolved[SelectConfig]) -> None:
    """Writes the rows that are taken, what is known of each, and `selection.html`.

    Raises:
      UserError: rows are wrong, there are too few of them, or what they are to be chosen by is not to be had; the directory
        is of another selection, or in use.
    """
    config, console = resolved.config, make_console()

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    with RunDirectory.open(config.run_dir, resolved, environment.describe()):
        found = select(config, make_mesh(config.mesh), say, tracker(console))
        summary = write(found, config)
        write_atomic(Path(config.run_dir) / PAGE, page(found, summary))
    for sentence in sentences(summary):
        say(sentence)
    say(f"{Path(config.run_dir) / SELECTED} has the rows, {Path(config.run_dir) / PAGE} shows them.")


def page(found: Selection, summary: dict[str, Any]) -> str:
    """The report as HTML."""
    shares = [share_table(summary, "languages", "language"), share_table(summary, "sources", "source")]
    sections = [Section("shares", "Shares before and after", tuple(shares))]
    if summary["causes"]:
        sections.append(Section("left-out", "Left out", (cause_table(summary),)))
    if found.clusters is not None:
        sections.append(Section("clusters", "Clusters", (cluster_map(found), cluster_table(summary))))
    if summary.get("silhouettes"):
        sections.append(Section("silhouettes", "How many clusters", (silhouette_table(summary),)))
    facts = [
        ("rows", f"{summary['rows']:,}"),
        ("taken", f"{summary['taken']:,}"),
        ("round", f"{summary['round']}"),
        ("seed", f"{summary['seed']}"),
    ]
    return findings_page(f"Rows chosen by {_title(summary['method'])}", sentences(summary), facts, sections)


def sentences(summary: dict[str, Any]) -> list[str]:
    """What there is to see."""
    said = [f"{summary['taken']:,} of {summary['rows']:,} rows were taken by {_title(summary['method'])}."]
    if summary["left_out"]:
        said.append(f"{summary['left_out']:,} more were left out: {', '.join(summary['causes']).replace('_', ' ')}.")
    if summary["different"] < summary["taken"]:
        said.append(f"{summary['different']:,} of them are different ones: rows may be drawn again.")
    if (quality := summary.get("quality")) is not None:
        said.append(
            f"Their quality is {quality['taken_mean']:.4g} in the mean, that of all rows {quality['mean']:.4g}."
        )
        if quality["missing"]:
            said.append(f"{quality['missing']:,} rows have no quality, and were left out.")
    if "clusters" in summary:
        empty = sum(not one["taken"] for one in summary["clusters"])
        all_ = len(summary["clusters"])
        said.append(f"{empty:,} of {all_:,} clusters gave nothing." if empty else f"All {all_:,} clusters gave some.")
    most = max(summary["languages"], key=lambda name: abs(_gain(summary, name)))
    if len(summary["languages"]) > 1:
        one = summary["languages"][most]
        said.append(
            f"The share that changed most is of {most}: {_percent(one['rows'], summary['rows'])} of all rows, "
            f"{_percent(one['taken'], summary['taken'])} of those taken."
        )
    return said


def share_table(summary: dict[str, Any], field: str, column: str) -> Table:
    """Shares by language or by source, before and after."""
    columns = (
        Column(column, numeric=False),
        Column("rows"),
        Column("taken"),
        Column("share before"),
        Column("share after"),
    )
    most = max(one[which] / summary[which] for one in summary[field].values() for which in ("rows", "taken"))
    rows = tuple(
        (
            Cell(name),
            Cell(f"{one['rows']:,}"),
            Cell(f"{one['taken']:,}"),
            Cell(_percent(one["rows"], summary["rows"]), bar=one["rows"] / summary["rows"] / most),
            Cell(_percent(one["taken"], summary["taken"]), bar=one["taken"] / summary["taken"] / most),
        )
        for name, one in sorted(summary[field].items(), key=lambda item: -item[1]["rows"])
    )
    return Table(f"{field}-table", f"By {column}", "", columns, rows)


def cause_table(summary: dict[str, Any]) -> Table:
    """Rows that were left out, by cause and language."""
    languages = sorted({name for counts in summary["causes"].values() for name in counts})
    rows = tuple(
        (
            Cell(cause.replace("_", " ")),
            Cell(f"{sum(counts.values()):,}"),
            *(Cell(f"{counts.get(name, 0):,}") for name in languages),
        )
        for cause, counts in summary["causes"].items()
    )
    columns = (Column("cause", numeric=False), Column("rows"), *(Column(name) for name in languages))
    caption = f"{summary['left_out']:,} rows; one may have several causes. left_out.jsonl names them."
    return Table("cause-table", "By cause and language", caption, columns, rows)


def cluster_table(summary: dict[str, Any]) -> Table:
    """Rows, weight and, after a round, gain of each cluster, the largest first."""
    gains = summary.get("gains")
    columns = (
        Column("cluster"),
        Column("rows"),
        Column("taken"),
        Column("weight"),
        *((Column("gain"),) if gains else ()),
    )
    order = sorted(range(len(summary["clusters"])), key=lambda number: -summary["clusters"][number]["rows"])
    most = max(summary["weights"])
    rows = tuple(
        (
            Cell(f"{number}"),
            Cell(f"{summary['clusters'][number]['rows']:,}"),
            Cell(f"{summary['clusters'][number]['taken']:,}"),
            Cell(f"{summary['weights'][number]:.4f}", bar=summary["weights"][number] / most if most else 0.0),
            *((Cell(f"{gains[number]:+.4g}"),) if gains else ()),
        )
        for number in order
    )
    caption = "What a cluster gives follows from its weight, as far as it has rows."
    return Table("cluster-table", "By cluster", caption, columns, rows)


def silhouette_table(summary: dict[str, Any]) -> Table:
    """The silhouette of each number of clusters that was tried."""
    rows = tuple((Cell(name), Cell(f"{value:.4f}")) for name, value in summary["silhouettes"].items())
    caption = "The mean silhouette of a sample of rows, from -1 to 1; the highest was taken."
    return Table("silhouette-table", "", caption, (Column("clusters"), Column("silhouette")), rows)


def cluster_map(found: Selection) -> Figure:
    """Rows on the two directions in which their vectors differ most: those taken over the others, coloured by cluster."""
    rng = np.random.default_rng(0)
    shown = np.sort(rng.permutation(len(found.rows))[:_POINTS])
    places = principal(found.vectors, 2)(found.vectors[shown])
    taken, labels = found.taken[shown] > 0, found.clusters.labels[shown]
    colours = np.array(
        [palette.series(number % palette.SERIES, palette.SERIES) for number in range(found.clusters.count)]
    )

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.scatter(*places[~taken].T, s=5, c=palette.RULE, linewidths=0)
        axes.scatter(*places[taken].T, s=12, c=colours[labels[taken]], linewidths=0)
        axes.set_axis_off()
        axes.set_aspect("equal", "datalim")

    some = f"{len(shown):,} of the rows, " if len(shown) < len(found.rows) else "The rows "
    caption = (
        f"{some}on the first two principal components of their vectors; those taken in the colour of their cluster "
        "(colours come again), the others grey."
    )
    return draw("cluster-map", "Where the rows lie", caption, 5.0, paint)


def _gain(summary: dict[str, Any], language: str) -> float:
    one = summary["languages"][language]
    return one["taken"] / summary["taken"] - one["rows"] / summary["rows"]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _title(method: str) -> str:
    return {"kmq": "kMQ", "kmeans_random": "kM-Random", "kmeans_closest": "kM-Closest", "k_center": "k-Center"}.get(
        method, method
    )
