import random
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config.errors import UserError
from aya_jax.evaluation.contamination import overlap as contamination
from aya_jax.evaluation.contamination.overlap import (
    EvaluationRow,
    LanguageOverlap,
    RowOverlap,
    Search,
    by_language,
    overlap,
    passage,
)

SYLLABLES = ["ba", "ko", "ri", "ta", "mu", "né", "sø", "да", "ло", "ми", "كت", "सा"]
HAN = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动"


def made_up(rng, words=60):
    return " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(words))


def one_piece(name, text, language=""):
    return EvaluationRow(name, (text,), language)


def tokens_by_hand(text):
    text = unicodedata.normalize("NFKC", text).lower()
    is_mark = [unicodedata.category(c).startswith("M") for c in text]
    kept = "".join(c if c.isalnum() or mark else " " for c, mark in zip(text, is_mark, strict=True))
    return re.sub("([\u3040-\u30ff\u4e00-\u9fff])", r" \1 ", kept).split()


def overlap_by_hand(rows, documents, n):
    def grams(text):
        tokens = tokens_by_hand(text)
        return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

    training = [set(grams(document)) for document in documents]
    found = []
    for row in rows:
        own = [gram for piece in row.pieces for gram in grams(piece)]
        hits = [next((k for k, document in enumerate(training) if gram in document), None) for gram in own]
        seen = Counter(sorted(k for k in hits if k is not None))
        most = seen.most_common(1)[0][0] if seen else None
        found.append(RowOverlap(row, len(own), seen.total() / len(own) if own else None, most))
    return found


TEXT = st.text(
    alphabet=["a", "B", "b", "é", " ", " ", "-", "1", "中", "国", "か", "\n", "\u0301", "क", "ा", "😀"], max_size=40
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(TEXT, max_size=3), max_size=4), st.lists(TEXT, max_size=4), st.integers(1, 4))
def test_is_what_sets_of_strings_give(evaluation, documents, n):
    rows = [EvaluationRow(str(number), tuple(pieces)) for number, pieces in enumerate(evaluation)]
    assert overlap(rows, documents, n) == overlap_by_hand(rows, documents, n)


def test_planted_rows_are_found_and_others_are_not():
    rng = random.Random(0)
    documents = [made_up(rng, 400) for _ in range(50)]
    clean = [one_piece(f"clean/{k}", made_up(rng), "xx") for k in range(100)]
    planted = [one_piece(f"planted/{k}", made_up(rng), "xx") for k in range(5)]
    for k, row in enumerate(planted):
        words = documents[7 * k].split()
        # In capitals, with other punctuation and a decomposed accent
        changed = unicodedata.normalize("NFD", row.pieces[0].upper().replace(" ", ", "))
        documents[7 * k] = " ".join(words[:100]) + f" «{changed}» " + " ".join(words[100:])
    found = overlap([*clean, *planted], documents)
    assert all(row.share == 0 and row.document is None for row in found[:100])
    assert [(row.share, row.document) for row in found[100:]] == [(1.0, 7 * k) for k in range(5)]
    assert by_language(found)["xx"] == LanguageOverlap(105, 0, 5, 5, 5 / 105)


def test_scripts_without_spaces_go_by_characters():
    rng = random.Random(1)
    row = "".join(rng.choices(HAN, k=40))
    documents = ["".join(rng.choices(HAN, k=5000)) for _ in range(5)]
    rows = [one_piece("zh/0", row, "zh"), one_piece("zh/1", "".join(rng.choices(HAN, k=40)), "zh")]
    assert [r.share for r in overlap(rows, documents)] == [0.0, 0.0]
    documents[3] = documents[3][:1000] + row[:20] + documents[3][1000:]
    found = overlap(rows, documents)
    assert (found[0].ngrams, found[0].share, found[0].document) == (28, 8 / 28, 3)
    assert found[1].share == 0


def test_ngrams_do_not_cross_documents():
    words = made_up(random.Random(2), 13).split()
    rows = [one_piece("a", " ".join(words))]
    assert overlap(rows, [" ".join(words[:6]), " ".join(words[6:])])[0].share == 0
    assert overlap(rows, [" ".join(words)])[0].share == 1


def test_short_rows_are_said_to_be_too_short():
    found = overlap([one_piece("a", "two words", "en"), one_piece("b", "", "en")], ["two words"])
    assert [row.share for row in found] == [None, None]
    assert by_language(found) == {"en": LanguageOverlap(2, 2, 0, 0, None)}


def test_batches_do_not_change_the_result(monkeypatch):
    rng = random.Random(3)
    documents = [made_up(rng, 30) for _ in range(40)]
    rows = [one_piece(str(k), documents[k]) for k in (39, 3, 17)]
    whole = overlap(rows, iter(documents))
    monkeypatch.setattr(contamination, "_CHUNK", 300)
    assert overlap(rows, iter(documents)) == whole
    assert [row.document for row in whole] == [39, 3, 17]


def test_hashes_do_not_collide():
    words = [f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in range(4000)]
    tokens = contamination._tokenize([" ".join(words)])
    assert len(np.unique(tokens.hashes)) == len(words)
    grams, _ = contamination._ngrams(tokens, 13)
    assert len(np.unique(grams & np.uint64(0xFFFFFFFFFF))) > 0.99 * len(grams)
    # the same words in another order, and cut elsewhere
    orders = ["ab c", "a bc", "c ab", "bc a", "abc", "b ac"]
    assert len({int(contamination._ngrams(contamination._tokenize([o + " x"]), 2)[0][0]) for o in orders}) == 6


def test_a_search_goes_on_from_what_it_knew():
    rng = random.Random(5)
    documents = [made_up(rng, 60) for _ in range(12)]
    rows = [one_piece(str(k), documents[k] + " " + documents[k + 1]) for k in (0, 4, 9)]
    whole, before = Search(rows, 5), Search(rows, 5)
    found = whole.look(documents[:6], 0) | whole.look(documents[6:], 6)
    before.know(before.look(documents[:6], 0))
    after = Search(rows, 5)
    after.know({place: document for place, document in found.items() if document < 6})
    after.look(documents[6:], 6)
    assert after.overlaps() == whole.overlaps() == overlap(rows, documents, 5)
    assert whole.look(documents, 12) == {}  # nothing is new


def test_the_document_is_the_one_that_has_most():
    rng = random.Random(6)
    text = made_up(rng, 40)
    words = text.split()
    documents = [" ".join(words[:14]), made_up(rng, 100), "so: " + text]
    [found] = overlap([one_piece("a", text)], documents)
    assert (found.share, found.document) == (1.0, 2)  # 2 of 28 are in the first


def test_passages_are_cut_out_of_their_documents():
    rng = random.Random(7)
    text = made_up(rng, 20)
    shouted = text.upper().replace(" ", ", ")
    document = f"{made_up(rng, 30)} «{unicodedata.normalize('NFKC', shouted)}!» {made_up(rng, 30)}"
    assert passage(one_piece("a", text), document, 13) == unicodedata.normalize("NFKC", shouted)
    assert passage(one_piece("a", text), made_up(rng, 300), 13) == ""


def test_bad_requests():
    with pytest.raises(UserError, match="at least 1"):
        overlap([], [], 0)
    with pytest.raises(UserError, match="same id"):
        overlap([one_piece("a", "x"), one_piece("a", "y")], [])
