"""Where a run prints."""

from __future__ import annotations

from rich.console import Console

_LOG_WIDTH = 500


def make_console(*, quiet: bool = False) -> Console:
    """Standard output; away from a terminal lines are not wrapped, so that a log can be searched.

    Args:
      quiet: prints nothing (every process but the first).
    """
    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(quiet=quiet, width=_LOG_WIDTH)
