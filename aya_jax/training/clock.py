"""Where a run's wall time goes."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator


class Clock:
    """Adds up the time spent in named parts of the loop between two laps."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._parts: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Adds the time of the block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._parts[part] += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """Seconds since the last lap: "total", and every part that was timed; starts the next lap."""
        now = time.perf_counter()
        seconds = defaultdict(float, {**self._parts, "total": now - self._start})
        self._start = now
        self._parts.clear()
        return seconds
