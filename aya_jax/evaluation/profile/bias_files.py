"""The files of BBQ, StereoSet and CrowS-Pairs as they are published, below `eval/` of a folder.

| benchmark | files | from |
| --- | --- | --- |
| BBQ | `bbq/*.jsonl` or `bbq/data/*.jsonl`; anywhere below `bbq`, `additional_metadata.csv` | nyu-mll/BBQ |
| StereoSet | `stereoset/dev.json` | moinnadeem/StereoSet |
| CrowS-Pairs | `crows_pairs/crows_pairs_anonymized.csv` | nyu-mll/crows-pairs |
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aya_jax.config import UserError
from aya_jax.evaluation.profile.bias_items import (
    BbqItem,
    CrowsPair,
    StereoSetItem,
    bbq_items,
    crows_pairs,
    stereoset_items,
)
from aya_jax.evaluation.rows import read_rows

Item = BbqItem | StereoSetItem | CrowsPair


class Loaded(NamedTuple):
    """A benchmark as it was read.

    Attributes:
      items: that are asked.
      files: that they are from.
      left_out: rows of BBQ of which neither additional_metadata.csv nor they themselves say whom the stereotype is about.
    """

    items: list[Item]
    files: list[Path]
    left_out: int = 0


def load_items(benchmark: str, data_dir: str | Path, limit: int | None) -> Loaded:
    """The items of "bbq", "stereoset" or "crows_pairs".

    Args:
      benchmark: which.
      data_dir: the folder.
      limit: at most so many of each group, the first ones; None takes all.

    Raises:
      UserError: a file is missing or damaged, or an item is there twice.
    """
    items, files, left_out = _LOADERS[benchmark](Path(data_dir) / "eval" / benchmark)
    if not items:
        raise UserError(f"{files[0]}: no items")
    for name, count in Counter(item.id for item in items).items():
        if count > 1:
            raise UserError(f"{files[0].parent}: item {name!r} is there {count} times; leave one")
    if limit is not None:
        seen: Counter[str] = Counter()
        kept = []
        for item in items:
            seen[group(item)] += 1
            if seen[group(item)] <= limit:
                kept.append(item)
        items = kept
    return Loaded(items, files, left_out)


def group(item: Item) -> str:
    """Whom an item is about: BBQ's category, the others' type of bias."""
    return item.category if isinstance(item, BbqItem) else item.bias_type


def _bbq(folder: Path) -> Loaded:
    files = sorted(folder.glob("*.jsonl")) or sorted((folder / "data").glob("*.jsonl"))
    if not files:
        raise UserError(f"{folder}: no *.jsonl is there: put the files of nyu-mll/BBQ's data folder there")
    metadata = sorted(folder.rglob("additional_metadata.csv"))[:1]
    rows = [row for file in metadata for row in _csv(file)]
    asked = {file: [row.fields for row in read_rows(file)] for file in files}
    items = [item for file, fields in asked.items() for item in bbq_items(fields, rows, file)]
    return Loaded(items, files + metadata, sum(map(len, asked.values())) - len(items))


def _stereoset(folder: Path) -> Loaded:
    file = folder / "dev.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))["data"]
        parts = {kind: data[kind] for kind in ("intrasentence", "intersentence")}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file}: not StereoSet's dev.json of data.intrasentence and data.intersentence: {error!r}"
        ) from error
    return Loaded([i for kind, rows in parts.items() for i in stereoset_items(rows, kind, f"{file} {kind}")], [file])


def _crows_pairs(folder: Path) -> Loaded:
    file = folder / "crows_pairs_anonymized.csv"
    return Loaded(crows_pairs(_csv(file), file, first=2), [file])  # the first line names the columns


def _csv(file: Path) -> Sequence[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error


_LOADERS: dict[str, Callable[[Path], Loaded]] = {
    "bbq": _bbq,
    "stereoset": _stereoset,
    "crows_pairs": _crows_pairs,
}
