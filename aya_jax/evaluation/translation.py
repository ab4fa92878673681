"""Translations against references, by sacrebleu: chrF++ and BLEU of a corpus, with the interval of each.

A corpus's score is not the mean of its sentences': n-gram counts are summed first. So a resample of sentences sums the counts
of those that were drawn, with sacrebleu's own code for both steps, and the interval is of the number that is reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aya_jax.evaluation.statistics import LEVEL, resample_counts

# BLEU's words: sacrebleu's own for Chinese, characters where words are not set apart and no analyser comes with it.
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
CHRF, BLEU = "chrf++", "bleu"


@dataclasses.dataclass(frozen=True)
class CorpusScore:
    """A metric of a corpus.

    Attributes:
      name: "chrf++" or "bleu".
      signature: sacrebleu's, which says what exactly was computed.
      score: of the corpus, 0 to 100.
      low, high: 95 % of resamples of sentences lie between.
      sentences: how many.
    """

    name: str
    signature: str
    score: float
    low: float
    high: float
    sentences: int


def sentence_scores(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """For a task of the harness: chrF++ of one answer (Popović 2017), 0 to 100."""
    return {CHRF: _metric(CHRF, "").sentence_score(results[0].strip(), [doc["reference"]]).score}


def corpus_scores(
    language: str, translations: Sequence[str], references: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> list[CorpusScore]:
    """chrF++ and BLEU of a corpus.

    Args:
      language: of the references; chooses BLEU's words.
      translations: one for each reference.
      references: what would have been right.
      resamples: of sentences.
      seed: what they derive from.
    """
    return [
        _corpus_score(name, _metric(name, language), translations, references, resamples, seed) for name in (CHRF, BLEU)
    ]


def _corpus_score(
    name: str, metric: Any, translations: Sequence[str], references: Sequence[str], resamples: int, seed: int
) -> CorpusScore:
    whole = metric.corpus_score(list(translations), [list(references)])
    statistics = np.asarray(metric._extract_corpus_statistics(list(translations), [list(references)]), np.float64)
    drawn = [
        metric._compute_score_from_stats(list(row)).score
        for counts in resample_counts(len(statistics), resamples, seed)
        for row in counts @ statistics
    ]
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return CorpusScore(name, str(metric.get_signature()), whole.score, float(low), float(high), len(references))


def _metric(name: str, language: str) -> Any:
    import sacrebleu

    if name == CHRF:
        return sacrebleu.CHRF(word_order=2)
    return sacrebleu.BLEU(tokenize=_TOKENIZERS.get(language, "13a"))
