"""Translations of several languages as corpora: chrF++ with intervals, and differences of two models on shared sentences.

A corpus's score is that of its sentences' summed counts. So resamples sum the counts of those that were drawn, for both models
the same ones (a paired bootstrap, Koehn 2004); a sentence is drawn for all languages at once, as in `statistics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.statistics import Differences, Means, differences_of, means_of, resample_counts
from aya_jax.evaluation.translation import CHRF, chrf_metric, score_of_counts, sentence_counts


def is_translation(sample: Sample) -> bool:
    """Whether a record is of a translation by one of our own tasks."""
    return CHRF in sample.metrics and "source" in sample.doc and "reference" in sample.doc


def translation(sample: Sample) -> str:
    """What the model said, as it is scored."""
    return "" if sample.prediction is None else str(sample.prediction).strip()


@dataclasses.dataclass(frozen=True)
class Corpora:
    """One model's translations of one benchmark.

    Attributes:
      counts: what sacrebleu's chrF++ counts in a sentence, float64 [24], by (item, language).
    """

    counts: Mapping[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Corpora:
        """Of those records that are of translations."""
        found = list(filter(is_translation, samples))
        references = [sample.doc["reference"] for sample in found]
        counts = sentence_counts(chrf_metric(), list(map(translation, found)), references) if found else ()
        return cls({(sample.item, sample.language): row for sample, row in zip(found, counts, strict=True)})


def corpus_intervals(corpora: Corpora, *, resamples: int, seed: int = 0) -> Means:
    """Corpus chrF++ of each language, 0 to 100, and the languages' mean.

    Args:
      corpora: with at least one sentence.
      resamples: how many.
      seed: what they derive from.
    """
    table, _ = _table(corpora, list(corpora.counts))
    return means_of(_scores(table.sum(axis=0)[None])[0], _drawn(table, resamples, seed))


def corpus_differences(first: Corpora, second: Corpora, *, resamples: int, seed: int = 0) -> Differences:
    """How much better the second is, on the sentences that both translated.

    Raises:
      ValueError: they share no sentence.
    """
    shared = [key for key in first.counts if key in second.counts]
    if not shared:
        raise ValueError("the two share no sentence")
    (left, languages), (right, _) = (_table(corpora, shared) for corpora in (first, second))
    left_scores, right_scores = (_scores(table.sum(axis=0)[None])[0] for table in (left, right))
    drawn = _drawn(right, resamples, seed) - _drawn(left, resamples, seed)
    counts = np.array([sum(key[1] == language for key in shared) for language in languages])
    return differences_of(languages, right_scores - left_scores, drawn, counts)


def _table(corpora: Corpora, keys: Iterable[tuple[str, str]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Counts [items, languages, 1 + 24], the first of which is 1 where there is a sentence; and the languages."""
    keys = list(keys)
    items = {name: row for row, name in enumerate(dict.fromkeys(item for item, _ in keys))}
    languages = {name: column for column, name in enumerate(sorted({language for _, language in keys}))}
    width = len(next(iter(corpora.counts.values())))
    table = np.zeros((len(items), len(languages), 1 + width))
    for item, language in keys:
        table[items[item], languages[language]] = (1.0, *corpora.counts[item, language])
    return table, tuple(languages)


def _drawn(table: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Scores of resampled sentences: float64 [resamples, languages]."""
    items, languages, width = table.shape
    flat = table.reshape(items, -1)
    parts = [
        _scores((counts @ flat).reshape(-1, languages, width)) for counts in resample_counts(items, resamples, seed)
    ]
    return np.concatenate(parts)


def _scores(sums: np.ndarray) -> np.ndarray:
    """chrF++ of summed counts [..., languages, 1 + 24] -> [..., languages]; no number where no sentence was drawn."""
    metric, flat = chrf_metric(), sums.reshape(-1, sums.shape[-1])
    scores = [score_of_counts(metric, row[1:]) if row[0] else np.nan for row in flat]
    return np.asarray(scores).reshape(sums.shape[:-1])
