"""The picture of mixing and merging: what a model gives up of general answers for safe ones."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from aya_jax.studies import palette
from aya_jax.studies.figures import Figure, draw
from aya_jax.studies.mixing import Mixing, Row

_MARKS = "os^Dv<>P*X"


def trade_figure(mixing: Mixing) -> Figure | None:
    """Bits per byte of safe answers against those of general ones, a panel for each heading; None where harm is not asked for.

    Models that were trained on mixtures (a stage with an axis `mix`) are joined by a line in their order; each other one has a
    mark of its own.
    """
    headings = list(dict.fromkeys(row.heading for row in mixing.rows))
    if not mixing.pairs:
        return None

    def paint(canvas: Canvas) -> None:
        for axes, heading in zip(canvas.subplots(1, len(headings), squeeze=False)[0], headings, strict=True):
            _panel(axes, heading, [row for row in mixing.rows if row.heading == heading])

    caption = (
        "Each mark is a model; left is better at safe answers, below is better at general ones. The grey line joins the models "
        "trained on mixtures: a merge below and left of it is better than any mixture."
    )
    return draw("mixing", "Safe and general answers", caption, 4.2, paint)


def _panel(axes: Axes, heading: str, rows: list[Row]) -> None:
    trained = [row for row in rows if row.title.startswith("mix ")]
    if trained:
        axes.plot(*zip(*map(_place, trained), strict=True), color=palette.MUTED, linewidth=1.0)
    for number, row in enumerate(rows):
        colour = palette.MUTED if row in trained else palette.series(number, len(rows))
        x, y = _place(row)
        axes.plot([x], [y], _MARKS[number % len(_MARKS)], color=colour, label=row.title, markersize=7, alpha=0.8)
    axes.set_title(heading)
    axes.set_xlabel("safe answers, bits per byte")
    axes.set_ylabel("general answers, bits per byte")
    axes.legend(loc="best", fontsize=8)


def _place(row: Row) -> tuple[float, float]:
    return row.measures["safe"].value.estimate, row.measures["general"].value.estimate
