"""Being told to stop: the step in hand is finished, the state saved, and the process ends well."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """A context in which SIGTERM (a scheduler) and SIGINT (Ctrl-C) ask for an end instead of killing the process.

    A second Ctrl-C ends it at once.

    Attributes:
      requested: whether a signal has come.
      interrupted: whether it was Ctrl-C.
    """

    def __init__(self) -> None:
        self.requested = False
        self.interrupted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.requested = True
        self.interrupted = self.interrupted or number == signal.SIGINT
