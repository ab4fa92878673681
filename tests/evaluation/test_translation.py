"""Corpora's scores against sacrebleu's own, and their intervals against resampling by hand."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import sacrebleu
import sentencepiece
from sacrebleu.tokenizers import tokenizer_spm

from aya_jax.config import UserError
from aya_jax.evaluation.translation import corpus_scores, open_pieces, segment_mean, sentence_scores

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


@pytest.fixture
def own_copy(tmp_path, monkeypatch):
    """A small model of pieces where sacrebleu keeps that of FLORES-200."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(RIGHT + SAID), model_writer=model, vocab_size=60, hard_vocab_limit=False, minloglevel=2
    )
    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    file = tmp_path / "models" / "flores200sacrebleuspm"
    file.parent.mkdir()
    file.write_bytes(model.getvalue())
    return file


def test_spbleu_is_sacrebleu_s_with_its_own_copy_and_with_a_file(own_copy):
    theirs = sacrebleu.BLEU(tokenize="flores200")
    expected = theirs.corpus_score(SAID, [RIGHT]).score
    digest = hashlib.sha256(own_copy.read_bytes()).hexdigest()
    elsewhere = own_copy.rename(own_copy.parents[1] / "pieces.model")
    named = open_pieces(str(elsewhere))
    elsewhere.rename(own_copy)
    for pieces in (open_pieces(None), named):
        spbleu = corpus_scores("ja", SAID, RIGHT, pieces=pieces)[2]
        assert (spbleu.name, spbleu.score) == ("spbleu", pytest.approx(expected))
        assert spbleu.signature == f"{theirs.get_signature()}|spm:{digest[:16]}"
        assert spbleu.low < spbleu.score < spbleu.high
    assert expected != pytest.approx(sacrebleu.corpus_bleu(SAID, [RIGHT]).score, abs=0.5)  # pieces are other words


def test_pieces_that_cannot_be_had_are_said(tmp_path, monkeypatch):
    def no_network(url, path):
        raise OSError("Name or service not known")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer_spm, "download_file", no_network)
    with pytest.raises(
        UserError, match=r"models/flores200sacrebleuspm, and https.*Name or service.*TranslationConfig\.spm=FILE"
    ):
        open_pieces(None)
    with pytest.raises(UserError, match=r"none\.model: no SentencePiece model can be read there \(.*No such file"):
        open_pieces(str(tmp_path / "none.model"))
    (tmp_path / "bad.model").write_text("no pieces")
    with pytest.raises(UserError, match=r"bad\.model: no SentencePiece model can be read there"):
        open_pieces(str(tmp_path / "bad.model"))


def test_perfect_is_100_and_nothing_is_0():
    assert [score.score for score in corpus_scores("de", RIGHT, RIGHT)] == pytest.approx([100, 100])
    assert [score.score for score in corpus_scores("de", [""] * 20, RIGHT)] == [0, 0]


def test_a_mean_of_segments_with_its_interval():
    values = np.random.default_rng(0).beta(8, 2, 400)
    found = segment_mean("comet", "model:x", values)
    assert found.score == pytest.approx(100 * values.mean())
    width = 1.96 * 100 * values.std() / 20  # normal theory
    assert (found.low, found.high) == pytest.approx((found.score - width, found.score + width), abs=0.2)
    assert (found.name, found.signature, found.sentences) == ("comet", "model:x", 400)
