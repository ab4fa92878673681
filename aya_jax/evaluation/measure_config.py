"""What every kind of measurement says of itself to `aya evaluate`, which knows none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """A measurement; its own fields say what is measured."""

    RUN: ClassVar[str] = ""
    """What measures a model: "module:name" of a function of a `subject.Setting`."""
    RUN_ON_TEXTS: ClassVar[str] = ""
    """What measures where no model is needed: a function of (resolved, file of the summary, console)."""

    @property
    def needs_model(self) -> bool:
        """Whether a model is measured, and not texts."""
        return bool(self.RUN)
