"""Token lengths against tokenizers' own alphabet and cases by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from aya_jax.data.token_lengths import byte_level_length, piece_length, spaced_length


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1))
def test_byte_level_length_is_that_of_the_text_it_writes(text: str) -> None:
    ((token, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert byte_level_length(token) == len(text.encode())


def test_the_whole_alphabet_is_known() -> None:
    assert all(byte_level_length(character) == 1 for character in pre_tokenizers.ByteLevel.alphabet())
    assert byte_level_length("  ") == 2  # an added token, written as itself
    assert byte_level_length("日本") == 6


@pytest.mark.parametrize(("piece", "length"), [("▁the", 4), ("▁", 1), ("日", 3), ("▁é", 3)])
def test_spaces_in_pieces(piece: str, length: int) -> None:
    assert spaced_length(piece) == length


@pytest.mark.parametrize(
    ("model", "token", "length"),
    [
        ({"byte_fallback": True}, "<0xE6>", 1),
        ({"byte_fallback": False}, "<0xE6>", 6),
        ({"continuing_subword_prefix": "##"}, "##ing", 3),
        ({"continuing_subword_prefix": "##"}, "##", 2),
        ({"end_of_word_suffix": "</w>"}, "cat</w>", 3),
        ({}, "▁cat", 4),
    ],
)
def test_pieces_of_models(model: dict[str, object], token: str, length: int) -> None:
    assert piece_length({"model": model})(token) == length
