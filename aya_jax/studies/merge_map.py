"""`aya merge_diagnose`: what models changed of their base, as numbers and as maps of layers and kinds of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from rich.progress import track

from aya_jax.config import Resolved
from aya_jax.config.files import write_atomic
from aya_jax.merging.diagnose_config import MergeDiagnoseConfig
from aya_jax.merging.diagnostics import OUTSIDE, report, sums_of, text_of
from aya_jax.merging.preflight import check
from aya_jax.merging.recipe import Recipe
from aya_jax.parallel.mesh import make_mesh
from aya_jax.studies import palette
from aya_jax.studies.figures import Figure, draw
from aya_jax.studies.report import Section, findings_page
from aya_jax.studies.tables import Cell, Column, Table
from aya_jax.training.console import make_console

_MOST_PANELS = 15
_SIDE_BY_SIDE = 14  # layers, of which two maps fit beside each other
_NUMBERED = 40  # layers, beyond which cells have no room for a number


def run(resolved: Resolved[MergeDiagnoseConfig]) -> None:
    """Writes `diagnostics.json` and `diagnostics.html`.

    Raises:
      UserError: the models do not fit together, or one is damaged.
    """
    config, console = resolved.config, make_console()
    recipe = Recipe(
        method="task_arithmetic", base=config.base, models=config.models, owner=config.base, normalize=False, rescale="none"
    )  # fmt: skip
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    plan = check(recipe, console.print, look=False)
    mesh = make_mesh(config.mesh)
    names = track(plan.settings, "comparing", console=console, disable=not console.is_terminal)
    sums = {}
    for name in names:
        base, *models = plan.read(name, folder)
        sums[name] = sums_of(base, models, config.density, mesh if mesh.size > 1 else None)
    digests = [source.digest for source in plan.sources]
    found = report(config.base, config.models, digests, config.density, sums)
    write_atomic(folder / "diagnostics.json", text_of(found))
    write_atomic(folder / "diagnostics.html", page(found))
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    console.print(f"Wrote {folder / 'diagnostics.json'} and {folder / 'diagnostics.html'}", soft_wrap=True)


def page(found: dict[str, Any]) -> str:
    """The report as HTML."""
    sections = [Section("pairs", "Pairs", (pair_table(found),))] if found["pairs"] else []
    if found["pairs"]:
        sections.append(Section("interference", "Interference", tuple(interference_maps(found))))
    sections.append(Section("norms", "Where models changed", (norm_map(found), norm_table(found))))
    facts = [
        ("models", f"{len(found['models'])}"),
        ("tensors", f"{len(found['tensors'])}"),
        ("entries", f"{found['all']['entries']:,}"),
        ("kept by trimming", f"{100 * found['density']:g} %"),
    ]
    title = f"What {len(found['models'])} models changed of {_short(found['base'])}"
    return findings_page(title, sentences(found), facts, sections)


def sentences(found: dict[str, Any]) -> list[str]:
    """What there is to see."""
    sizes = (
        f"{_short(name)} {_percent(share)}"
        for name, share in zip(found["models"], found["all"]["relative_norms"], strict=True)
    )
    said = [f"Changed, as a share of the base's norm: {', '.join(sizes)}."]
    for number, (one, other) in enumerate(found["pairs"]):
        whole = found["all"]
        said.append(
            f"{_short(one)} and {_short(other)}: cosine {_number(whole['cosine'][number])}; their signs disagree in "
            f"{_percent(whole['conflict'][number])} of all entries, in {_percent(whole['conflict_trimmed'][number])} after "
            f"trimming to {100 * found['density']:g} %, where they agree in "
            f"{_percent(whole['agreement_trimmed'][number])} of the entries that both keep."
        )
    return said


def interference_maps(found: dict[str, Any]) -> list[Figure]:
    """Of each pair three maps, layer by kind: signs that disagree before and after trimming, and cosines."""
    chosen = sorted(range(len(found["pairs"])), key=lambda number: -(found["all"]["conflict_trimmed"][number] or 0.0))
    chosen = sorted(chosen[:_MOST_PANELS])
    left_out = len(found["pairs"]) - len(chosen)
    more = f" The {left_out} pairs with the least conflict after trimming are left out." if left_out else ""
    trimmed = f"after trimming to {100 * found['density']:g} %"
    conflicts = [("conflict", "before trimming"), ("conflict_trimmed", trimmed)]
    return [
        _maps(
            "conflicts",
            "Signs that disagree",
            f"Percent of a tensor's entries that one model moved up and the other down, before and {trimmed} of each model's "
            f"changes. The darker, the more, each column of maps on its own scale; random signs give 50 % before.{more}",
            found,
            chosen,
            conflicts,
            palette.CODE,
        ),
        _maps(
            "cosines",
            "Cosines of what was changed",
            "In hundredths: 100 is the same direction, 0 a right angle, −100 the opposite, which is drawn in the other colour."
            + more,
            found,
            chosen,
            [("cosine", "")],
            palette.TEXT,
        ),
    ]


def norm_map(found: dict[str, Any]) -> Figure:
    """Of each model, how much of the square of all that it changed lies where."""
    values = [{} for _ in found["models"]]
    for tensor in found["tensors"].values():
        for model, share in enumerate(tensor["norm_share"]):
            values[model][tensor["layer"], tensor["kind"]] = share
    layers, kinds = _axes_of(found)

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(len(values), 1, squeeze=False)[:, 0]
        inside = (share or 0.0 for each in values for (layer, _), share in each.items() if layer != OUTSIDE)
        most = max(inside, default=0.0)
        for axes, each, name in zip(panels, values, found["models"], strict=True):
            _heat(axes, each, layers, kinds, most, palette.TEXT)
            axes.set_title(_short(name))

    caption = (
        "Percent of the sum of squares of all that a model changed. The darker, the more, on one scale for all, whose end is "
        "the largest within the layers."
    )
    return draw("norms", "Shares of what was changed", caption, _height(len(kinds), len(values)), paint)


def pair_table(found: dict[str, Any]) -> Table:
    """Every pair, over all tensors."""
    whole = found["all"]
    measures = ("cosine", "agreement", "agreement_trimmed", "conflict", "conflict_trimmed")
    rows = []
    for number, (one, other) in enumerate(found["pairs"]):
        first, *shares = (whole[measure][number] for measure in measures)
        cells = (Cell(_number(first)), *(Cell(_percent(share)) for share in shares))
        rows.append((Cell(f"{_short(one)}, {_short(other)}"), *cells))
    columns = (
        Column("pair", numeric=False),
        Column("cosine"),
        Column("signs agree", hint="of the entries that both changed"),
        Column("signs agree, trimmed", hint="of the entries that both keep"),
        Column("conflict", hint="of all entries"),
        Column("conflict, trimmed", hint="of all entries"),
    )
    caption = "Agreement is of the entries that both changed (or keep); conflict of all entries."
    return Table("pair-table", "", caption, columns, tuple(rows))


def norm_table(found: dict[str, Any]) -> Table:
    """Of each model, the share of what it changed by layer, then by kind of matrix."""
    rows = [
        (Cell(f"layer {name}" if which == "layers" and name != OUTSIDE else "outside of layers" if name == OUTSIDE else name),
         *(Cell(_percent(share), bar=share) for share in group["norm_share"]))
        for which in ("layers", "kinds")
        for name, group in found[which].items()
    ]  # fmt: skip
    columns = (Column("", numeric=False), *(Column(_short(name)) for name in found["models"]))
    return Table("norm-table", "By layer, and by kind", "Shares of the sum of squares.", columns, tuple(rows))


def _maps(
    name: str,
    title: str,
    caption: str,
    found: dict[str, Any],
    pairs: Sequence[int],
    measures: Sequence[tuple[str, str]],
    colour: str,
) -> Figure:
    layers, kinds = _axes_of(found)
    columns = len(measures) if len(layers) <= _SIDE_BY_SIDE else 1
    rows = len(pairs) * len(measures) // columns
    tensors = found["tensors"].values()

    def paint(canvas: Canvas) -> None:
        panels = iter(canvas.subplots(rows, columns, squeeze=False).flat)
        for number in pairs:
            for measure, words in measures:
                values = {(tensor["layer"], tensor["kind"]): tensor[measure][number] for tensor in tensors}
                shown = (tensor[measure][each] for tensor in tensors for each in pairs)
                most = max((abs(value or 0.0) for value in shown), default=0.0)
                axes = next(panels)
                _heat(axes, values, layers, kinds, most, colour)
                pair = " and ".join(map(_short, found["pairs"][number]))
                axes.set_title(f"{pair}{', ' if words else ''}{words}", fontsize=9.5)

    return draw(name, title, caption, _height(len(kinds), rows), paint)


def _heat(
    axes: Axes,
    values: dict[tuple[str, str], float | None],
    layers: Sequence[str],
    kinds: Sequence[str],
    most: float,
    colour: str,
) -> None:
    """Cells whose opacity is the value's share of the largest, with the value in percent where there is room."""
    for (layer, kind), value in values.items():
        if value is None:
            continue
        across, down = layers.index(layer), kinds.index(kind)
        own = palette.CODE if value < 0 else colour
        opacity = 0.8 * min(1.0, abs(value) / most) if most else 0.0
        axes.add_patch(Rectangle((across - 0.48, down - 0.46), 0.96, 0.92, facecolor=own, alpha=opacity, linewidth=0))
        if len(layers) <= _NUMBERED:
            text = f"{100 * value:.0f}" if abs(value) >= 0.0995 or value == 0 else f"{100 * value:.1f}"
            axes.text(across, down, text.replace("-", "−"), ha="center", va="center", fontsize=7.5, color=palette.INK)
    axes.set_xlim(-0.6, len(layers) - 0.4)
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xticks(range(len(layers)), layers)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xlabel(f"layer ({OUTSIDE}: outside of layers)")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _axes_of(found: dict[str, Any]) -> tuple[list[str], list[str]]:
    layers = list(found["layers"])
    numbers = [layer for layer in layers if layer != OUTSIDE]
    return [OUTSIDE] * (OUTSIDE in layers) + sorted(numbers, key=int), list(found["kinds"])


def _height(kinds: int, rows: int) -> float:
    return 0.4 + rows * (0.26 * kinds + 0.95)


def _short(name: str) -> str:
    return "+".join(Path(part).name for part in name.split("+"))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}\u00a0%"


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
