"""`aya merge_search`: the search, then one page of what it found: the front, every trial, languages, and the best recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from rich.console import Console
from rich.table import Table as Printed

from aya_jax.config import Resolved
from aya_jax.config.files import write_atomic
from aya_jax.evaluation.statistics import Difference, Differences
from aya_jax.merging import objectives
from aya_jax.merging.measured import Goal, difference, read_items
from aya_jax.merging.search import BEST, Trial, best, describe, front, items_file, search
from aya_jax.merging.search_config import MergeSearchConfig
from aya_jax.studies import palette
from aya_jax.studies.figures import Figure, draw
from aya_jax.studies.report import Section, findings_page
from aya_jax.studies.tables import Cell, Column, Table
from aya_jax.training.console import make_console

_MOST_ROWS = 200


def run(resolved: Resolved[MergeSearchConfig]) -> None:
    """Searches, writes `report.html`, and prints the front.

    Raises:
      UserError: as `merging.search.search`.
    """
    config, console = resolved.config, make_console(quiet=jax.process_index() != 0)
    trials = search(resolved, console)
    goals = objectives.goals(config.objectives)
    folder = Path(config.run_dir)
    if jax.process_index():
        return
    write_atomic(folder / "report.html", page(folder, trials, goals, config))
    _show(console, trials, goals, best(trials, goals, config.choose))
    console.print(f"Wrote {folder / 'report.html'} and {folder / BEST}; to write the model:", soft_wrap=True)
    console.print(f"  aya merge {folder / BEST} --gin.TARGET=DIR", highlight=False, soft_wrap=True)


def page(folder: Path, trials: Sequence[Trial], goals: Sequence[Goal], config: MergeSearchConfig) -> str:
    """The report as HTML."""
    chosen, found = best(trials, goals, config.choose), front(trials, goals)
    rival = _rival(trials, goals)
    compared = _compared(folder, rival, chosen, goals) if rival is not None else {}
    sections = [
        Section(
            "front", "Pareto front", (front_figure(trials, goals, found, chosen), front_table(found, goals, chosen))
        ),
        Section("languages", "By language", tuple(language_table(trials, goals, chosen, rival, compared))),
        Section("trials", "All trials", (trials_table(trials, goals),)),
    ]
    measured = sum(trial.measured for trial in trials)
    seconds = sum(trial.merge_seconds + trial.measure_seconds for trial in trials)
    facts = [
        ("merges measured", f"{sum(trial.measured and not trial.alone for trial in trials)}"),
        ("proposed before", f"{sum(trial.same_as is not None for trial in trials)}"),
        ("refused", f"{sum(bool(trial.refused) for trial in trials)}"),
        ("on the front", f"{len(found)}"),
        ("seconds a trial", f"{seconds / max(1, measured):.1f}"),
    ]
    return findings_page(
        f"Merges of {len(config.models)} models",
        sentences(chosen, rival, compared, goals),
        facts,
        sections,
        listing=(folder / BEST).read_text(encoding="utf-8"),
        listing_title=f"The best recipe: aya merge {folder / BEST} --gin.TARGET=DIR",
    )


def sentences(chosen: Trial, rival: Trial | None, compared: dict[str, Differences], goals: Sequence[Goal]) -> list[str]:
    """What the search has shown."""
    found = [f"The best merge is trial {chosen.number}: {describe(chosen)}."]
    for goal in goals:
        text = f"{goal.name}: {chosen.goals[goal.name]:.4f}"
        if rival is not None:
            text += f", and {rival.goals[goal.name]:.4f} of the best single model, {_short(rival.alone)}"
        of_goal = _of_goal(compared, goal)
        if of_goal is not None:
            text += f" (difference {_signed(of_goal)}, {_verdict(of_goal, goal)})"
        found.append(f"{text}.")
    found.append(
        "The best of many trials on the same items looks better on them than it is: measure it on others before you believe it."
    )
    return found


def front_figure(trials: Sequence[Trial], goals: Sequence[Goal], found: Sequence[Trial], chosen: Trial) -> Figure:
    """Each pair of objectives as a panel; of a single one, its values in the order of trials."""
    pairs = [(one, other) for at, one in enumerate(goals) for other in goals[at + 1 :]][:6]
    columns = min(2, max(1, len(pairs)))
    rows = -(-max(1, len(pairs)) // columns)
    measured = [trial for trial in trials if trial.measured]

    def paint(canvas: Canvas) -> None:
        panels = canvas.subplots(rows, columns, squeeze=False).flat
        for axes, pair in zip(panels, pairs or [(None, goals[0])], strict=False):
            _panel(axes, measured, found, chosen, *pair, joined=len(goals) == 2)
        for axes in list(canvas.axes)[max(1, len(pairs)) :]:
            axes.set_visible(False)
        handles, labels = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside upper left", ncols=4)

    caption = "Each point is a trial; no other merge surpasses those of the front. Each axis says which way is better."
    return draw("pareto", "Objectives of all trials", caption, 0.6 + 3.6 * rows, paint)


def _panel(
    axes: Axes,
    trials: Sequence[Trial],
    found: Sequence[Trial],
    chosen: Trial,
    across: Goal | None,
    up: Goal,
    *,
    joined: bool,
) -> None:
    def places(some: Sequence[Trial]) -> tuple[list[float], list[float]]:
        left = [trial.number if across is None else trial.goals[across.name] for trial in some]
        return left, [trial.goals[up.name] for trial in some]

    merges = [trial for trial in trials if not trial.alone]
    alone = [trial for trial in trials if trial.alone]
    axes.plot(*places(merges), "o", color=palette.MUTED, markersize=4, alpha=0.55, label="merge")
    if alone:
        axes.plot(*places(alone), "D", color=palette.CODE, markersize=6, label="model alone")
    ordered = sorted(found, key=lambda trial: trial.number if across is None else trial.goals[across.name])
    line = "-" if joined else ""
    axes.plot(*places(ordered), "o", linestyle=line, color=palette.TEXT, markersize=5.5, linewidth=1.2, label="front")
    axes.plot(*places([chosen]), "o", color=palette.TEXT, markersize=12, markerfacecolor="none", label="chosen")
    axes.set_xlabel("trial" if across is None else _axis(across))
    axes.set_ylabel(_axis(up))
    axes.margins(0.08)


def _axis(goal: Goal) -> str:
    return f"{goal.name} ({'less' if goal.minimize else 'more'} is better)"


def front_table(found: Sequence[Trial], goals: Sequence[Goal], chosen: Trial) -> Table:
    """The merges of the front, by the first objective."""
    ordered = sorted(found, key=lambda trial: trial.goals[goals[0].name] * (1 if goals[0].minimize else -1))
    rows = [
        (
            Cell(str(trial.number), "chosen" if trial is chosen else ""),
            Cell(describe(trial)),
            *(Cell(f"{trial.goals[goal.name]:.4f}") for goal in goals),
        )
        for trial in ordered
    ]
    columns = (Column("trial", numeric=False), Column("merge", numeric=False), *(Column(goal.name) for goal in goals))
    return Table(
        "front-table", "", "No other merge is better in one objective and as good in all.", columns, tuple(rows)
    )


def language_table(
    trials: Sequence[Trial], goals: Sequence[Goal], chosen: Trial, rival: Trial | None, compared: dict[str, Differences]
) -> list[Table]:
    """A table for each measurement: each model alone, the chosen merge, and its difference from the best model, by language."""
    alone = [trial for trial in trials if trial.alone and trial.measured]
    tables = []
    for measure in dict.fromkeys(goal.measure for goal in goals):
        minimize = next(goal.minimize for goal in goals if goal.measure == measure)
        shown = [*alone, chosen]
        differences = compared.get(measure)
        rows = []
        for language in chosen.languages[measure]:
            cells = [Cell(language or "all"), *(Cell(f"{trial.languages[measure][language]:.4f}") for trial in shown)]
            if differences is not None:
                cells.append(_difference_cell(differences, language, minimize))
            rows.append(tuple(cells))
        if len(rows) > 1:
            means = [Cell(f"{np.mean(list(trial.languages[measure].values())):.4f}") for trial in shown]
            last = [] if differences is None else [_cell(differences.macro, minimize)]
            rows.append((Cell("mean"), *means, *last))
        names = [*(_short(trial.alone) for trial in alone), f"trial {chosen.number}"]
        columns = [Column("", numeric=False), *(Column(name, hint=name) for name in names)]
        caption = f"{measure}, {'less' if minimize else 'more'} is better."
        if differences is not None:
            columns.append(Column("difference"))
            caption += (
                f" The difference is the merge's from {_short(rival.alone)}'s, on the same items, with half the width of "
                "its 95 % interval; faint where the languages together do not tell it from zero."
            )
            if min(each.shared for each in differences.by_language) < 2 < len(rows):
                caption += " A language of one item adds nothing to the width of the mean's: that is too narrow."
        tables.append(Table(f"languages-{len(tables)}", measure, caption, tuple(columns), tuple(rows)))
    return tables


def trials_table(trials: Sequence[Trial], goals: Sequence[Goal]) -> Table:
    """Every trial, in order."""
    rows = []
    for trial in trials[:_MOST_ROWS]:
        note = trial.refused or ("" if trial.same_as is None else f"as trial {trial.same_as}")
        numbers = (Cell(f"{trial.goals[goal.name]:.4f}" if trial.goals else "–") for goal in goals)
        rows.append((Cell(str(trial.number)), Cell(describe(trial)), *numbers, Cell(note, faint=True)))
    more = f" The first {_MOST_ROWS}; trials.jsonl has all." if len(trials) > _MOST_ROWS else ""
    columns = (
        Column("trial", numeric=False),
        Column("merge", numeric=False),
        *(Column(goal.name) for goal in goals),
        Column("", numeric=False),
    )
    return Table("trials-table", "", f"In the order in which they were proposed.{more}", columns, tuple(rows))


def _short(name: str) -> str:
    return "+".join(Path(part).name for part in name.split("+"))


def _rival(trials: Sequence[Trial], goals: Sequence[Goal]) -> Trial | None:
    """The best single model by the first objective; None where none was measured."""
    alone = [trial for trial in trials if trial.alone and trial.measured]
    sign = 1 if goals[0].minimize else -1
    return min(alone, key=lambda trial: sign * trial.goals[goals[0].name], default=None)


def _compared(folder: Path, first: Trial, second: Trial, goals: Sequence[Goal]) -> dict[str, Differences]:
    """Differences by measurement, of those whose items are kept."""
    left, right = (read_items(items_file(folder, trial.number)) for trial in (first, second))
    return {name: difference(left[name], right[name]) for name in {goal.measure: 0 for goal in goals} if name in left}


def _of_goal(compared: dict[str, Differences], goal: Goal) -> Difference | None:
    found = compared.get(goal.measure)
    if found is None or goal.language is None:
        return found and found.macro
    return found.by_language[found.languages.index(goal.language)]


def _difference_cell(found: Differences, language: str, minimize: bool) -> Cell:
    if language not in found.languages:
        return Cell("–")
    return _cell(found.by_language[found.languages.index(language)], minimize)


def _cell(found: Difference, minimize: bool) -> Cell:
    interval, unsure = found.interval, found.adjusted > 0.05 or found.shared < 2
    tone = 0.0 if unsure else (0.6 if (interval.estimate > 0) == minimize else -0.6)
    text = f"{interval.estimate:+.4f}".replace("-", "−")
    note = "one item" if found.shared < 2 else f"±{(interval.high - interval.low) / 2:.4f}"
    return Cell(text, note, tone=tone, faint=unsure)


def _signed(found: Difference) -> str:
    if found.shared < 2:
        return f"{found.interval.estimate:+.4f}".replace("-", "−")
    low, high = (f"{value:+.4f}" for value in (found.interval.low, found.interval.high))
    return f"{found.interval.estimate:+.4f}, 95 % from {low} to {high}".replace("-", "−")


def _verdict(found: Difference, goal: Goal) -> str:
    if found.shared < 2:
        return "of one item, which says nothing of others"
    if found.interval.low <= 0 <= found.interval.high:
        return "which its interval does not tell from none"
    return "better" if (found.interval.estimate < 0) == goal.minimize else "worse"


def _show(console: Console, trials: Sequence[Trial], goals: Sequence[Goal], chosen: Trial) -> None:
    printed = Printed(title="Pareto front", title_justify="left")
    printed.add_column("trial")
    printed.add_column("merge")
    for goal in goals:
        printed.add_column(_axis(goal), justify="right")
    alone = [trial for trial in trials if trial.alone and trial.measured]
    for trial in (*alone, *front(trials, goals)):
        number = f"{trial.number}{' (best)' if trial is chosen else ''}"
        printed.add_row(number, describe(trial), *(f"{trial.goals[goal.name]:.4f}" for goal in goals))
    console.print(printed)
