import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.profile.words import is_unspaced, letter_count, sentences, syllables, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: it's 3.14, or 1,000.5!", ["Don't", "panic", "it's", "3.14", "or", "1,000.5"]),
        ("well-known “quoted” e.g. (this)", ["well", "known", "quoted", "e.g", "this"]),
        ("**bold** _it_ `x_y`", ["bold", "it", "x", "y"]),
        ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
        ("हिन्दी में लिखी किताबें।", ["हिन्दी", "में", "लिखी", "किताबें"]),
        ("السَّلامُ عليكم، كيف؟", ["السَّلامُ", "عليكم", "كيف"]),
        ("צה\"ל בָּנָה ג'ירפה", ['צה"ל', "בָּנָה", "ג'ירפה"]),
        ("می\u200cروم خانه‌ها", ["می\u200cروم", "خانه‌ها"]),
        ("我爱中文2023年", ["我", "爱", "中", "文", "2023", "年"]),
        ("私はコーヒーを飲みます。", ["私", "は", "コーヒー", "を", "飲", "みます"]),
        ("らーめん", ["らーめん"]),
        ("가격은 3,000원입니다", ["가격은", "3,000원입니다"]),
        ("ไทย เก่า น้ำ", ["ไ" + "ท", "ย", "เก่", "า", "น้", "ำ"]),
        ("Việt Nam tiếng", ["Việt", "Nam", "tiếng"]),
        ("٣٫١٤ و ٤", ["٣٫١٤", "و", "٤"]),
        ("п'ять м’яч", ["п'ять", "м’яч"]),
        ("… 😀 — !", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


ALPHABET = "aZé1٣'.,’ -бיה\"ी़कو가\u0301\n"


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=ALPHABET, max_size=30))
def test_words_are_those_of_unicode(text):
    """Against the word boundaries of another implementation, for text that has none of the documented exceptions."""
    regex = pytest.importorskip("regex")
    # `regex` begins a word with an apostrophe that Unicode's rules leave outside; and marks stand on letters that they fit
    # and are not followed by punctuation, over which it stumbles.
    text = regex.sub(
        r"(?<![\p{L}\p{N}\p{M}])(?:'|’|\p{M})+|(?<=[\p{N}א-ת])\p{M}+|(?<=\p{N})['’](?!\p{N})|(?<=\p{M})['’.,\"]",
        " ",
        text,
    )
    parts = regex.compile(r"\b", regex.V1 | regex.WORD).split(text)
    assert words(text) == [part for part in parts if any(c.isalnum() for c in part)]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_words_keep_every_letter_in_order(text):
    kept = "".join(c for c in text if c.isalnum())
    assert "".join(c for word in words(text) for c in word if c.isalnum()) == kept


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "Dr. Smith paid $3.50. He left!", 2),
        ("en", "Is it? Yes. “Really?” he asked. No…", 4),
        ("en", "The U.S. economy grew, e.g. in 2020. J. Doe said so.", 2),
        ("en", "See example.com/?q=1. Then go.", 2),
        ("en", "Steps:\n1. Open it.\n2. Close it.", 3),
        ("en", "Wait... what? (It stopped.) Good.", 3),
        ("en", "no end", 1),
        ("en", "...\n---\n!", 0),
        ("de", "Am 3. Oktober 1990 kam z. B. Dr. Kohl. Das war gut.", 2),
        ("de", "Es kostet 3,50 Euro bzw. Mark. Ende.", 2),
        ("fr", "M. Dupont est là. « Vraiment ? » dit-il. Oui !", 3),
        ("es", "¿Qué tal? ¡Bien! El Sr. López llegó.", 3),
        ("it", "Il sig. Rossi parla. Bene!", 2),
        ("pt", "A Sra. Silva chegou. Tudo bem?", 2),
        ("nl", "Dit kost ca. Drie euro. Mooi.", 2),
        ("pl", "W 1990 r. było tzw. Święto. Koniec.", 2),
        ("cs", "Bylo to 5. května, tj. V pátek. Konec.", 2),
        ("ro", "Str. Lungă e aici. Bine!", 2),
        ("ru", "Это было в 1990 г. Москва росла, т.е. менялась. Да!", 2),
        ("uk", "Це вул. Хрещатик. Так?", 2),
        ("tr", "Örn. Ankara büyük. 19. yüzyıl bitti.", 2),
        ("vi", "TP. Hồ Chí Minh rất đông. Đúng không?", 2),
        ("id", "Jl. Sudirman ramai. Ya!", 2),
        ("el", "Τι κάνεις; Καλά. Ο κ. Παπαδόπουλος ήρθε.", 3),
        ("ar", "كيف حالك؟ أنا بخير. شكرا!", 3),
        ("fa", "حال شما چطور است؟ خوبم. ممنون!", 3),
        ("he", "מה שלומך? טוב. תודה!", 3),
        ("hi", "यह किताब है। वह कौन है? अच्छा॥", 3),
        ("ja", "今日は晴れです。明日は?雨!「そうですか。」", 4),
        ("ko", "오늘은 맑아요. 내일은요? 비!", 3),
        ("zh", "今天很好。明天呢？下雨！“是的。”", 4),
        (None, "اردو جملہ۔ دوسرا جملہ۔", 2),
    ],
)
def test_sentences(language, text, expected):
    assert len(sentences(text, language)) == expected, sentences(text, language)


@settings(deadline=None)
@given(st.text(alphabet="aB .!?。\n\"'1", max_size=40))
def test_sentences_lose_no_word(text):
    assert [word for sentence in sentences(text) for word in words(sentence)] == words(text)


@pytest.mark.parametrize(
    ("language", "counts"),
    [
        ("en", {"the": 1, "made": 1, "makes": 1, "table": 2, "baked": 1, "wanted": 2, "boxes": 2, "beautiful": 3, "yes": 1,
                "beyond": 2, "queen": 1, "rhythm": 1, "naïve": 2, "university": 5, "whole": 1,
                "carefully": 3, "movement": 2, "precisely": 3}),
        ("de", {"Straße": 2, "Häuser": 2, "Universität": 5, "über": 2}),
        ("fr", {"porte": 1, "université": 5, "portes": 1, "maïs": 2, "eau": 1}),
        ("es", {"casa": 2, "corazón": 3, "que": 1}),
        ("pl", {"wszystko": 2, "książka": 2, "dziękuję": 3}),
        ("cs", {"vlk": 1, "příliš": 2}),
        ("tr", {"yıldız": 2, "öğretmen": 3, "kapı": 2}),
        ("vi", {"người": 1, "Việt": 1, "đường": 1}),
        ("ro", {"învățător": 4}),
        ("ru", {"молоко": 3, "йод": 1, "поэзия": 4, "в": 1, "моро\u0301з": 2}),
        ("uk", {"їжак": 2, "Україна": 4}),
        ("el", {"οικονομία": 5, "καλημέρα": 4, "και": 1, "τσάι": 2, "Μαΐου": 3, "αυτοκίνητο": 5}),
        (None, {"2023": 0, "किताब": None, "سلام": None, "中": None, "가격": None, "שלום": None, "кot": None}),
    ],
)  # fmt: skip
def test_syllables(language, counts):
    assert {word: syllables(word, language) for word in counts} == counts


def test_composition_does_not_change_syllables():
    for word in ("naïve", "Україна", "йод", "Μαΐου", "người", "corazón"):
        assert syllables(unicodedata.normalize("NFD", word)) == syllables(unicodedata.normalize("NFC", word))


def test_units():
    assert [is_unspaced(word) for word in ("中", "かな", "カナ", "ก", "word", "слово", "가")] == [True] * 4 + [
        False
    ] * 3
    assert [letter_count(word) for word in ("किताब", "cafe\u0301", "don't")] == [3, 4, 4]
