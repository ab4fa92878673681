import random

import pytest

from aya_jax.evaluation.profile import text_metrics
from aya_jax.evaluation.profile.text_metrics import METRICS, TextProfile, gunning_fog, mtld, rix, text_profile

ENGLISH = (
    "The committee considered the proposal carefully. Several members wanted more information about costs. "
    "Nobody knew how long the work would take, or who would pay for it. In the end they agreed to wait. "
    "Patience is sometimes the most reasonable answer."
)


def test_worked_example():
    profile = text_profile("The international organisation met. It met again!", "en")
    # 7 words; "international" and "organisation" have 5 syllables each, "again" 2
    assert profile == TextProfile(
        characters=49,
        bytes=49,
        words=7,
        sentences=2,
        distinct_words=6,
        mtld=pytest.approx(7 / ((1 - 6 / 7) / 0.28)),
        words_per_sentence=3.5,
        gunning_fog=pytest.approx(0.4 * (3.5 + 100 * 2 / 7)),
        rix=1.0,
    )


def test_empty_text_has_no_ratios():
    assert text_profile(" …\n") == TextProfile(1, 5, 0, 0, 0, 0.0, None, None, None)


def test_scripts_without_a_rule_say_so():
    chinese = text_profile("今天天气很好。我们去公园。", "zh")
    assert (chinese.words, chinese.sentences, chinese.bytes) == (11, 2, 39)
    assert chinese.gunning_fog is None
    assert chinese.rix is None
    hindi = text_profile("यह एक बहुत अच्छी किताब है।", "hi")
    assert hindi.gunning_fog is None
    assert hindi.rix == 0.0


def test_one_foreign_name_does_not_take_an_index_away():
    assert gunning_fog(["слово"] * 19 + ["中"], 2, "ru") == pytest.approx(0.4 * 10)
    assert gunning_fog(["слово"] * 8 + ["中"] * 2, 2, "ru") is None
    assert rix(["abcdefg"] * 18 + ["中"] * 2, 2) == 9.0
    assert rix(["abcdefg"] * 17 + ["中"] * 3, 2) is None


def test_mtld_by_hand():
    # Forward "a b a b": 1, 1, 2/3 → a factor; then "b" alone leaves nothing: 4 / 1. Backward the same.
    assert mtld(list("abab")) == 4.0
    # Forward "a a b c": 1, 1/2 → a factor; "b c" nothing: 4. Backward "c b a a": 1, 1, 1, 3/4: 4 / (0.25 / 0.28).
    assert mtld(list("aabc")) == pytest.approx((4 + 4 / (0.25 / 0.28)) / 2)
    assert mtld(list("abcd")) == 0.0
    assert mtld([]) == 0.0
    # A ratio of exactly the threshold, 18 types in 25 words, completes a factor; the word after it begins another.
    exact = [str(n) for n in range(18)] + ["17"] * 7 + ["new"]
    assert text_metrics._factors(exact, 0.72) == 1.0


def test_hard_words_have_three_syllables():
    assert gunning_fog(["beautiful", "cat"], 1, "en") == pytest.approx(0.4 * (2 + 50))


def test_mtld_is_lexicalrichness():
    lexicalrichness = pytest.importorskip("lexicalrichness")
    rng = random.Random(0)
    for size in (30, 100, 1000):
        tokens = [rng.choice("abcdefghijklmnopqrstuvwxyz") * rng.randint(1, 3) for _ in range(size)]
        other = lexicalrichness.LexicalRichness(tokens, preprocessor=None, tokenizer=None)
        assert mtld(tokens) == pytest.approx(other.mtld(threshold=0.72))


def test_readability_is_textdescriptives(monkeypatch):
    """With its syllables, which it takes from rules of hyphenation."""
    spacy = pytest.importorskip("spacy")
    pytest.importorskip("textdescriptives")
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    pipeline.add_pipe("textdescriptives/readability")
    document = pipeline(ENGLISH)
    spelled = [token.text for token in document if not token.is_punct]
    known = dict(zip(spelled, document._._n_syllables, strict=True))
    monkeypatch.setattr(text_metrics, "syllables", lambda word, language: known[word])
    own = text_profile(ENGLISH, "en")
    assert own.rix == pytest.approx(document._.readability["rix"])
    assert own.gunning_fog == pytest.approx(document._.readability["gunning_fog"])


def test_rix_is_textstats():
    textstat = pytest.importorskip("textstat")
    own = text_profile(ENGLISH, "en")
    assert own.rix == pytest.approx(textstat.rix(ENGLISH), abs=0.01)
    assert own.words == textstat.lexicon_count(ENGLISH)
    assert own.sentences == textstat.sentence_count(ENGLISH)


def test_metrics_are_the_fields():
    assert METRICS[:3] == ("characters", "bytes", "words")
    assert len(METRICS) == 9
