"""The code in what a model wrote: base models continue a file, chat models talk about a block of code."""

from __future__ import annotations

import re
from collections.abc import Iterable

_FENCED = re.compile(r"^[ \t]*```[ \t]*([^\s`]*)[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")


def cut(completion: str, stop: Iterable[str]) -> str:
    """What stands before the first of the stop sequences.

    HumanEval's are the ways in which a model goes on to something else than the function's body (Chen et al. 2021,
    section 2.1).
    """
    return completion[: min((at for text in stop if (at := completion.find(text)) >= 0), default=len(completion))]


def first_block(answer: str) -> str:
    """The first fenced block that is Python's or nobody's; without one, the answer itself.

    A fence that is never closed (the answer ran into its limit) holds all that follows.
    """
    for language, code in _FENCED.findall(answer.replace("\r\n", "\n")):
        if language.lower() in _PYTHON:
            return code
    return answer
