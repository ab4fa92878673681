"""Benchmarks' means as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints each family's means by language with their intervals, and the languages' mean."""
    if summary.get("limit"):
        console.print(f"Only the first {summary['limit']} rows of each task: a try, not a result.", style="yellow")
    for family, metrics in summary["families"].items():
        table = Table(title=family, title_justify="left")
        table.add_column("language")
        table.add_column("questions", justify="right")
        for metric in metrics:
            table.add_column(metric, justify="right")
        first = next(iter(metrics.values()), None)
        if first is None:
            continue
        for language, found in first["languages"].items():
            cells = (_cell(metrics[metric]["languages"].get(language)) for metric in metrics)
            table.add_row(language, f"{found['n']:,}", *cells)
        if len(first["languages"]) > 1:
            table.add_section()
            table.add_row("mean of languages", "", *(_cell(metrics[metric]["macro"]) for metric in metrics))
        console.print(table)
    for task, scores in summary.get("corpus_scores", {}).items():
        for score in scores:
            console.print(
                f"{task}: {score['name']} {score['score']:.1f} ({score['low']:.1f} to {score['high']:.1f})  "
                f"{score['signature']}",
                highlight=False,
                soft_wrap=True,
            )

    for family, found in summary.get("calibration", {}).items():
        ece = found["ece"]
        console.print(
            f"{family}: expected calibration error {ece['value']:.3f} ({ece['low']:.3f} to {ece['high']:.3f}), "
            f"mean confidence {found['confidence']:.3f}, accuracy {found['accuracy']:.3f}",
            highlight=False,
            soft_wrap=True,
        )
    _global_mmlu(console, summary.get("global_mmlu"))


def _global_mmlu(console: Console, found: Mapping[str, Any] | None) -> None:
    """The culturally sensitive part beside the agnostic one."""
    if not found:
        return
    if "error" in found:
        console.print(f"Global-MMLU by cultural sensitivity: {found['error']}", highlight=False, markup=False)
        return
    table = Table(title="Global-MMLU: annotated, culturally sensitive, agnostic", title_justify="left")
    table.add_column("language")
    subsets = ("MA", "CS", "CA")
    for subset in subsets:
        table.add_column(subset, justify="right")
    for language in found["accuracy"]["MA"]:
        table.add_row(language, *(_estimate(found["accuracy"][subset].get(language)) for subset in subsets))
    console.print(table)


def _estimate(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "–"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _cell(found: Mapping[str, float] | None) -> str:
    return "–" if found is None else f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
