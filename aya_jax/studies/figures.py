"""The report's figures, as SVG text whose letters stay letters and whose colours follow the page."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib

matplotlib.use("svg")  # no display is needed, nor looked for
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from aya_jax.studies import palette
from aya_jax.studies.comparison import Comparison, Group, Measure
from aya_jax.studies.intervals import Interval
from aya_jax.studies.runs import Curve

WIDTH = 10.4  # inches of 72 units: about the width of the report's column in CSS pixels
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aya_jax",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": palette.INK,
    "axes.labelcolor": palette.MUTED,
    "axes.edgecolor": palette.MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titlepad": 8,
    "axes.unicode_minus": True,
    "grid.color": palette.RULE,
    "grid.linewidth": 0.7,
    "xtick.color": palette.MUTED,
    "ytick.color": palette.MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}


@dataclass(frozen=True)
class Figure:
    """A drawing with the words that go with it.

    Attributes:
      name: its file's stem and its anchor.
      title: what it shows, a few words.
      caption: what is seen in it, in full sentences.
      svg: the drawing, with stand-in colours.
    """

    name: str
    title: str
    caption: str
    svg: str

    @property
    def inline(self) -> str:
        """The SVG element for an HTML page that defines the palette's variables."""
        return palette.with_variables(self.svg)

    @property
    def standalone(self) -> str:
        """An SVG file."""
        return '<?xml version="1.0" encoding="utf-8"?>\n' + palette.with_light_colours(self.svg)


def draw(name: str, title: str, caption: str, height: float, paint: Callable[[Canvas], None]) -> Figure:
    """Paints on a canvas `height` inches high and takes the SVG from it."""
    with plt.rc_context(STYLE):
        canvas = plt.figure(figsize=(WIDTH, height), layout="constrained")
        try:
            paint(canvas)
            buffer = io.StringIO()
            canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        finally:
            plt.close(canvas)
    return Figure(name, title, caption, _clean(buffer.getvalue(), name, title))


def _clean(svg: str, name: str, title: str) -> str:
    """The svg element alone: scalable, named, its ids its own, its letters in the page's typeface."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opening = rf'<svg {names} viewBox="\1" role="img" aria-label="{escape(title)}">'
    svg = re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', opening, svg, count=1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"font: ([\d.]+)px '[^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    return re.sub(r"\n\s*<!--.*?-->", "", svg, flags=re.DOTALL).strip() + "\n"


def share_figure(comparison: Comparison, caption: str) -> Figure:
    """Difference to the baseline against the share of code, text beside code."""

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(comparison.overall), squeeze=False)[0]
        for axes, measure in zip(panels, comparison.overall, strict=True):
            points = [comparison.difference(measure, group) for group in comparison.groups]
            _line_with_band(axes, comparison.groups, points, _colour(measure))
            axes.axhline(0, color=palette.MUTED, linewidth=0.8)
            axes.margins(y=0.22)
            _label_points(axes, comparison.groups, points, _colour(measure))
            axes.set_title(_count_title(measure, comparison), fontweight="bold")
            _share_axis(axes, comparison.groups)
            axes.set_xlabel("share of code in training")
        panels[0].set_ylabel(f"bits per byte, difference to {percent(comparison.baseline.share)} code")

    return draw("share", "Bits per byte against the share of code", caption, 3.4, paint)


def small_multiples(
    comparison: Comparison, measures: Sequence[Measure], name: str, title: str, caption: str, columns: int
) -> Figure:
    """One small panel for each measure: difference to the baseline against the share of code, on one scale."""
    rows = math.ceil(len(measures) / columns)

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
        for axes, measure in zip(panels, measures, strict=False):
            points = [comparison.difference(measure, group) for group in comparison.groups]
            _line_with_band(axes, comparison.groups, points, _colour(measure, comparison), size=3)
            axes.axhline(0, color=palette.MUTED, linewidth=0.8)
            axes.set_title(measure.title, fontsize=9.5, pad=3)
            _share_axis(axes, comparison.groups, few=True)
            axes.tick_params(labelsize=8)
        for axes in list(canvas.axes)[len(measures) :]:
            axes.set_visible(False)
        for index in range(max(0, len(measures) - columns), len(measures)):
            canvas.axes[index].tick_params(labelbottom=True)
        canvas.supxlabel("share of code in training", fontsize=9.5, color=palette.MUTED)
        canvas.supylabel(
            f"difference to {percent(comparison.baseline.share)} code, bits per byte", fontsize=9.5, color=palette.MUTED
        )

    return draw(name, title, caption, 0.6 + 1.35 * rows if columns > 4 else 0.5 + 2.3 * rows, paint)


def variants_figure(comparison: Comparison, names: Sequence[str], caption: str) -> Figure:
    """Levels of every variant on text and on code: a dot with its interval in each row."""

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(comparison.overall), sharey=True, squeeze=False)[0]
        for axes, measure in zip(panels, comparison.overall, strict=True):
            levels = [comparison.level(measure, group) for group in comparison.groups]
            _dots(axes, levels, _colour(measure))
            axes.set_title(_count_title(measure, comparison), fontweight="bold")
            axes.set_xlabel("bits per byte (left is better)")
        panels[0].set_yticks(range(len(names)), names, color=palette.INK)
        panels[0].invert_yaxis()

    return draw("variants", "Bits per byte of every variant", caption, 1.2 + 0.32 * len(names), paint)


def levels_figure(comparison: Comparison, caption: str) -> Figure:
    """One model's bits per byte on every language and kind of code, the best first."""
    group = comparison.groups[0]
    blocks = [block for block in (comparison.languages, comparison.kinds) if block]
    ordered = [sorted(block, key=lambda measure: comparison.level(measure, group).estimate) for block in blocks]

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(
            len(ordered), 1, sharex=True, squeeze=False, height_ratios=[len(block) + 1 for block in ordered]
        )
        for axes, block in zip(panels[:, 0], ordered, strict=True):
            _dots(axes, [comparison.level(measure, group) for measure in block], _colour(block[0], comparison))
            axes.set_yticks(range(len(block)), [measure.title for measure in block], color=palette.INK)
            axes.invert_yaxis()
        panels[-1, 0].set_xlabel("bits per byte (left is better)")

    return draw(
        "levels", "Bits per byte by language and kind of code", caption, 1.0 + 0.22 * sum(map(len, ordered)), paint
    )


@dataclass(frozen=True)
class Family:
    """Curves of one group of models, drawn in one colour.

    Attributes:
      name: as the legend has it.
      curves: panel title → one curve for each seed.
    """

    name: str
    curves: dict[str, list[Curve]]


def curves_figure(families: Sequence[Family], caption: str) -> Figure:
    """Curves over tokens, one panel for each quantity, one colour for each group, one line for each seed."""
    titles = [
        title for title in families[0].curves if any(len(c.tokens) for family in families for c in family.curves[title])
    ]

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(1, len(titles), squeeze=False)[0]
        scale, unit = _token_scale([c for family in families for listed in family.curves.values() for c in listed])
        for axes, title in zip(panels, titles, strict=True):
            for index, family in enumerate(families):
                for number, curve in enumerate(family.curves[title]):
                    marker = "o" if len(curve.tokens) <= 12 else ""
                    axes.plot(
                        curve.tokens / scale,
                        curve.values,
                        color=palette.series(index % palette.SERIES, min(len(families), palette.SERIES)),
                        linestyle=LINES[index // palette.SERIES % len(LINES)],
                        linewidth=1.5 if len(family.curves[title]) == 1 else 1.1,
                        marker=marker,
                        markersize=3,
                        label=family.name if number == 0 and axes is panels[0] else None,
                    )
            _robust_limits(axes, [curve for family in families for curve in family.curves[title]])
            axes.set_title(title, fontweight="bold")
            axes.set_xlabel(f"{unit} tokens trained")
        if len(families) > 1:
            canvas.legend(loc="outside upper left", ncols=columns, handlelength=1.8, columnspacing=1.6)

    columns = max(1, min(6, 110 // (6 + max(len(family.name) for family in families))))
    height = 3.4 + 0.22 * ((len(families) - 1) // columns)
    return draw("curves", "Training and validation curves", caption, height, paint)


def _robust_limits(axes: Axes, curves: Sequence[Curve]) -> None:
    """Leaves the first few percent of training above the frame where they would flatten everything else."""
    values = np.concatenate([curve.values for curve in curves if len(curve.values)] or [np.zeros(1)])
    finite = values[np.isfinite(values)]
    if len(finite) < 20:
        return
    low, high = float(finite.min()), float(np.quantile(finite, 0.95))
    if finite.max() > high + 0.5 * (high - low):
        axes.set_ylim(low - 0.05 * (high - low), high + 0.15 * (high - low))


def _token_scale(curves: Sequence[Curve]) -> tuple[float, str]:
    largest = max((curve.tokens[-1] for curve in curves if len(curve.tokens)), default=1.0)
    for scale, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if largest >= 2 * scale:
            return scale, unit
    return 1.0, ""


def _line_with_band(
    axes: Axes, groups: Sequence[Group], points: Sequence[Interval], colour: str, size: float = 4.5
) -> None:
    shares = np.array([100 * group.share for group in groups])
    values = np.array([point.estimate for point in points])
    low = np.array([point.estimate if math.isnan(point.low) else point.low for point in points])
    high = np.array([point.estimate if math.isnan(point.high) else point.high for point in points])
    axes.fill_between(shares, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(shares, values, color=colour, linewidth=1.6, marker="o", markersize=size)


def _label_points(axes: Axes, groups: Sequence[Group], points: Sequence[Interval], colour: str) -> None:
    shown = _spaced([100 * group.share for group in groups], 11.0)
    for group, point in zip(groups, points, strict=True):
        if 100 * group.share not in shown or (point.method == "none" and point.estimate == 0.0):
            continue
        above = point.estimate >= 0
        edge = point.estimate if math.isnan(point.low) else (point.high if above else point.low)
        axes.annotate(
            signed(point.estimate),
            (100 * group.share, edge),
            textcoords="offset points",
            xytext=(0, 6 if above else -6),
            ha="center",
            va="bottom" if above else "top",
            fontsize=9,
            color=colour,
        )


def _dots(axes: Axes, levels: Sequence[Interval], colour: str) -> None:
    for row, level in enumerate(levels):
        if not math.isnan(level.low):
            axes.plot(
                [level.low, level.high], [row, row], color=colour, linewidth=4, alpha=0.28, solid_capstyle="round"
            )
        axes.plot(level.estimate, row, "o", color=colour, markersize=5)
    axes.grid(axis="x")
    axes.margins(x=0.06)
    axes.set_ylim(-0.6, len(levels) - 0.4)


def _share_axis(axes: Axes, groups: Sequence[Group], few: bool = False) -> None:
    shares = [100 * group.share for group in groups]
    shown = _spaced(shares, 0.3 * (shares[-1] - shares[0]) if few else 11.0)
    axes.set_xticks(shown, [f"{share:.0f} %" for share in shown])
    axes.margins(x=0.1)


def _spaced(values: Sequence[float], gap: float) -> list[float]:
    """The ascending values that can be written along an axis: the last, and from the first on those `gap` apart."""
    kept: list[float] = []
    for value in values[:-1]:
        if (not kept or value - kept[-1] >= gap) and values[-1] - value >= gap:
            kept.append(value)
    return [*kept, values[-1]]


def _count_title(measure: Measure, comparison: Comparison) -> str:
    if measure is comparison.text:
        count = len(comparison.languages)
        return f"Text, mean of {count} languages" if count > 1 else "Text"
    return f"Code, mean of {len(comparison.kinds)} kinds" if len(comparison.kinds) > 1 else "Code"


def _colour(measure: Measure, comparison: Comparison | None = None) -> str:
    code = measure.name == "code" or (comparison is not None and measure in comparison.kinds)
    return palette.CODE if code else palette.TEXT


def percent(share: float) -> str:
    """ "25 %", "2.5 %"."""
    return f"{100 * share:.3g} %"


def signed(value: float) -> str:
    """A difference in bits per byte, with a sign and a true minus: "+0.012", "−0.340"."""
    return f"{value:+.3f}".replace("-", "−")
