"""Stands for a value that is missing or wrong, so that the checks of what is right can go on.

Whatever is computed from it is unknown too; where a check branches on it, it is whatever `assuming` says. What a check
reports under both assumptions does not depend on the unknown value, and so is a mistake of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_OTHERS = ("neg", "pos", "abs", "invert", "round", "getitem", "call")


class NotKnown(Exception):
    """A check needs an actual number, or the truth, of a value that is not known."""


class Unknown:
    """See the module; there is one, `UNKNOWN`."""

    assumption: bool | None = None
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return MARK

    def __getattr__(self, name: str) -> Unknown:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __bool__(self) -> bool:
        if Unknown.assumption is None:
            raise NotKnown
        return Unknown.assumption

    def __iter__(self) -> Iterator[Unknown]:
        return iter([self] if self else [])

    def __contains__(self, _: Any) -> bool:
        return bool(self)

    def _not_known(self) -> Any:
        raise NotKnown

    __int__ = __index__ = __float__ = _not_known


def _stay_unknown(self: Unknown, *_: Any, **__: Any) -> Unknown:
    return self


for _operation in (*_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC), *_COMPARISONS, *_OTHERS):
    setattr(Unknown, f"__{_operation}__", _stay_unknown)

MARK = "<unknown>"
UNKNOWN = Unknown()


@contextlib.contextmanager
def assuming(truth: bool) -> Iterator[None]:
    """Within the block every branch on the unknown value goes one way."""
    Unknown.assumption = truth
    try:
        yield
    finally:
        Unknown.assumption = None
