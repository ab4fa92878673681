"""What came of judging, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints whatever a summary of `aya judge` holds."""
    if "form" in summary:
        _pairwise(console, summary)
    if "agreement" in summary:
        _agreement(console, summary["agreement"])
    if "benchmark" in summary:
        _reward_bench(console, summary)
    if "harm" in summary:
        _harm(console, summary)


def _pairwise(console: Console, summary: Mapping[str, Any]) -> None:
    arena, controlled = summary["form"] == "arena_hard", summary.get("style_controlled")
    table = _table(f"{summary['model']} against {summary['baseline']}, per cent (50 is as good)")
    columns = [
        "language",
        "score" if arena else "win rate",
        "at equal style",
        "prompts",
        "position gap",
        "flips",
        "ties",
    ]
    for column in [*columns, "unread"]:
        table.add_column(column, justify="left" if column == "language" else "right")
    scores = summary["scores"]
    for language, found in scores["languages"].items():
        fit = controlled["languages"].get(language) if controlled else None
        table.add_row(language, *_pair_row(found, arena, fit, summary["audit"][language]))
    table.add_section()
    macro = scores["macro"] if arena else scores["macro"]["win_rate"]
    style = (controlled["macro"] or {}).get("model") if controlled else None
    audit = summary["audit"]["all"]
    table.add_row("mean of languages", interval(macro), interval(style), "", *_audit(audit))
    console.print(table)
    for language, prompt, order, error in summary["unparsed"]:
        console.print(f"no verdict: {prompt} ({language}), order {order}: {error}", highlight=False, markup=False)


def _pair_row(found: Mapping[str, Any], arena: bool, fit: Any, audit: Mapping[str, Any]) -> list[str]:
    score = found["score"] if arena else found["win_rate"]
    counted = found["prompts"] if arena else found["games"]
    rate = (fit["win_rates"] or {}).get("model") if fit else None
    return [interval(score), interval(rate), f"{counted:,}", *_audit(audit)]


def _audit(audit: Mapping[str, Any]) -> list[str]:
    return [
        *(number(audit[name]) for name in ("position_gap", "flip_rate", "tie_rate")),
        f"{audit['unparsed']:,} of {audit['games']:,}",
    ]


def _agreement(console: Console, agreements: Mapping[str, Any]) -> None:
    table = _table("Agreement with people")
    for column in ("pairs", "right", "right of what can be read", "kappa", "judgements", "ties", "unread"):
        table.add_column(column, justify="left" if column == "pairs" else "right")
    for name, found in agreements.items():
        table.add_row(
            name,
            interval(found["accuracy"]),
            interval(found["accuracy_of_read"]),
            interval(found["kappa"], digits=2),
            *(f"{found[part]:,}" for part in ("judgements", "ties", "unparsed")),
        )
    console.print(table)


def _reward_bench(console: Console, summary: Mapping[str, Any]) -> None:
    scores = summary["scores"]
    table = _table(f"{summary['benchmark']}, per cent")
    sections = list(scores["sections"])
    for column in ("language", *sections, "score"):
        table.add_column(column, justify="left" if column == "language" else "right")
    for language, found in scores["languages"].items():
        cells = (interval(found["sections"][section]) for section in sections)
        table.add_row(language, *cells, interval(found["score"]))
    table.add_section()
    means = (interval(scores["sections"][section]) for section in sections)
    table.add_row("mean of languages", *means, interval(scores["score"]))
    console.print(table)
    for language, found in scores["languages"].items():
        missing = [*found["missing"], *(f"{n} ({a} of {b})" for n, (a, b) in found["short"].items())]
        if missing:
            console.print(f"{language} lacks {', '.join(missing)}.", highlight=False, soft_wrap=True)


def _harm(console: Console, summary: Mapping[str, Any]) -> None:
    kinds = [name for name in ("harm", "baseline", "over_refusal") if name in summary]
    table = _table("Judged alone, per cent")
    for column in ("part", *(name.replace("_", " ") for name in kinds), "answers", "unread"):
        table.add_column(column, justify="left" if column == "part" else "right")
    first = summary["harm"]
    for part in ("overall", "languages", "categories", "scopes"):
        for name in ["all"] if part == "overall" else first[part]:
            rows = [summary[kind][part] if part == "overall" else summary[kind][part].get(name) for kind in kinds]
            cells = (interval(row["rate"]) if row else "–" for row in rows)
            table.add_row(name, *cells, f"{rows[0]['judged']:,}", f"{rows[0]['unparsed']:,}")
        table.add_section()
    console.print(table)
    change = summary.get("relative_change", {}).get("all")
    if change:
        note = f" {change['note']}" if change["note"] else ""
        console.print(f"Relative change of the harm rate: {interval(change['change'])} %.{note}", highlight=False)


def interval(found: Mapping[str, float] | None, digits: int = 1) -> str:
    """A number with its interval; a dash where there is none."""
    if found is None or found["value"] is None:
        return "–"
    text = number(found["value"], digits)
    return (
        text if found["low"] is None else f"{text} ({number(found['low'], digits)} to {number(found['high'], digits)})"
    )


def number(value: float | None, digits: int = 1) -> str:
    """A number, or a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")
