"""Configuration classes of the tests' own; gin's registry is global, so their names are like no real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, Literal

from aya_jax.config import Problem, configurable


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class OvenExample:
    """An oven.

    Attributes:
      celsius: the temperature.
      fan: whether the fan runs,
        which it need not.
    """

    celsius: float = 180.0
    fan: bool = False

    def validate(self) -> Iterator[Problem]:
        if not 0 < self.celsius < 500:
            yield Problem("celsius", "a temperature between 0 and 500")


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class DishExample:
    """A dish."""

    name: str
    minutes: int = 10
    oven: OvenExample | None = None


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChefExample:
    """A chef with helpers, and bowls that must divide by hands."""

    hands: int
    bowls: int
    title: Literal["chef", "souschef"] = "chef"

    def validate(self) -> Iterator[Problem]:
        if self.bowls < 0:
            yield Problem("bowls", f"at least one for each of {self.hands} hands")
        if self.bowls % self.hands:
            yield Problem("bowls", f"a multiple of hands = {self.hands}")


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class GarageExample:
    """Not part of a kitchen."""

    cars: int = 1


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class KitchenExample:
    """The root of the tests' configurations.

    Attributes:
      run_dir: where it stands.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("run_dir", "oven.fan")

    run_dir: str
    chef: ChefExample
    seed: int = 0
    limit: float | None = None
    anything: int | float | str | bool | None = None
    words: tuple[str, ...] = ()
    prices: dict[str, float] = dataclasses.field(default_factory=dict)
    plan: tuple[tuple[int, dict[str, float]], ...] = ()
    guest: ChefExample | None = None
    menu: tuple[DishExample, ...] = ()
    dishes: dict[str, DishExample] = dataclasses.field(default_factory=dict)
    best: DishExample | OvenExample | None = None
    oven: OvenExample = dataclasses.field(default_factory=lambda: OvenExample(celsius=220.0))

    def validate(self) -> Iterator[Problem]:
        if self.seed < 0:
            yield Problem("seed", "at least 0")
        if self.chef.bowls > 100:
            yield Problem("chef.bowls", "at most 100 in one kitchen")
        for index, dish in enumerate(self.menu):
            if dish.minutes > 60:
                yield Problem(f"menu[{index}].minutes", "at most 60")


VALID = """\
RUN_DIR = 'somewhere'
KitchenExample.run_dir = %RUN_DIR
ChefExample.hands = 2
ChefExample.bowls = 4
"""
