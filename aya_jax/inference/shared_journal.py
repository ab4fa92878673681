"""A journal that all processes of a run keep together."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from aya_jax.inference.journal import Journal
from aya_jax.parallel.distributed import agree, agree_on, check_same


class SharedJournal:
    """A `Journal` whose file process 0 has; the others know what is done. Every process calls every method, alike.

    Attributes:
      path: of the journal.
      begun: as the journal's.
    """

    def __init__(self, output: str | Path, question: str):
        """As `Journal`.

        Raises:
          UserError: as `Journal`, and where this process has another question than process 0.
        """
        self._own = Journal(output, question) if jax.process_index() == 0 else None
        self.path = Path(f"{output}.partial")
        check_same(question, "other prompts or another model")
        self._done = set(agree_on(sorted(self._own.done) if self._own else []))
        begun = agree_on(list(self._own.begun.items()) if self._own else [])
        self.begun: dict[int, dict[str, Any]] = dict(begun)

    @property
    def done(self) -> set[int]:
        """Rows that have been answered."""
        return self._done

    def add(self, row: int, record: dict[str, Any]) -> None:
        """Keeps a row's answer."""
        self._done.add(row)
        self.begun.pop(row, None)
        if self._own is not None:
            self._own.add(row, record)

    def begin(self, row: int, record: dict[str, Any]) -> None:
        """As `Journal.begin`."""
        self.begun[row] = record
        if self._own is not None:
            self._own.begin(row, record)

    def finish(self) -> None:
        """As `Journal.finish`; when it returns, the output is there."""
        if self._own is not None:
            self._own.finish()
        agree(None)

    def __enter__(self) -> SharedJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is not None:
            self._own.__exit__(kind, error, trace)
