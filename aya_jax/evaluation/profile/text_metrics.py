"""How a text is written: its length, its lexical diversity and two readability indices (LLM See, LLM Do, 2407.01490).

Definitions are those of papers.md section 8, over the units of `words.py`. A number that would be wrong for a script is None:
Gunning-Fog needs syllables, Rix needs words with spaces between.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aya_jax.evaluation.profile.words import is_unspaced, letter_count, sentences, syllables, words

THRESHOLD = 0.72
_LEAST_SHARE = (
    0.9  # of words that an index has to be defined for; a foreign name in a text does not take its index away
)


@dataclass(frozen=True)
class TextProfile:
    """Measurements of one text.

    Attributes:
      characters: code points, composed (NFC), stripped.
      bytes: of the text in UTF-8, as it is.
      words: see `words.words`.
      sentences: see `words.sentences`.
      distinct_words: without regard to case.
      mtld: measure of textual lexical diversity; 0 where it would divide by 0.
      words_per_sentence: None for a text without words.
      gunning_fog: None too where syllables are not defined for nine of ten words.
      rix: None too where more than one of ten words are of a script that is written without spaces.
    """

    characters: int
    bytes: int
    words: int
    sentences: int
    distinct_words: int
    mtld: float
    words_per_sentence: float | None
    gunning_fog: float | None
    rix: float | None


METRICS = tuple(TextProfile.__dataclass_fields__)


def text_profile(text: str, language: str | None = None) -> TextProfile:
    """Measures a text.

    Args:
      text: such as a model's answer.
      language: ISO 639-1 code; sharpens sentences and syllables, see `words.py`.
    """
    found = words(text)
    count = len(sentences(text, language))
    folded = [word.casefold() for word in found]
    return TextProfile(
        characters=len(unicodedata.normalize("NFC", text.strip())),
        bytes=len(text.encode("utf-8", "surrogatepass")),
        words=len(found),
        sentences=count,
        distinct_words=len(set(folded)),
        mtld=mtld(folded),
        words_per_sentence=len(found) / count if count else None,
        gunning_fog=gunning_fog(found, count, language),
        rix=rix(found, count),
    )


def mtld(tokens: Sequence[str], threshold: float = THRESHOLD) -> float:
    """Measure of textual lexical diversity, the mean of both directions (McCarthy and Jarvis, 2010).

    Reading on, the type-token ratio of the words since the last factor falls; where it is at most the threshold a factor is
    complete, and what is left at the end is (1 - TTR) / (1 - threshold) of one. The measure is words per factor; a text that
    repeats no word has no factor, and measures 0 as in the paper's toolkit.

    Args:
      tokens: words; equal ones are the same type.
      threshold: of the type-token ratio.
    """
    directions = [_factors(tokens, threshold), _factors(reversed(tokens), threshold)]
    return sum(len(tokens) / factors if factors else 0.0 for factors in directions) / 2


def gunning_fog(tokens: Sequence[str], sentence_count: int, language: str | None = None) -> float | None:
    """0.4 · (words / sentences + 100 · hard / words), hard words having three syllables or more (Gunning, 1952).

    Hard words are counted among those whose syllables are defined, if these are at least nine of ten.
    """
    counts = [number for number in (syllables(token, language) for token in tokens) if number is not None]
    if not sentence_count or not counts or len(counts) < _LEAST_SHARE * len(tokens):
        return None
    hard = sum(number >= 3 for number in counts) / len(counts)
    return 0.4 * (len(tokens) / sentence_count + 100 * hard)


def rix(tokens: Sequence[str], sentence_count: int) -> float | None:
    """Words of more than 6 letters per sentence (Anderson, 1983); marks are no letters."""
    spaced = len(tokens) - sum(map(is_unspaced, tokens))
    if not sentence_count or not tokens or spaced < _LEAST_SHARE * len(tokens):
        return None
    return sum(letter_count(token) > 6 for token in tokens) / sentence_count


def _factors(tokens: Iterable[str], threshold: float) -> float:
    factors, count, ratio = 0.0, 0, 1.0
    types: set[str] = set()
    for token in tokens:
        count += 1
        types.add(token)
        ratio = len(types) / count
        if ratio <= threshold:
            factors, count, ratio = factors + 1, 0, 1.0
            types.clear()
    return factors + (1 - ratio) / (1 - threshold)
