"""Being told to stop: the step in hand is finished, the state saved, and the process ends well."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from jax.experimental import multihost_utils


class StopRequest:
    """A context in which SIGTERM (a scheduler) and SIGINT (Ctrl-C) ask for an end instead of killing the process.

    A second Ctrl-C ends it at once. In a run of several processes a SIGTERM to any of them ends all after the same step:
    JAX's coordination service hears it and settles the step, so no process waits in a collective for one that has left.

    Attributes:
      requested: whether the run is to end.
      interrupted: whether Ctrl-C asked for it.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self.requested = False
        self.interrupted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if self._processes == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after_step(self, step: int) -> bool:
        """Whether the run is to end after this step; the same answer on every process."""
        if self._processes > 1:
            self.requested = self.requested or multihost_utils.reached_preemption_sync_point(step)
        return self.requested

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.requested = True
        self.interrupted = self.interrupted or number == signal.SIGINT
