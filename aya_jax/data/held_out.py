"""How much of a source is held out of training."""

from __future__ import annotations

from dataclasses import dataclass

OF = 1000


@dataclass(frozen=True)
class HeldOutShare:
    """So many of 1000 documents, chosen by their content (`seqio_source.HeldOut`).

    Attributes:
      permille: how many.
      fold: which ones: the first `permille` of 1000, the next, and so on, so that every document can be held out in turn. None:
        the first, and a source's first document besides.
    """

    permille: int
    fold: int | None = None

    @property
    def range(self) -> range:
        """The numbers of 1000 that are held out."""
        start = (self.fold or 0) * self.permille
        return range(start, min(start + self.permille, OF))


NOTHING_HELD_OUT = HeldOutShare(0)
