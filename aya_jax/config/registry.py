"""Registering what gin may bind: frozen dataclasses, by their bare class name.

A configuration class is a frozen, keyword-only dataclass. A field without a default must be bound in gin; a field whose
type is another configuration class is built from that class's own bindings when nothing is bound to it. `gin.register`
leaves the Python class as it is: bindings act only when `config.resolve` builds the tree, so calling a class in Python
means exactly what it says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Protocol, TypeVar

import gin


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
      field: the field at fault, dotted from the object whose `validate()` reports it ("num_heads", "model.num_heads").
      expected: what would be right, and what to do, in one sentence.
      near: at most three close names that may have been meant.
    """

    field: str
    expected: str
    near: tuple[str, ...] = ()


class Validated(Protocol):
    """What `resolve` asks of every configuration object it has built."""

    def validate(self) -> Iterable[Problem]: ...


T = TypeVar("T", bound=type)

CONFIGURABLES: dict[str, type] = {}


def configurable(cls: T) -> T:
    """Makes a frozen dataclass bindable in gin files as `ClassName.field = value`; returns it unchanged."""
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:
        raise TypeError(f"{cls.__qualname__} must be a frozen dataclass to be configurable")
    gin.register(cls.__name__)(cls)
    CONFIGURABLES[cls.__name__] = cls
    return cls
