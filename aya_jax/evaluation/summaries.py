"""Summaries against a reference: Rouge-L by rouge-score, over words of every script.

rouge-score's own words are runs of the letters a to z and digits: a text in Arabic or Chinese has none, and scores 0. Ours are
those of `profile.words`: letters of any script with their marks, one character each where a script sets words not apart
(a run of hiragana or katakana in Japanese). XL-Sum's own scorer cuts Chinese and Japanese by a dictionary and stems in some
languages, so its numbers are near, and not the same: compare models that were scored by one of the two.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from aya_jax.evaluation.profile.words import words

ROUGE = "rougeL"
ARTICLE_WORDS = 512
"""Words of an article that are read, from its start: about what XL-Sum's own models read, and the same for every model."""


class WordTokenizer:
    """What `rouge_score.rouge_scorer.RougeScorer` takes as a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, composed and in lower case."""
        return words(unicodedata.normalize("NFC", text).lower())


def summary_scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For a task of the harness: the F1 of one summary's longest common subsequence of words with the reference, 0 to 1.

    Lin (2004), section 3.1, of a single sentence.
    """
    return {ROUGE: _scorer().score(doc["summary"], results[0])[ROUGE].fmeasure}


def article(text: str) -> str:
    """An article up to the end of its `ARTICLE_WORDS`th word, or all of it."""
    end = 0
    for count, word in enumerate(words(text), 1):
        end = text.index(word, end) + len(word)
        if count == ARTICLE_WORDS:
            return text[:end]
    return text


@functools.cache
def _scorer() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer([ROUGE], tokenizer=WordTokenizer())
