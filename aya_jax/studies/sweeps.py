"""The sweep algebra: what a stage varies, as values that multiply, pair up and join.

Two leaves name an axis of variation, three operators combine them, to any depth:

| class | variants |
| --- | --- |
| `Values(name, binding, values)` | one for each value of one binding |
| `Choices(name, choices)` | one for each labelled set of bindings |
| `Product(of)` | every combination, the last factor varying fastest |
| `Zip(of)` | first with first, second with second, ... |
| `ListOf(of)` | the variants of each, one after the other |

(The same three operators as the sweeps of google-deepmind/simply, `utils/sweep.py`, with readable labels added.)
A variant knows its coordinates, `(("code", "25"), ("seed", "1"))`: they name its directory, `code_25-seed_1`, and say
which variant of an earlier stage it continues: the one that agrees on every axis that both have.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aya_jax.config.registry import Problem, configurable

_AXIS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VALUE_LABEL = re.compile(r"[A-Za-z0-9+-][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Variant:
    """One point of a sweep.

    Attributes:
      coordinates: (axis name, value label) pairs, in the sweep's order.
      bindings: gin name → value, what this variant binds.
    """

    coordinates: tuple[tuple[str, str], ...]
    bindings: dict[str, Any]

    @property
    def label(self) -> str:
        """The readable name, "code_25-seed_1"; "" for a stage that does not vary."""
        return "-".join(f"{axis}_{value}" for axis, value in self.coordinates)

    def agrees_with(self, other: Variant) -> bool:
        """Whether both have the same value on every axis that both have."""
        mine, theirs = dict(self.coordinates), dict(other.coordinates)
        return all(mine[axis] == theirs[axis] for axis in mine.keys() & theirs.keys())


@configurable
@dataclass(frozen=True, kw_only=True)
class Values:
    """An axis that gives one binding several values.

    Attributes:
      name: the axis, used in labels: letters, digits and underscores.
      binding: the macro or `Class.field` that takes the values ("SEED").
      values: the values, in order; each appears in the label as it is written, "seed_1".
    """

    name: str
    binding: str
    values: tuple[int | float | str | bool, ...]

    def validate(self) -> Iterator[Problem]:
        """Yields what is wrong with the name, the values or their labels."""
        yield from _name_problems(self.name)
        if not self.binding:
            yield Problem("binding", "the macro or Class.field that takes the values")
        if not self.values:
            yield Problem("values", "at least one value")
        yield from _label_problems("values", [_value_label(value) for value in self.values])

    def variants(self) -> list[Variant]:
        """One variant for each value."""
        return [Variant(((self.name, _value_label(value)),), {self.binding: value}) for value in self.values]


@configurable
@dataclass(frozen=True, kw_only=True)
class Choices:
    """An axis whose every value is a whole set of bindings, under a label.

    Attributes:
      name: the axis, used in labels: letters, digits and underscores.
      choices: label → bindings, in order. A set may be empty: then the axis only says which variant of an earlier stage
        this one continues.
    """

    name: str
    choices: dict[str, dict[str, Any]]

    def validate(self) -> Iterator[Problem]:
        """Yields what is wrong with the name or the labels."""
        yield from _name_problems(self.name)
        if not self.choices:
            yield Problem("choices", "at least one labelled set of bindings")
        yield from _label_problems("choices", list(self.choices))

    def variants(self) -> list[Variant]:
        """One variant for each labelled set."""
        return [Variant(((self.name, label),), dict(bindings)) for label, bindings in self.choices.items()]


@configurable
@dataclass(frozen=True, kw_only=True)
class Product:
    """Every combination of several sweeps; the last varies fastest.

    Attributes:
      of: the sweeps to combine; no axis and no binding may appear in two of them.
    """

    of: tuple[Values | Choices | Product | Zip | ListOf, ...]

    def validate(self) -> Iterator[Problem]:
        """Yields an axis or a binding that two factors share."""
        if not self.of:
            yield Problem("of", "at least one sweep")
        yield from _overlap_problems(self.of)

    def variants(self) -> list[Variant]:
        """The product of the factors' variants."""
        combined = [Variant((), {})]
        for sweep in self.of:
            combined = [_join(left, right) for left in combined for right in sweep.variants()]
        return combined


@configurable
@dataclass(frozen=True, kw_only=True)
class Zip:
    """Several sweeps of one length, side by side.

    Attributes:
      of: the sweeps to pair up; no axis and no binding may appear in two of them.
    """

    of: tuple[Values | Choices | Product | Zip | ListOf, ...]

    def validate(self) -> Iterator[Problem]:
        """Yields unequal lengths, and an axis or a binding that two of the sweeps share."""
        if not self.of:
            yield Problem("of", "at least one sweep")
        lengths = [len(sweep.variants()) for sweep in self.of]
        if len(set(lengths)) > 1:
            yield Problem("of", f"sweeps of one length to pair up; these have {', '.join(map(str, lengths))} variants")
        yield from _overlap_problems(self.of)

    def variants(self) -> list[Variant]:
        """The i-th variants of all the sweeps, joined, for every i (up to the shortest, which `validate` refuses)."""
        paired = []
        for row in zip(*(sweep.variants() for sweep in self.of), strict=False):
            joined = Variant((), {})
            for variant in row:
                joined = _join(joined, variant)
            paired.append(joined)
        return paired


@configurable
@dataclass(frozen=True, kw_only=True)
class ListOf:
    """The variants of several sweeps, one sweep after the other.

    Attributes:
      of: the sweeps to join end to end; no two may give the same label.
    """

    of: tuple[Values | Choices | Product | Zip | ListOf, ...]

    def validate(self) -> Iterator[Problem]:
        """Yields labels that two of the sweeps give."""
        if not self.of:
            yield Problem("of", "at least one sweep")
        for label in _duplicates(variant.label for variant in self.variants()):
            yield Problem("of", f"different labels in every sweep; {label!r} appears more than once")

    def variants(self) -> list[Variant]:
        """The variants of each sweep in turn."""
        return [variant for sweep in self.of for variant in sweep.variants()]


Sweep = Values | Choices | Product | Zip | ListOf


def variants_of(sweep: Sweep | None) -> list[Variant]:
    """A stage's variants: the sweep's, or a single one without coordinates."""
    return [Variant((), {})] if sweep is None else sweep.variants()


def _join(left: Variant, right: Variant) -> Variant:
    return Variant(left.coordinates + right.coordinates, left.bindings | right.bindings)


def _value_label(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _duplicates(items: Iterable[str]) -> list[str]:
    return [item for item, count in collections.Counter(items).items() if count > 1]


def _name_problems(name: str) -> Iterator[Problem]:
    if not _AXIS_NAME.fullmatch(name):
        yield Problem("name", "a letter, then letters, digits or underscores: it becomes part of directory names")


def _label_problems(field: str, labels: list[str]) -> Iterator[Problem]:
    for label in labels:
        if not _VALUE_LABEL.fullmatch(label):
            yield Problem(
                field, f"labels of letters, digits, '_', '.', '+' or '-', as directory names need; {label!r} is not one"
            )
    for label in _duplicates(labels):
        yield Problem(field, f"different labels; {label!r} appears more than once")


def _overlap_problems(sweeps: Iterable[Sweep]) -> Iterator[Problem]:
    """An axis, or a binding, that two sweeps to be combined both have."""
    axes: collections.Counter[str] = collections.Counter()
    bindings: collections.Counter[str] = collections.Counter()
    for sweep in sweeps:
        variants = sweep.variants()
        axes.update({axis for variant in variants for axis, _ in variant.coordinates})
        bindings.update({name for variant in variants for name in variant.bindings})
    for axis, count in axes.items():
        if count > 1:
            yield Problem("of", f"each axis once; {axis!r} appears in {count} of the combined sweeps")
    for name, count in bindings.items():
        if count > 1:
            yield Problem("of", f"each binding once; {name} is bound by {count} of the combined sweeps")
