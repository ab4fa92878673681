"""Contamination of evaluation rows by training text: which rows, by which documents, and what scores are without them.

One record for each row, with the share of its n-grams that the training text has; the summary counts by benchmark and
language. Where records of evaluations are given, every mean is told over all rows and over those that are not contaminated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import write_atomic
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.contamination.config import ContaminationConfig
from aya_jax.evaluation.contamination.documents import Corpus, known_blocks, look_through, open_corpus
from aya_jax.evaluation.contamination.overlap import EvaluationRow, RowOverlap, Search, by_language, passage
from aya_jax.evaluation.contamination.results import read_records
from aya_jax.evaluation.contamination.rows import Evaluation, gather, read_evaluations
from aya_jax.evaluation.results import Sample, plain, read_summary, samples_file, summarize
from aya_jax.training.console import tracker

_LONGEST_PASSAGE = 1000  # characters that a record keeps
_SHOWN = 3


def run(resolved: Resolved[EvaluateConfig], file: Path, console: Console) -> None:
    """Writes `<file>` and its records, and prints the counts.

    Args:
      resolved: what is asked for.
      file: of the summary.
      console: for progress and the tables.

    Raises:
      UserError: rows or stores are missing or damaged.
    """
    config = cast(ContaminationConfig, resolved.config.measure)
    corpus, evaluations = open_corpus(config), read_evaluations(config)
    rows = gather(config, evaluations, lambda text: console.print(text, highlight=False, soft_wrap=True))
    if not rows:
        raise UserError("contamination: the benchmarks and files have no rows")
    digest = _digest(rows, config.n)
    heading = {
        "kind": "contamination",
        "fingerprint": resolved.fingerprint,
        "rows_digest": digest,
        "stores": {name: opened.manifest.digest for name, opened in corpus.stores.items()},
        "n": config.n,
        "threshold": config.threshold,
    }
    summary = read_summary(file)
    if summary and all(summary.get(name) == value for name, value in heading.items()):
        console.print(f"{file} is there for these rows and stores.", highlight=False, soft_wrap=True)
    else:
        search = Search(rows, config.n)
        with known_blocks(file, digest) as known:
            if len(known):
                console.print(f"{len(known):,} blocks of documents were read before.", highlight=False)
            look_through(corpus, search, known, tracker(console))
        summary = _write(file, heading, corpus, search.overlaps(), evaluations)
    show(console, summary, read_records(file))


def with_and_without(samples: Sequence[Sample], flagged: set[str]) -> dict[str, Any]:
    """Every mean over all rows and over those that are not flagged: family -> metric -> "all" and "clean" -> as `summarize`."""
    every, clean = summarize(samples), summarize(sample for sample in samples if sample.id not in flagged)
    return {
        family: {
            metric: {"all": found, "clean": clean.get(family, {}).get(metric)} for metric, found in metrics.items()
        }
        for family, metrics in every.items()
    }


def show(console: Console, summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Prints counts by benchmark and language, the rows that are found most, and scores with and without them."""
    table = Table(
        title=f"Rows whose {summary['n']}-grams stand in {summary['documents']:,} training documents "
        f"({summary['tokens']:,} tokens)",
        title_justify="left",
    )
    for column in ("benchmark", "language"):
        table.add_column(column)
    for column in ("rows", "too short", "touched", "contaminated", "mean share"):
        table.add_column(column, justify="right")
    for benchmark, languages in summary["benchmarks"].items():
        for language, found in languages.items():
            share = "–" if found["mean_share"] is None else f"{found['mean_share']:.1%}"
            counts = (f"{found[name]:,}" for name in ("rows", "too_short", "touched", "contaminated"))
            table.add_row(benchmark, language, *counts, share)
    console.print(table)
    _say_what_is_too_short(console, summary)
    flagged = sorted((r for r in records if r["contaminated"]), key=lambda record: -record["share"])
    for record in flagged[:_SHOWN]:
        where = record["document"]
        console.print(
            f"{record['id']}: {record['share']:.0%} in {where['store']}, document {where['number']:,}: "
            f"{' '.join(record['passage'].split())[:160]}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for evaluation, families in summary["scores"].items():
        _show_scores(console, evaluation, families)


def _say_what_is_too_short(console: Console, summary: Mapping[str, Any]) -> None:
    """Names benchmarks of whose rows more than half are too short to be told of."""
    for benchmark, languages in summary["benchmarks"].items():
        rows, short = (sum(found[name] for found in languages.values()) for name in ("rows", "too_short"))
        if 2 * short > rows:
            console.print(
                f"{benchmark}: {short:,} of {rows:,} rows have no text of {summary['n']} tokens, and nothing is known of them; "
                "a smaller ContaminationConfig.n finds shorter ones, and more that are alike by chance.",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )


def _show_scores(console: Console, evaluation: str, families: Mapping[str, Any]) -> None:
    table = Table(title=f"{evaluation}: means of languages", title_justify="left")
    for column in ("benchmark", "metric"):
        table.add_column(column)
    for column in ("all rows", "without the contaminated"):
        table.add_column(column, justify="right")
    for family, metrics in families.items():
        for metric, found in metrics.items():
            table.add_row(family, metric, *(_macro(found[which]) for which in ("all", "clean")))
    console.print(table)


def _macro(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no row is left"
    macro, count = found["macro"], sum(language["n"] for language in found["languages"].values())
    return f"{macro['mean']:.3f} ({macro['low']:.3f} to {macro['high']:.3f}) of {count:,}"


def _write(
    file: Path,
    heading: Mapping[str, Any],
    corpus: Corpus,
    overlaps: Sequence[RowOverlap],
    evaluations: Mapping[str, Evaluation],
) -> dict[str, Any]:
    """Writes the records and, last, the summary, which it returns."""
    records = [_record(found, corpus, heading["n"], heading["threshold"]) for found in overlaps]
    lines = (json.dumps(record, ensure_ascii=False) for record in records)
    write_atomic(samples_file(file), "".join(f"{line}\n" for line in lines))
    flagged = {record["id"] for record in records if record["contaminated"]}
    summary = {
        **heading,
        "documents": corpus.documents,
        "tokens": corpus.tokens,
        "benchmarks": {
            name: plain(by_language(found, heading["threshold"])) for name, found in _by_benchmark(overlaps).items()
        },
        "scores": {name: with_and_without(each.samples, flagged) for name, each in evaluations.items()},
    }
    write_atomic(file, json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return summary


def _record(found: RowOverlap, corpus: Corpus, n: int, threshold: float) -> dict[str, Any]:
    flagged = found.share is not None and found.share >= threshold
    place = None if found.document is None else corpus.place(found.document)
    return {
        "id": found.row.id,
        "benchmark": found.row.benchmark,
        "language": found.row.language,
        "ngrams": found.ngrams,
        "share": found.share,
        "contaminated": flagged,
        "document": None if place is None else place._asdict(),
        "passage": passage(found.row, corpus.text(place), n)[:_LONGEST_PASSAGE] if flagged and place else "",
    }


def _by_benchmark(overlaps: Iterable[RowOverlap]) -> dict[str, list[RowOverlap]]:
    groups: dict[str, list[RowOverlap]] = {}
    for found in overlaps:
        groups.setdefault(found.row.benchmark, []).append(found)
    return groups


def _digest(rows: Sequence[EvaluationRow], n: int) -> str:
    """SHA-256 of what is looked for."""
    parts = [n, [[row.id, row.pieces] for row in rows]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
