"""UTF-8 bytes that one token of a `tokenizer.json` or a SentencePiece model stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def _byte_level_alphabet() -> frozenset[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return frozenset(map(chr, printable)) | frozenset(chr(256 + n) for n in range(256 - len(printable)))


_BYTE_LEVEL_ALPHABET = _byte_level_alphabet()


def byte_level_length(token: str) -> int:
    """One byte per character; an added token that is not written in the byte alphabet is its own text."""
    return len(token) if _BYTE_LEVEL_ALPHABET.issuperset(token) else len(token.encode("utf-8"))


def spaced_length(piece: str) -> int:
    """Bytes of a piece in which "▁" stands for a space."""
    return len(piece.replace("▁", " ").encode("utf-8"))


def piece_length(description: Mapping[str, Any]) -> Callable[[str], int]:
    """Bytes of a token that is written as text: "▁" a space, `<0xNN>` a byte, WordPiece and BPE affixes nothing.

    Args:
      description: a parsed `tokenizer.json`, whose `model` says which of these it uses.
    """
    model = description["model"]
    fallback = bool(model.get("byte_fallback"))
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""

    def length(token: str) -> int:
        if fallback and _BYTE_PIECE.fullmatch(token):
            return 1
        return spaced_length(token.removeprefix(prefix).removesuffix(suffix) or token)

    return length
