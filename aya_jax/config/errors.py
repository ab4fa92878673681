"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something the user can put right. The command line prints the message alone, without a stack trace.

    The message names the file, line and field where there is one, and says what to do.
    """

    exit_code = 1


class ConfigError(UserError):
    """Everything that is wrong with a configuration, one line for each problem.

    Attributes:
      problems: the lines, in the order in which a reader meets them.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]):
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([*self.problems, f"{count}; nothing was started."]))


def near_names(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """At most three of the known names that look like `name`, the closest first; letter case does not count.

    A name that is much less close than the closest is left out: every "...Config" looks a little like every other.
    """
    folded = name.casefold()
    likeness = {
        other: difflib.SequenceMatcher(None, other.casefold(), folded).ratio() for other in dict.fromkeys(known)
    }
    least = max([0.6, *(ratio - 0.15 for ratio in likeness.values())])
    close = [other for other, ratio in likeness.items() if ratio >= least]
    return tuple(sorted(close, key=lambda other: -likeness[other])[:3])


def did_you_mean(names: Sequence[str]) -> str:
    """'; did you mean a, b or c?' for at most three names, or nothing."""
    names = list(names)[:3]
    if not names:
        return ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"; did you mean {listed}?"
