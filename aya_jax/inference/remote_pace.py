"""When to call an endpoint: rate limits, pauses after failures, and what a server says about when to come back.

Nothing here reads a clock: times are arguments, in seconds, so that laws about them can be tested.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

MINUTE = 60.0


class Pace:
    """Even spacing of calls: a leaky bucket for requests and one for tokens, neither with a burst.

    A call begins no earlier than 60 / requests_per_minute after the one before, and no earlier than what that one's
    tokens take at tokens_per_minute. So in any 60 seconds (one end excluded) there begin at most requests_per_minute
    calls, rounded up, with at most tokens_per_minute tokens before the last of them.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None):
        self._request = MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._token = MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._next = float("-inf")

    def reserve(self, now: float, tokens: float) -> float:
        """Takes the next place, for a call of so many tokens, and returns when it is: `now` or later."""
        start = max(now, self._next)
        self._next = start + max(self._request, tokens * self._token)
        return start

    def hold(self, until: float) -> None:
        """Gives no place before a time: the endpoint has asked for a pause."""
        self._next = max(self._next, until)


def backoff(attempt: int, least: float, most: float, fraction: float) -> float:
    """Seconds to wait before repeating attempt 0, 1, ...: a random fraction of least * 2^attempt, at most `most`.

    "Full jitter" (Brooker 2015, Exponential backoff and jitter): callers that failed together do not come back together.

    Args:
      fraction: uniform in [0, 1).
    """
    return fraction * min(most, least * 2.0 ** min(attempt, 60))


def wait_asked_for(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an answer asks to wait for before the next call; None where it does not say.

    Reads `retry-after-ms`, `retry-after` (seconds, or an HTTP date, RFC 9110 section 10.2.3), and
    `x-ratelimit-reset-requests` or `-tokens` ("1s", "6m0s", "120ms") of the limits that are used up.

    Args:
      headers: with names in lower case, or case-insensitive.
      now: seconds since the epoch.
    """
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    after = headers.get("retry-after")
    if after is not None:
        return _seconds(after) if _seconds(after) is not None else _until(after, now)
    resets = [
        _duration(headers.get(f"x-ratelimit-reset-{what}"))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    return max((reset for reset in resets if reset is not None), default=None)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", text, re.ASCII) else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, email.utils.parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):
        return None


_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)"


def _duration(text: str | None) -> float | None:
    if text is None or not re.fullmatch(f"({_PART})+", text, re.ASCII):
        return _seconds(text)
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
