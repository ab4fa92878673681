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
    """At most three of the known names that look like `name`, the closest first; letter case does not count."""
    by_folded: dict[str, str] = {}
    for candidate in known:
        by_folded.setdefault(candidate.casefold(), candidate)
    close = difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)
    return tuple(by_folded[folded] for folded in close)


def did_you_mean(names: Sequence[str]) -> str:
    """'; did you mean a, b or c?' for at most three names, or nothing."""
    names = list(names)[:3]
    if not names:
        return ""
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"; did you mean {listed}?"
