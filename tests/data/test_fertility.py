"""Fertility counted by hand."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from aya_jax.data import fertility, vocabulary


@pytest.fixture(scope="module")
def bytes_vocabulary() -> vocabulary.Vocabulary:
    return vocabulary.load("bytes")


def test_counts_and_ratios(bytes_vocabulary: vocabulary.Vocabulary) -> None:
    row = fertility.measure(bytes_vocabulary, ["Größe 10", "ja ja\n", ""], language="de", domain="text")
    # "Größe 10" has 8 characters in 10 bytes, "ja ja\n" 6 in 6; the words are Größe, 10, ja, ja.
    assert (row.documents, row.bytes, row.tokens, row.words, row.characters) == (3, 16, 16, 4, 7 + 4)
    assert row.bytes_per_token == 1.0
    assert row.tokens_per_word == 4.0
    assert row.tokens_per_character == pytest.approx(16 / 11)
    assert row.decoded_bytes == 16


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_languages_without_spaces_have_no_words(bytes_vocabulary: vocabulary.Vocabulary, language: str) -> None:
    row = fertility.measure(bytes_vocabulary, ["日本 語"], language=language, domain="text")
    assert row.tokens_per_word is None
    assert row.tokens_per_character == pytest.approx(10 / 3)


def test_a_task_without_text_has_no_ratios(bytes_vocabulary: vocabulary.Vocabulary) -> None:
    row = fertility.measure(bytes_vocabulary, [], language="de", domain="text")
    assert (row.bytes_per_token, row.tokens_per_word, row.tokens_per_character) == (0.0, None, 0.0)


def test_measuring_stops_after_the_document_that_reaches_the_limit(bytes_vocabulary: vocabulary.Vocabulary) -> None:
    endless = iter(lambda: "ab", None)
    row = fertility.measure(bytes_vocabulary, endless, language="de", domain="text", max_bytes=1001)
    assert (row.documents, row.bytes) == (501, 1002)


def test_total_and_tables(bytes_vocabulary: vocabulary.Vocabulary) -> None:
    rows = {
        "text_de": fertility.measure(bytes_vocabulary, ["ja ja"], language="de", domain="text"),
        "text_zh": fertility.measure(bytes_vocabulary, ["你好"] * 1000, language="zh", domain="text"),
    }
    everything = fertility.total(rows.values())
    assert (everything.documents, everything.bytes, everything.tokens, everything.characters) == (
        1001,
        6005,
        6005,
        2004,
    )
    assert json.loads(json.dumps(everything.to_dict()))["bytes_per_token"] == 1.0
    markdown = fertility.markdown_table("title", rows).splitlines()
    assert markdown[2] == "| task | documents | bytes | tokens | bytes/token | tokens/word | tokens/character |"
    assert markdown[4] == "| text_de | 1 | 5 | 5 | 1.00 | 2.50 | 1.25 |"
    assert markdown[5] == "| text_zh | 1,000 | 6,000 | 6,000 | 1.00 |  | 3.00 |"
    assert markdown[6].startswith("| all | 1,001 | 6,005 |")
    console = Console(width=80, file=io.StringIO())
    console.print(fertility.terminal_table("title", rows))
    shown = console.file.getvalue()
    assert "1,000" in shown
    assert "…" not in shown
