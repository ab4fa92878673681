"""Corpora's chrF++ against sacrebleu's, and differences of two models against sacrebleu's own paired bootstrap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from aya_jax.evaluation.corpora import Corpora, corpus_differences, corpus_intervals
from aya_jax.evaluation.results import Sample

RIGHT = {
    "de": ["Das Haus steht am Fluss.", "Er geht heute nach Hause.", "Wir sehen uns morgen früh.", "Der Zug kommt spät."]
    * 8,
    "ru": ["Дом стоит у реки.", "Сегодня он идёт домой.", "Увидимся завтра утром.", "Поезд опаздывает."] * 8,
}


def damaged(texts, share, seed):
    """The texts without a share of their letters."""
    rng = np.random.default_rng(seed)
    return ["".join(letter for letter in text if rng.random() > share) for text in texts]


def samples(language, said, first=0):
    return [
        Sample(
            id=f"flores_en_{language}/{n}", task=f"flores_en_{language}", family="flores_en_x", item=f"flores_en_x/{n}",
            language=language, metrics={"chrf++": 0.0}, prediction=text, target=None, prompt="",
            doc={"source": "?", "reference": RIGHT[language][n]},
        )
        for n, text in enumerate(said, first)
    ]  # fmt: skip


GOOD = {language: damaged(texts, 0.1, 1) for language, texts in RIGHT.items()}
BAD = {language: damaged(texts, 0.3, 2) for language, texts in RIGHT.items()}


def corpora(said):
    return Corpora.of([sample for language, texts in said.items() for sample in samples(language, texts)])


def chrf(said, right):
    return sacrebleu.corpus_chrf(said, [right], word_order=2).score


def test_means_are_of_corpora():
    found = corpus_intervals(corpora(GOOD), resamples=300)
    expected = [chrf(GOOD[language], RIGHT[language]) for language in ("de", "ru")]
    assert [interval.estimate for interval in found.languages] == pytest.approx(expected)
    assert found.macro.estimate == pytest.approx(np.mean(expected))
    sentences = [
        sacrebleu.sentence_chrf(s, [r], word_order=2).score for s, r in zip(GOOD["de"], RIGHT["de"], strict=True)
    ]
    assert abs(np.mean(sentences) - expected[0]) > 0.05  # the mean of sentences is another number
    assert found.languages[0].low < expected[0] < found.languages[0].high


def test_a_difference_is_sacrebleu_s_and_so_is_its_interval():
    found = corpus_differences(corpora(BAD), corpora(GOOD), resamples=1000)
    assert found.languages == ("de", "ru")
    gaps = [chrf(GOOD[language], RIGHT[language]) - chrf(BAD[language], RIGHT[language]) for language in ("de", "ru")]
    assert [each.interval.estimate for each in found.by_language] == pytest.approx(gaps)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(300):
        rows = rng.integers(0, 32, 32)
        good, bad, right = ([texts["de"][k] for k in rows] for texts in (GOOD, BAD, RIGHT))
        drawn.append(chrf(good, right) - chrf(bad, right))
    interval = found.by_language[0].interval
    assert (interval.low, interval.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=1.5)
    assert interval.error == pytest.approx(np.std(drawn, ddof=1), rel=0.2)


@pytest.mark.parametrize("share", [0.13, 0.16, 0.3])
def test_p_is_that_of_sacrebleu(share):
    """Its paired bootstrap counts one side: how often a resample lies as far above the mean as that is from 0."""
    other = damaged(RIGHT["de"], share, 5)
    found = corpus_differences(corpora({"de": GOOD["de"]}), corpora({"de": other}), resamples=2000).macro
    metrics = {"": sacrebleu.CHRF(word_order=2, references=[RIGHT["de"]])}
    systems = [("first", GOOD["de"]), ("other", other)]
    _, scores = PairedTest(systems, metrics, references=None, test_type="bs", n_samples=2000)()
    first, second = scores["chrF2++"]
    assert found.interval.estimate == pytest.approx(second.score - first.score)
    assert found.p / 2 == pytest.approx(second.p_value, abs=0.03)


def test_only_shared_sentences_count():
    first = Corpora.of(samples("de", GOOD["de"][:20]) + samples("ru", GOOD["ru"]))
    second = Corpora.of(samples("de", BAD["de"][10:], 10))
    found = corpus_differences(first, second, resamples=100)
    assert found.languages == ("de",)
    assert found.macro.shared == 10
    gap = chrf(BAD["de"][10:20], RIGHT["de"][10:20]) - chrf(GOOD["de"][10:20], RIGHT["de"][10:20])
    assert found.macro.interval.estimate == pytest.approx(gap)
    with pytest.raises(ValueError, match="share no sentence"):
        corpus_differences(
            Corpora.of(samples("de", GOOD["de"][:3])), Corpora.of(samples("ru", GOOD["ru"])), resamples=100
        )


def test_two_alike_do_not_differ():
    found = corpus_differences(corpora(GOOD), corpora(GOOD), resamples=100).macro
    assert (found.interval.low, found.interval.estimate, found.interval.high, found.p) == (0, 0, 0, 1)


def test_a_sentence_that_only_some_resamples_have_leaves_them_out():
    few = Corpora.of(samples("de", GOOD["de"]) + samples("ru", GOOD["ru"][:1]))
    found = corpus_intervals(few, resamples=200).languages[1]
    assert found.estimate == found.low == found.high == pytest.approx(chrf(GOOD["ru"][:1], RIGHT["ru"][:1]))


def test_other_records_are_no_translations():
    (sample,) = samples("de", ["x"])
    assert not Corpora.of(
        [dataclasses.replace(sample, doc={}), dataclasses.replace(sample, metrics={"acc": 1.0})]
    ).counts
