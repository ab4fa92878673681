"""Being told to stop: the step in hand is finished, the state saved, and the process ends well."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from jax.experimental import multihost_utils


class StopRequest:
    """A context in which SIGTERM (a scheduler) and SIGINT (Ctrl-C) ask for an end instead of killing the process.

    A second Ctrl-C ends it at once. In a run of several processes a SIGTERM or a Ctrl-C to any of them ends all after the
    same step: JAX's coordination service hears the SIGTERM and settles the step, so no process waits in a collective for
    one that has left.

    Attributes:
      requested: whether the run is to end.
      interrupted: whether Ctrl-C asked for it; in a run of several processes it counts as a SIGTERM.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self.requested = False
        self.interrupted = False
        self._passed_on = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            if self._processes > 1:  # JAX has a handler of SIGTERM
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
            else:
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

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._passed_on:
            raise KeyboardInterrupt
        self._passed_on = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.interrupted:
            raise KeyboardInterrupt
        self.requested = True
        self.interrupted = self.interrupted or number == signal.SIGINT
