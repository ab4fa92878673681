"""What a judge's reply says: the last verdict in it, or nothing.

Only the reply is read, never what was judged: a verdict that an answer brings along does not count unless the judge ends
on it. Rules as in arena-hard-auto (peers.md 1.7): upper case, double brackets before single ones, the last match wins.
Beyond it, compatibility forms (NFKC) are read as what they stand for, so that "【【Ａ＞Ｂ】】", as judges write who think in
Chinese or Japanese, is a verdict too. A reply without one is None, for the caller to count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

from aya_jax.evaluation.judging.battles import Verdict

Form = Literal["arena_hard", "win_tie_loss", "pairwise"]
"""Five verdicts; A, B or C (a tie); A or B."""

# Arena-Hard takes mirrored spellings for what they say.
_FIVE: Mapping[str, Verdict] = {
    "A>>B": "A>>B", "B<<A": "A>>B", "A>B": "A>B", "B<A": "A>B", "A=B": "A=B",
    "B=A": "A=B", "B>A": "B>A", "A<B": "B>A", "B>>A": "B>>A", "A<<B": "B>>A",
}  # fmt: skip
_TWO: Mapping[str, Verdict] = {"A": "A>B", "B": "B>A"}
_VERDICTS: Mapping[Form, Mapping[str, Verdict]] = {
    "arena_hard": _FIVE,
    "win_tie_loss": {**_TWO, "C": "A=B"},
    "pairwise": _TWO,
}
_BRACKETS = str.maketrans("【】〔〕", "[][]")  # NFKC leaves these as they are


def parse_verdict(reply: str, form: Form) -> Verdict | None:
    """The verdict of a pairwise judge; None where there is none of this form."""
    found = _last(reply, tuple(_VERDICTS[form]))
    return None if found is None else _VERDICTS[form][found]


def parse_label(reply: str, yes: str, no: str) -> bool | None:
    """What a judge of one answer says, such as [[UNSAFE]] for yes or [[SAFE]] for no; None where it is neither."""
    found = _last(reply, (yes.upper(), no.upper()))
    return None if found is None else found == yes.upper()


def parse_rating(reply: str) -> float | None:
    """A grade such as [[7]] or [[7.5]]; None where there is none, or it is not from 1 to 10.

    FastChat takes the first number in brackets; a judge that thinks aloud ("a [[10]] would ...") ends on what it means.
    """
    found = _last_match(reply, r"\d+(?:\.\d+)?")
    return float(found) if found is not None and 1.0 <= float(found) <= 10.0 else None


def _last(reply: str, words: tuple[str, ...]) -> str | None:
    """The last of the words in double brackets; if none is, the last in single ones."""
    return _last_match(reply, "|".join(_spaced(word) for word in words))


def _last_match(reply: str, pattern: str) -> str | None:
    text = unicodedata.normalize("NFKC", reply).translate(_BRACKETS).upper()
    for opening, closing in ((r"\[\[", r"\]\]"), (r"\[", r"\]")):
        if found := re.findall(rf"{opening}\s*({pattern})\s*{closing}", text):
            return re.sub(r"\s", "", found[-1])
    return None


def _spaced(word: str) -> str:
    """Matches the word, with or without white space about its signs: "A > B"."""
    return r"\s*".join(map(re.escape, re.findall(r"\w+|[<>=]+", word)))
