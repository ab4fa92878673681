"""Near-duplicates against exact similarities of Python sets and against the search of all pairs."""

from __future__ import annotations

import gzip
import itertools
import json
import math
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data import near_duplicates as room
from aya_jax.data.near_duplicates import bands, near_duplicates, normalize, signatures

PARAGRAPHS = {
    "en": "The old bridge over the river was closed in spring, because its wooden beams had begun to rot. People now walk "
    "half an hour to the next village, and the baker has bought a small boat.",
    "ar": "أغلق الجسر القديم فوق النهر في الربيع لأن عوارضه الخشبية بدأت تتعفن. يمشي الناس الآن نصف ساعة إلى القرية المجاورة، "
    "واشترى الخباز قاربا صغيرا لينقل الخبز إلى الضفة الأخرى كل صباح.",
    "hi": "नदी पर बना पुराना पुल वसंत में बंद कर दिया गया क्योंकि उसकी लकड़ी सड़ने लगी थी। लोग अब अगले गाँव तक आधा घंटा पैदल चलते हैं, "
    "और नानबाई ने रोटी पहुँचाने के लिए एक छोटी नाव खरीद ली है।",
    "ja": "川にかかる古い橋は、木の梁が腐り始めたため春に閉鎖されました。人々は今、隣の村まで三十分歩いています。"
    "パン屋は毎朝パンを向こう岸へ運ぶために小さな舟を買いました。子どもたちはその舟に乗るのを楽しみにしています。",
    "ru": "Старый мост через реку закрыли весной, потому что его деревянные балки начали гнить. Теперь люди идут полчаса до "
    "соседней деревни, а пекарь купил маленькую лодку.",
    "el": "Η παλιά γέφυρα πάνω από το ποτάμι έκλεισε την άνοιξη, επειδή τα ξύλινα δοκάρια της είχαν αρχίσει να σαπίζουν. Τώρα "
    "ο κόσμος περπατά μισή ώρα ως το διπλανό χωριό.",
    "th": "สะพานเก่าข้ามแม่น้ำถูกปิดในฤดูใบไม้ผลิเพราะคานไม้เริ่มผุพัง ตอนนี้ผู้คนต้องเดินครึ่งชั่วโมงไปยังหมู่บ้านถัดไป "
    "และคนทำขนมปังได้ซื้อเรือลำเล็กเพื่อส่งขนมปังทุกเช้า",
}


def shingles(text: str, size: int) -> set[str]:
    """As the docstring says, of text that needs no normalization."""
    return {text[start : start + size] for start in range(max(1, len(text) - size + 1))}


def jaccard(left: str, right: str, size: int) -> float:
    one, other = shingles(left, size), shingles(right, size)
    return len(one & other) / len(one | other)


def groups(similar) -> list[int]:
    """For each row the least of those that it is connected to, by search; similar is square."""
    first = [-1] * len(similar)
    for start in range(len(similar)):
        waiting = [start] if first[start] < 0 else []
        while waiting:
            row = waiting.pop()
            if first[row] < 0:
                first[row] = start
                waiting += [other for other in range(len(similar)) if similar[row][other]]
    return first


def varied(rng: random.Random, alphabet: str, length: int, changed: float) -> tuple[str, str]:
    """A random text, and one whose end is another."""
    text = "".join(rng.choice(alphabet) for _ in range(length))
    kept = round(length * (1 - changed))
    return text, text[:kept] + "".join(rng.choice(alphabet) for _ in range(length - kept))


@pytest.mark.parametrize(("permutations", "size"), [(128, 5), (64, 3), (256, 2)])
def test_estimates_scatter_about_exact_similarities_as_a_binomial_does(permutations, size):
    rng = random.Random(0)
    letters = ["abcdefghij klmnop", "абвгдежзиклмнопр", "".join(map(chr, range(0x4E00, 0x4E80))), "กขคงจฉชซญดตถ"]
    squares = []
    for number in range(400):
        texts = varied(rng, letters[number % 4], rng.randint(size + 20, 400), rng.random() * 0.5)
        left, right = map(normalize, texts)
        exact = jaccard(left, right, size)
        made = signatures(texts, permutations=permutations, shingle=size, seed=number)
        deviation = math.sqrt(exact * (1 - exact) / permutations)
        error = np.mean(made[0] == made[1]) - exact
        assert abs(error) <= 5 * deviation
        if deviation:
            squares.append((error / deviation) ** 2)
    assert len(squares) > 200
    assert abs(np.mean(squares) - 1) < 5 * math.sqrt(2 / len(squares))  # the mean of chi-squared


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9])
def test_bands_find_pairs_at_the_threshold_and_are_no_shorter_than_that_needs(threshold):
    def share(count, rows):
        """Of pairs that agree in each value with the probability of the threshold: those with a band in common."""
        agree = np.random.default_rng(1).random((20_000, count, rows)) < threshold
        return agree.all(2).any(1).mean()

    count, rows = bands(threshold, 128)
    assert count * rows <= 128
    assert share(count, rows) >= 0.99 - 0.003
    assert share(128 // (rows + 1), rows + 1) < 0.99 + 0.003


def test_bands_at_the_ends():
    assert bands(1.0, 128) == (1, 128)
    assert bands(0.01, 128) == (128, 1)
    assert bands(0.8, 1) == (1, 1)


near = st.lists(
    st.one_of(
        st.text("ab", max_size=14),
        st.builds(
            lambda base, place, letter: base[:place] + letter + base[place:],
            st.sampled_from(
                ["the river runs south of the town", "川は町の南を流れています。", "река течёт к югу от города"]
            ),
            st.integers(0, 32),
            st.text("abя川 ", max_size=6),
        ),
    ),
    max_size=9,
)


@settings(deadline=None)
@given(near, st.sampled_from([0.05, 0.15, 0.25]), st.integers(0, 3))
def test_groups_are_those_of_all_pairs_by_their_estimates(texts, threshold, seed):
    """At these thresholds a band is one value, so no pair that is similar enough can be missed."""
    made = signatures(texts, seed=seed)
    similar = [[np.mean(one == other) >= threshold for other in made] for one in made]
    assert bands(threshold, 128)[1] == 1
    assert near_duplicates(texts, threshold=threshold, seed=seed).tolist() == groups(similar)


@settings(deadline=None)
@given(near, st.sampled_from([0.4, 0.6, 0.8]))
def test_groups_lie_between_those_of_exact_similarities_a_little_above_and_below(texts, threshold):
    found = near_duplicates(texts, threshold=threshold, permutations=512, shingle=3).tolist()
    plain = [normalize(text) for text in texts]
    exact = [[jaccard(one, other, 3) for other in plain] for one in plain]
    margin = 0.12  # five standard deviations and more
    for row, other in itertools.combinations(range(len(texts)), 2):
        if exact[row][other] >= min(1, threshold + margin):
            assert found[row] == found[other]
    loose = groups([[value >= threshold - margin for value in row] for row in exact])
    for row, first in enumerate(found):
        assert loose[row] == loose[first]
        assert found[first] == first <= row


@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_large_buckets_are_those_of_all_pairs(monkeypatch, threshold):
    """Copies that are nearly all alike, chains whose ends are not, and fillings of a template below the threshold."""
    rng = random.Random(3)
    base = "".join(rng.choice("abcdefgh ") for _ in range(300))
    texts = [base + str(number) for number in range(120)]
    texts += [base[5 * number :] + base[: 5 * number].upper()[::-1] for number in range(60)]
    texts += [base[:120] + "".join(rng.choice("xyz ") for _ in range(90)) for _ in range(60)]
    rng.shuffle(texts)
    made = signatures(texts)
    share = (made[:, None] == made[None]).mean(2)
    count, rows = bands(threshold, 128)
    parts = made[:, : count * rows].reshape(len(made), count, rows)
    candidates = (parts[:, None] == parts[None]).all(3).any(2)
    expected = groups(candidates & (share >= threshold))
    assert near_duplicates(texts, threshold=threshold).tolist() == expected
    monkeypatch.setattr(room, "_PAIRS", 16)
    assert near_duplicates(texts, threshold=threshold).tolist() == expected
    assert 1 < len(set(expected)) < len(texts)


def test_a_chain_is_one_group_whose_ends_are_unlike():
    rng = random.Random(5)
    base = "".join(rng.choice("abcdefghijklmnop") for _ in range(900))
    chain = [base[20 * number : 20 * number + 300] for number in range(25)]
    assert jaccard(chain[0], chain[-1], 5) < 0.1
    assert near_duplicates(chain).tolist() == [0] * 25


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_copies_with_small_changes_are_found_in_every_script(language):
    text = PARAGRAPHS[language]
    half = len(text) // 2
    changes = [
        text,
        f"  {text}\n",
        text.replace(" ", " \n\t "),
        text.upper(),
        text[:half] + "—" + text[half:],
        text[:-6],
    ]
    others = [other for name, other in PARAGRAPHS.items() if name != language]
    found = near_duplicates([*others, *changes], threshold=0.75).tolist()
    assert found == [*range(len(others)), *[len(others)] * len(changes)]


def test_full_width_letters_and_ligatures_are_the_same():
    assert normalize(" ＡＢＣ\u3000ﬁn  Straße ") == "abc fin strasse"
    assert normalize("e\u0301") == normalize("é")
    assert near_duplicates(["ＡＢＣ ﬁn", "abc fin"]).tolist() == [0, 0]


def test_short_texts_are_compared_whole_and_empty_ones_are_equal():
    texts = ["", "はい", "yes", " \n", "はい", "Yes ", "ye", "\u3000", "yesyesyes"]
    assert near_duplicates(texts).tolist() == [0, 1, 2, 0, 1, 2, 6, 0, 8]
    assert near_duplicates(["abcd", "abcd efgh"], threshold=0.05).tolist() == [0, 1]
    assert near_duplicates([]).tolist() == []
    assert near_duplicates(["\ud800"]).tolist() == [0]  # half a pair, as broken JSON has it


def test_what_is_read_is_read_once():
    found = near_duplicates(iter(["one and the same text", "another text altogether", "one and the same text"]))
    assert (found.dtype, found.tolist()) == (np.int64, [0, 1, 0])


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False))
def test_order_matters_only_for_who_is_first(rng):
    texts = [text[:cut] for text in PARAGRAPHS.values() for cut in (None, -4, -40, 60)] + ["", "x", ""]
    order = list(range(len(texts)))
    rng.shuffle(order)
    original = near_duplicates(texts).tolist()
    shuffled = near_duplicates([texts[row] for row in order]).tolist()

    def parts(numbers):
        return {frozenset(row for row, number in numbers if number == first) for _, first in numbers}

    assert parts(list(enumerate(original))) == parts(
        [(order[place], order[number]) for place, number in enumerate(shuffled)]
    )
    assert all(first <= place for place, first in enumerate(shuffled))


def test_a_seed_gives_the_same_and_another_seed_other_permutations():
    texts = list(PARAGRAPHS.values())
    assert (signatures(texts, seed=1) == signatures(texts, seed=1)).all()
    assert (signatures(texts, seed=1) != signatures(texts, seed=2)).mean() > 0.99


def test_signatures_do_not_depend_on_batches(monkeypatch):
    texts = ["", "ab", *PARAGRAPHS.values(), "z", PARAGRAPHS["ja"] * 30]
    whole = signatures(texts)
    assert (np.concatenate([signatures([text]) for text in texts]) == whole).all()
    monkeypatch.setattr(room, "_BATCH", 200)
    assert (signatures(texts) == whole).all()
    assert (whole.shape, whole.dtype) == ((len(texts), 128), np.uint32)


def test_no_pair_below_the_threshold_is_joined_by_its_bands_alone():
    """Pairs near 0.6, some of which share a band of those that are made for 0.8."""
    rng = random.Random(9)
    pairs = [varied(rng, "".join(map(chr, range(0x400, 0x500))), 400, 0.25) for _ in range(60)]
    assert all(0.5 < jaccard(*map(normalize, pair), 5) < 0.66 for pair in pairs)
    texts = [text for pair in pairs for text in pair]
    count, rows = bands(0.8, 512)
    parts = signatures(texts, permutations=512)[:, : count * rows].reshape(len(pairs), 2, count, rows)
    assert (parts[:, 0] == parts[:, 1]).all(2).any(1).mean() > 0.1
    assert near_duplicates(texts, permutations=512).tolist() == list(range(len(texts)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0.0}, "threshold = 0.0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": math.nan}, "threshold = nan"),
        ({"permutations": 0}, "permutations = 0"),
        ({"shingle": 0}, "shingle = 0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        near_duplicates(["a", "b"], **changes)


@pytest.mark.real_data
def test_cut_copies_of_real_text_are_found_and_little_else():
    texts = []
    for file in sorted((Path(os.environ["AYA_DATA"]) / "corpus").glob("*.jsonl.gz")):
        with gzip.open(file) as lines:
            texts += [json.loads(line)["text"][:500] for line, _ in zip(lines, range(20), strict=False)]
    texts = [text for text in dict.fromkeys(texts) if len(text) > 400]
    found = near_duplicates([*texts, *(text[20:-20] for text in texts)])
    copies = found[len(texts) :]
    exact = np.array([jaccard(normalize(text), normalize(text[20:-20]), 5) for text in texts])
    sure = exact > 0.9
    assert (sure.sum(), len(texts)) > (200, 300)
    assert (copies[sure] == found[: len(texts)][sure]).all()
    joined = np.flatnonzero(found[: len(texts)] != np.arange(len(texts)))
    assert all(jaccard(normalize(texts[row]), normalize(texts[found[row]]), 5) > 0.65 for row in joined)
