"""Texts that end an output, found as it comes."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string, and holds back what may be the beginning of one."""

    def __init__(self, stop: Sequence[str]):
        self._stop = tuple(stop)
        self._held = ""
        self.found: str | None = None  # the stop string that was met; nothing is passed on after it

    def push(self, text: str) -> str:
        """What of the text so far, and not passed on yet, is surely before any stop string."""
        if self.found is not None:
            return ""
        self._held += text
        places = [(place, stop) for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            place, self.found = min(places)
            passed, self._held = self._held[:place], ""
            return passed
        keep = max((self._overlap(stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        passed, self._held = self._held[:cut], self._held[cut:]
        return passed

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        passed, self._held = self._held, ""
        return passed

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of the held text are the beginning of a stop string."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)
