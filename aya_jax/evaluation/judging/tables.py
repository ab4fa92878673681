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
    if "raters" in summary:
        _raters(console, summary["raters"])
    if "scores" in summary and "benchmark" in summary:
        _reward_bench(console, summary)
    if "translation" in summary:
        _shares(console, "Translation, per cent", "cell", summary["translation"], "cells")
    if "reward_bench_2" in summary:
        _shares(console, "RewardBench 2, per cent", "subset", summary["reward_bench_2"], "subsets")
    if "grades" in summary:
        _grades(console, summary)
    if "harm" in summary:
        _harm(console, summary)
    if "transfer" in summary:
        _transfer(console, summary)


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


def _raters(console: Console, raters: Mapping[str, Any]) -> None:
    table = _table("Krippendorff's alpha, 1 is agreement and 0 chance")
    for column in ("pairs", "people", "people and judge", "number", "most labels", "undecided"):
        table.add_column(column, justify="left" if column == "pairs" else "right")
    for name, found in raters.items():
        alphas = (interval(found[part], digits=2) for part in ("people", "with_judge"))
        table.add_row(name, *alphas, *(f"{found[part]:,}" for part in ("pairs", "most_labels", "undecided")))
    console.print(table)


def _shares(console: Console, title: str, column: str, found: Mapping[str, Any], parts: str) -> None:
    """Per cent of parts and their mean."""
    numbers = found.get("instances") or {name: judged for name, (judged, _) in found["questions"].items()}
    table = _table(title)
    for name in (column, "right", "number", "unread"):
        table.add_column(name, justify="left" if name == column else "right")
    for name, share in found[parts].items():
        table.add_row(name, interval(share), f"{numbers[name]:,}", f"{found['unparsed'][name]:,}")
    table.add_section()
    table.add_row(f"mean of {len(found[parts])} {parts}", interval(found["score"]), "", "")
    console.print(table)
    lacking = [*found["missing"], *(f"{n} ({a} of {b})" for n, (a, b) in found.get("questions", {}).items() if a < b)]
    if lacking:
        console.print(f"Missing: {', '.join(lacking)}.", highlight=False, soft_wrap=True)


def _grades(console: Console, summary: Mapping[str, Any]) -> None:
    table = _table("Grades from 1 to 10")
    for column in ("language", "part", "grade", "answers", "unread"):
        table.add_column(column, justify="left" if column in ("language", "part") else "right")
    languages = summary["grades"]["languages"]
    for language, found in languages.items():
        parts = {"all": found["overall"]} | {f"turn {turn}": part for turn, part in found["turns"].items()}
        for name, part in (parts | found["categories"]).items():
            table.add_row(language, name, interval(part["score"], 2), f"{part['graded']:,}", f"{part['unparsed']:,}")
        table.add_section()
    if len(languages) > 1:
        table.add_row("mean of languages", "all", interval(summary["grades"]["macro"], 2), "", "")
    console.print(table)
    for language, prompt, turn, error in summary["unparsed"]:
        console.print(f"no grade: {prompt} ({language}), turn {turn}: {error}", highlight=False, markup=False)


def _transfer(console: Console, summary: Mapping[str, Any]) -> None:
    table = _table(f"Change of the harm rate, per cent, by {summary['by']}")
    for column in ("trained on", *summary["columns"], "unread"):
        table.add_column(column, justify="left" if column == "trained on" else "right")
    for name, row in summary["transfer"].items():
        cells = (interval(row[column]["change"]) for column in summary["columns"])
        table.add_row(name, *cells, f"{summary['unparsed'][name]:,}")
    table.add_section()
    first = next(iter(summary["transfer"].values()))
    rates = (number(first[column]["baseline_rate"]) for column in summary["columns"])
    table.add_row("baseline's rate", *rates, f"{summary['unparsed']['baseline']:,}")
    console.print(table)
    for name, row in summary["transfer"].items():
        for column, cell in row.items():
            if cell["note"]:
                console.print(f"trained on {name}, tested on {column}: {cell['note']}", highlight=False, soft_wrap=True)


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
    agreement = summary.get("agreement_with_english")
    if agreement:
        console.print(
            f"Agreement with English: kappa {interval(agreement['mean'], 2)}, standard deviation "
            f"{number(agreement['sd'], 3)} over {len(agreement['languages'])} languages; Krippendorff's alpha of all "
            f"{interval(agreement['alpha'], 2)}.",
            highlight=False,
            soft_wrap=True,
        )
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
