"""The shipped sample holds what its README says, judged by Unicode names and by national character sets."""

from __future__ import annotations

import json
import re
import unicodedata
from importlib import resources

import pytest

from aya_jax.data import tasks

SAMPLES = resources.files("aya_jax.data") / "samples"

# The first words of the Unicode names of a language's letters.
SCRIPTS = {
    "ar": ("ARABIC",),
    "el": ("GREEK",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "ja": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "zh": ("CJK",),
} | dict.fromkeys(["cs", "de", "en", "es", "fr", "id", "it", "nl", "pl", "pt", "ro", "tr", "vi"], ("LATIN",))

# Character sets that were made for these languages hold every letter of them, and few of any other.
CHARACTER_SETS = {
    "ar": "iso8859_6",
    "cs": "iso8859_2",
    "el": "iso8859_7",
    "he": "iso8859_8",
    "ja": "euc_jp",
    "ko": "euc_kr",
    "pl": "iso8859_2",
    "ro": "iso8859_16",
    "ru": "koi8_r",
    "tr": "iso8859_9",
    "uk": "koi8_u",
    "zh": "gb2312",  # simplified characters alone
} | dict.fromkeys(["de", "en", "es", "fr", "id", "it", "nl", "pt"], "iso8859_15")

# Letters that a text of five kilobytes cannot do without, unless its diacritics were lost or it is in another language.
TELLING = {
    "ar": "ةىأ",
    "cs": "ěřů",
    "de": "äöüß",
    "el": "άέήίόύώς",
    "es": "ñáé",
    "fa": "پچگکی\u200c",
    "fr": "éèêàç",
    "hi": "ािीक",
    "it": "èàùò",
    "ja": "のはをーン",
    "pl": "ąęłśż",
    "pt": "ãõçé",
    "ro": "ășțâî",
    "ru": "ыэё",
    "tr": "ığşç",
    "uk": "іїєґ",
    "vi": "đươạế",
}

LANGUAGES = sorted(SCRIPTS)


def records(language: str) -> list[dict[str, str]]:
    lines = (SAMPLES / "corpus" / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def texts(language: str) -> list[str]:
    return [record["text"] for record in records(language)]


def test_one_file_for_each_language_of_aya():
    files = {path.name for path in (SAMPLES / "corpus").iterdir()}

    assert files == {f"{language}.jsonl" for language in LANGUAGES}
    assert sorted(tasks.LANGUAGES) == LANGUAGES
    assert len(LANGUAGES) == 23


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_are_tagged_and_readable(language):
    raw = (SAMPLES / "corpus" / f"{language}.jsonl").read_bytes()

    assert raw.endswith(b"}\n")
    assert b"\\u" not in raw  # text is stored as itself
    for record in records(language):
        tags = {key: value for key, value in record.items() if key != "text"}
        assert tags == {"lang": language, "source": "aya_jax sample", "license": "CC0-1.0"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_about_five_kilobytes_in_short_documents(language):
    sizes = [len(text.encode()) for text in texts(language)]

    assert 4_500 <= sum(sizes) <= 6_500
    assert 12 <= len(sizes) <= 20
    assert min(sizes) >= 200
    assert max(sizes) <= 600


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_normal_and_clean(language):
    for text in texts(language):
        assert unicodedata.is_normalized("NFC", text)
        assert text == text.strip()
        controls = {c for c in text if unicodedata.category(c).startswith("C")}
        assert controls <= {"\n", "\u200c"}  # the zero-width non-joiner is part of Persian spelling
        assert "\ufffd" not in text
        assert "  " not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_letters_are_of_the_script(language):
    letters = [c for c in "".join(texts(language)) if c.isalpha()]
    of_script = [c for c in letters if unicodedata.name(c).split()[0] in SCRIPTS[language]]

    assert len(of_script) / len(letters) >= 0.8


@pytest.mark.parametrize("language", sorted(CHARACTER_SETS))
def test_letters_are_in_the_national_character_set(language):
    foreign = set()
    for letter in {c for c in "".join(texts(language)) if c.isalpha()}:
        try:
            letter.encode(CHARACTER_SETS[language])
        except UnicodeEncodeError:
            foreign.add(letter)

    assert foreign == set()


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"ja"}))
def test_no_word_mixes_scripts(language):
    words = re.findall(r"[^\W\d_]+", " ".join(texts(language)))

    mixed = [word for word in words if len({unicodedata.name(c).split()[0] for c in word}) > 1]

    assert mixed == []  # a look-alike letter of another script


@pytest.mark.parametrize("language", sorted(TELLING))
def test_telling_letters_are_there(language):
    assert set(TELLING[language]) <= set("".join(texts(language)))


def test_persian_is_not_typed_on_an_arabic_keyboard():
    assert not set("يكةى") & set("".join(texts("fa")))


def test_no_document_comes_twice():
    everything = [text for language in LANGUAGES for text in texts(language)]

    assert len(set(everything)) == len(everything)


def test_total_size_stays_small():
    total = sum(len(text.encode()) for language in LANGUAGES for text in texts(language))

    assert 105_000 <= total <= 140_000


def test_dedication_lies_beside_the_text():
    dedication = (SAMPLES / "LICENSE").read_text(encoding="utf-8")

    assert "CC0-1.0" in dedication
    assert "https://creativecommons.org/publicdomain/zero/1.0/" in dedication
