"""How far a reading or writing of weights is, for people."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class BytesBar:
    """Shows bytes done, of how many, and how fast, where there is a terminal; also a context."""

    def __init__(self, console: Console, doing: str):
        """`doing`: what is done, in a word."""
        columns = TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(doing, total=None)

    def __call__(self, size: int, total: int) -> None:
        """`size` more bytes are done, of `total`."""
        self._progress.update(self._task, advance=size, total=total)

    def __enter__(self) -> BytesBar:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
