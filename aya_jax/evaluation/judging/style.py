"""How an answer looks, apart from what it says: its length and its Markdown.

Both can win a judge over. Length is measured by one given function for all answers, in bytes or in tokens of one fixed
tokenizer: characters are not comparable across scripts (alpaca_eval's length control counts them). Markdown is the same
in every language; what looks like it inside code is not counted, as in Arena-Hard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Feature = Literal["length", "headers", "lists", "bold"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
MARKDOWN: tuple[Feature, ...] = ("headers", "lists", "bold")

# In this order: a fence of three or more ticks or tildes, closed by as many on a line of their own; ticks closed anywhere;
# a fence left open, which runs to the end.
_CODE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n`]*\n(?:.*?\n)??[ \t]*(?P=fence)[`~]*[ \t]*$"
    r"|```[^`]*```"
    r"|^[ \t]*(?:```|~~~)[^\n`]*(?:\n.*)?\Z",
    re.M | re.S,
)
_HEADER = re.compile(r"^ {0,3}#{1,6}\s", re.M)
_LIST = re.compile(r"^[ \t]*(?:\d+[.)]|[-*+])[ \t]", re.M)  # \d: the digits of every script
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@dataclass(frozen=True)
class Style:
    """How one answer looks.

    Attributes:
      length: in the units of whoever measured; of the whole answer, code too.
      headers, lists, bold: Markdown headers, items of lists and bold spans outside code blocks.
    """

    length: float
    headers: int = 0
    lists: int = 0
    bold: int = 0


def utf8_bytes(text: str) -> int:
    """Length in bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def style_of(text: str, measure: Callable[[str], float] = utf8_bytes) -> Style:
    """Counts; `measure` gives the length, say in tokens of one tokenizer for all models."""
    prose = _CODE.sub("", text)
    counts = (len(pattern.findall(prose)) for pattern in (_HEADER, _LIST, _BOLD))
    return Style(measure(text), *counts)


def difference(feature: Feature, first: Style, second: Style) -> float:
    """How much more of something the first has; antisymmetric, 0 for equal styles, between -1 and 1.

    Length: (a - b) / (a + b). Markdown, with densities d = count / (length + 1): (d_a - d_b) / (d_a + d_b + 1). Both as in
    arena-hard-auto (peers.md 1.7).
    """
    if feature == "length":
        both = first.length + second.length
        return (first.length - second.length) / both if both else 0.0
    a, b = (getattr(style, feature) / (style.length + 1.0) for style in (first, second))
    return (a - b) / (a + b + 1.0)
