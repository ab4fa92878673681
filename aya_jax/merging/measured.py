"""What was measured of a merge, item by item, and what of the difference between two merges their items tell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aya_jax.config.files import write_atomic
from aya_jax.evaluation.statistics import RESAMPLES, Differences, differences_of, resample_counts


class Goal(NamedTuple):
    """An objective.

    Attributes:
      name: as `MergeSearchConfig.goal_names` has it.
      measure: what it is of: the name of measurements.
      language: of which language; None: of the mean over languages.
      minimize: whether less is better.
    """

    name: str
    measure: str
    language: str | None
    minimize: bool


class Item(NamedTuple):
    """A document, question or pair: its value is a quotient, so that of several is that of the sums.

    Attributes:
      id: the same whatever merge is measured; of a question, the same in all languages where it is the same question.
      language: of it.
      value: 1 for a right answer; the bits of a document.
      size: 1; the bytes of the document.
    """

    id: str
    language: str
    value: float
    size: float = 1.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """One measurement of one merge.

    Attributes:
      languages: of each language; of what has none, of "".
      items: what they follow from; none where only the numbers are known.
    """

    languages: Mapping[str, float]
    items: tuple[Item, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item]) -> Measured:
        """From items: of each language the sum of values by the sum of sizes."""
        items = tuple(items)
        sums: dict[str, np.ndarray] = {}
        for item in items:
            sums.setdefault(item.language, np.zeros(2))[:] += item.value, item.size
        languages = {
            name: float(value / size) if size else float("nan") for name, (value, size) in sorted(sums.items())
        }
        return cls(languages, items)

    @property
    def mean(self) -> float:
        """Of the languages' numbers."""
        return float(np.mean(list(self.languages.values())))

    def goal(self, goal: Goal) -> float:
        """The number of an objective; not a number where its language was not measured."""
        return self.mean if goal.language is None else self.languages.get(goal.language, float("nan"))


def write_items(file: Path, measured: Mapping[str, Measured]) -> None:
    """Writes all items of a merge, a JSON line each."""
    lines = (
        json.dumps({"measure": name} | item._asdict(), ensure_ascii=False) + "\n"
        for name, found in measured.items()
        for item in found.items
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, "".join(lines))


def read_items(file: Path) -> dict[str, tuple[Item, ...]]:
    """The items by measurement; nothing where there is no file."""
    found: dict[str, list[Item]] = {}
    for line in _lines(file):
        fields = json.loads(line)
        found.setdefault(fields.pop("measure"), []).append(Item(**fields))
    return {name: tuple(items) for name, items in found.items()}


def difference(
    first: Iterable[Item], second: Iterable[Item], *, resamples: int = RESAMPLES, seed: int = 0
) -> Differences:
    """The second's numbers less the first's, by language and of their mean, with intervals of the items that both have.

    Items are drawn for both at once, and for all languages at once where they are the same question (statistics.py).

    Raises:
      ValueError: they share no item.
    """
    left, right = ({(item.id, item.language): item for item in items} for items in (first, second))
    shared = [key for key in left if key in right]
    if not shared:
        raise ValueError("the two share no item")
    rows = {name: row for row, name in enumerate(dict.fromkeys(key[0] for key in shared))}
    columns = {name: column for column, name in enumerate(sorted({key[1] for key in shared}))}
    values, sizes = (np.zeros((2, len(rows), len(columns))) for _ in range(2))
    for of, items in enumerate((left, right)):
        for key in shared:
            at = of, rows[key[0]], columns[key[1]]
            values[at], sizes[at] = items[key].value, items[key].size
    drawn = [_quotients(counts, values, sizes) for counts in resample_counts(len(rows), resamples, seed)]
    estimates = _quotients(np.ones((1, len(rows))), values, sizes)[0]
    counted = np.count_nonzero(sizes[0], axis=0)
    right_or_wrong = bool(np.isin(values, (0, 1)).all() and np.isin(sizes, (0, 1)).all())
    return differences_of(
        list(columns), estimates, np.concatenate(drawn), counted, items=len(rows) if right_or_wrong else None
    )


def _quotients(counts: np.ndarray, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Differences [draws, languages] of the two quotients, items drawn so often."""
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = ((counts @ values[of]) / (counts @ sizes[of]) for of in range(2))
    return second - first


def _lines(file: Path) -> Iterator[str]:
    if file.is_file():
        yield from filter(None, file.read_text(encoding="utf-8").split("\n"))
