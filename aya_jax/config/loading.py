"""Importing what a name says, when it is wanted: some modules take seconds."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterator
from typing import Any


def load(path: str) -> Any:
    """What "module:attribute" names.

    Raises:
      ImportError: there is no such module, or it does not import.
      AttributeError: it has no such attribute.
    """
    module, _, attribute = path.partition(":")
    with _nothing_collected():
        return getattr(importlib.import_module(module), attribute)


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Imports make a million objects and hardly any garbage: to look through them for it, again and again, takes a quarter of
    their time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
