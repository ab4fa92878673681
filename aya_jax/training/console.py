"""Where a run prints, and how it shows that it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOG_WIDTH = 500
Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""(label, total) -> a context with what is told of how much more is done."""


def make_console(*, quiet: bool = False) -> Console:
    """Standard output; away from a terminal lines are not wrapped, so that a log can be searched.

    Args:
      quiet: prints nothing (every process but the first).
    """
    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=_LOG_WIDTH)


def tracker(console: Console) -> Track:
    """Progress bars on a terminal."""

    @contextlib.contextmanager
    def track(label: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(label, total=total)
            yield lambda count: progress.advance(task, count)

    return track
