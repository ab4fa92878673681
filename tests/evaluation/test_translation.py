"""Corpora's scores against sacrebleu's own, and their intervals against resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu

from aya_jax.evaluation.translation import corpus_scores, sentence_scores

RIGHT = [
    "Das Haus steht am Fluss.",
    "Er geht heute nach Hause.",
    "Wir sehen uns morgen früh.",
    "Der Zug kommt spät.",
] * 5
SAID = ["Das Haus ist am Fluss.", "Er geht heute heim.", "Wir sehen uns morgen.", "Der Zug kommt zu spät an."] * 5


def test_scores_and_signatures_are_sacrebleu_s():
    chrf, bleu = corpus_scores("de", SAID, RIGHT)
    assert chrf.score == pytest.approx(sacrebleu.corpus_chrf(SAID, [RIGHT], word_order=2).score)
    assert bleu.score == pytest.approx(sacrebleu.corpus_bleu(SAID, [RIGHT]).score)
    assert "nw:2" in chrf.signature
    assert "tok:13a" in bleu.signature
    assert chrf.sentences == 20


def test_chinese_and_japanese_have_words_of_their_own():
    signatures = [corpus_scores(language, ["你好世界"], ["你好世界"])[1].signature for language in ("zh", "ja", "fr")]
    assert [s.split("tok:")[1].split("|")[0] for s in signatures] == ["zh", "char", "13a"]


def test_intervals_are_of_resampled_corpora():
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 20, 20)
        drawn.append(sacrebleu.corpus_chrf([SAID[k] for k in rows], [[RIGHT[k] for k in rows]], word_order=2).score)
    (chrf, _) = corpus_scores("de", SAID, RIGHT)
    assert (chrf.low, chrf.high) == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=1.0)
    assert chrf.low < chrf.score < chrf.high


def test_one_sentence_as_a_task_scores_it():
    expected = sacrebleu.sentence_chrf(SAID[0], [RIGHT[0]], word_order=2).score
    assert sentence_scores({"reference": RIGHT[0]}, [f" {SAID[0]}\n"])["chrf++"] == pytest.approx(expected)
