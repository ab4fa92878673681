"""Rouge-L over words of every script: rouge-score's own numbers where it has words, and by hand where it has none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from aya_jax.evaluation.summaries import ARTICLE_WORDS, WordTokenizer, article, summary_scores

DEFAULT = rouge_scorer.RougeScorer(["rougeL"])
words = st.lists(st.sampled_from(["The", "cat", "sat", "on", "a", "MAT", "12", "dogs"]), max_size=12).map(" ".join)


@settings(deadline=None, max_examples=100)
@given(right=words, said=words)
def test_english_scores_are_rouge_score_s(right, said):
    expected = DEFAULT.score(right, said)["rougeL"].fmeasure
    assert summary_scores({"summary": right}, [said])["rougeL"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("right", "said", "common", "right_words", "said_words"),
    [
        ("السلطات تغلق الحدود", "السلطات تعيد فتح الحدود", 2, 3, 4),
        ("सरकार ने सीमा बंद की", "सरकार सीमा बंद की", 4, 5, 4),
        ("Власти закрыли границу.", "власти ЗАКРЫЛИ порт", 2, 3, 3),
        ("政府关闭边境", "政府开放边境", 4, 6, 6),  # characters
        ("정부가 국경을 닫았다", "정부가 닫았다", 2, 3, 2),
        ("Chính phủ đóng biên giới", "chính phủ mở biên giới", 4, 5, 5),
        ("Çığ yolu kapattı", "c\u0327ığ yolu açtı", 2, 3, 3),  # composed and not
    ],
)
def test_scripts_that_rouge_score_drops(right, said, common, right_words, said_words):
    precision, recall = common / said_words, common / right_words
    expected = 2 * precision * recall / (precision + recall)
    assert summary_scores({"summary": right}, [said])["rougeL"] == pytest.approx(expected)
    assert summary_scores({"summary": right}, [right])["rougeL"] == 1.0


@pytest.mark.parametrize("said", ["", "...", "完全不同"])
def test_nothing_in_common_is_nothing(said):
    assert summary_scores({"summary": "الحدود مغلقة"}, [said])["rougeL"] == 0.0


def test_marks_and_joiners_stay_in_their_words():
    assert WordTokenizer().tokenize("می‌روم، L'État — नहीं।") == ["می‌روم", "l'état", "नहीं"]


@pytest.mark.parametrize("unit", ["word ", "слово, ", "字"])
def test_an_article_loses_its_end_and_not_its_beginning(unit):
    short, long = unit * ARTICLE_WORDS, "first. " + unit * 2 * ARTICLE_WORDS
    assert article(short) == short.rstrip(", ")
    cut = article(long)
    assert long.startswith(cut)
    assert len(WordTokenizer().tokenize(cut)) == ARTICLE_WORDS
    assert article("Three  words,\nhere.") == "Three  words,\nhere."
