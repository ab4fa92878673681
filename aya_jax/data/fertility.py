"""How finely a vocabulary cuts each language: bytes per token, tokens per word and per character.

Fertility is the number of tokens per word (Rust et al. 2021, "How Good is Your Tokenizer?"). Words here are what white
space separates, so languages that are written without spaces have tokens per character instead, and no words. Bytes are
of the text in UTF-8, so the vocabulary 'bytes' has exactly one byte per token: the ratio is how many times fewer tokens
than bytes a model reads.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping

from rich import box
from rich.table import Table

from aya_jax.data.vocabulary import Vocabulary

WITHOUT_SPACES = frozenset({"ja", "km", "lo", "my", "th", "zh"})
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Fertility:
    """Counts over a task's documents.

    Attributes:
      language, domain: the task's tags.
      documents: their number.
      bytes: of their text in UTF-8, as written.
      decoded_bytes: that the tokens stand for; equal to `bytes` unless the vocabulary normalises or drops something.
      tokens: without bos and eos.
      words: separated by white space, or None where the language is written without spaces.
      characters: Unicode code points that are no white space.
    """

    language: str
    domain: str
    documents: int
    bytes: int
    decoded_bytes: int
    tokens: int
    words: int | None
    characters: int

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token."""
        return self.bytes / self.tokens if self.tokens else 0.0

    @property
    def tokens_per_word(self) -> float | None:
        """Tokens per word, or None where words are not separated."""
        return self.tokens / self.words if self.words else None

    @property
    def tokens_per_character(self) -> float:
        """Tokens per character that is no white space."""
        return self.tokens / self.characters if self.characters else 0.0

    def to_dict(self) -> dict[str, object]:
        """The counts and the three ratios."""
        ratios = ("bytes_per_token", "tokens_per_word", "tokens_per_character")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in ratios}


def measure(
    vocabulary: Vocabulary, texts: Iterable[str], *, language: str, domain: str, max_bytes: int | None = None
) -> Fertility:
    """Encodes texts, up to `max_bytes` of them, a batch at a time, and counts."""
    token_bytes = vocabulary.token_bytes()
    documents = size = decoded = tokens = words = characters = 0
    for batch in _batches(_limited(texts, max_bytes)):
        documents += len(batch)
        size += sum(len(text.encode("utf-8")) for text in batch)
        pieces = [text.split() for text in batch]
        words += sum(map(len, pieces))
        characters += sum(len("".join(piece)) for piece in pieces)
        for ids in vocabulary.encode_batch(batch, parallel=True):
            tokens += len(ids)
            decoded += int(token_bytes[ids].sum()) if ids else 0
    counted_words = None if language in WITHOUT_SPACES else words
    return Fertility(language, domain, documents, size, decoded, tokens, counted_words, characters)


def total(rows: Iterable[Fertility]) -> Fertility:
    """The sum of all tasks; it has no words, because not all of them do."""
    rows = tuple(rows)
    sums = (sum(getattr(r, f) for r in rows) for f in ("documents", "bytes", "decoded_bytes", "tokens"))
    return Fertility("all", "all", *sums, words=None, characters=sum(r.characters for r in rows))


_HEADINGS = ("task", "documents", "bytes", "tokens", "bytes/token", "tokens/word", "tokens/character")


def terminal_table(title: str, rows: Mapping[str, Fertility]) -> Table:
    """The table for a terminal."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for heading in _HEADINGS:
        shown = heading.replace("documents", "docs").replace("character", "char").replace("/", "\n/")
        table.add_column(shown, justify="left" if heading == "task" else "right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(*_cells(name, row))
    table.add_section()
    table.add_row(*_cells("all", total(rows.values())), style="bold")
    return table


def markdown_table(title: str, rows: Mapping[str, Fertility]) -> str:
    """The same table in Markdown."""
    lines = [f"# {title}", "", _line(_HEADINGS), _line(["---"] + ["---:"] * (len(_HEADINGS) - 1))]
    lines += [_line(_cells(name, row)) for name, row in rows.items()]
    lines.append(_line(_cells("all", total(rows.values()))))
    return "\n".join(lines) + "\n"


def _cells(name: str, row: Fertility) -> list[str]:
    per_word = "" if row.tokens_per_word is None else f"{row.tokens_per_word:.2f}"
    counts = [f"{n:,}" for n in (row.documents, row.bytes, row.tokens)]
    return [name, *counts, f"{row.bytes_per_token:.2f}", per_word, f"{row.tokens_per_character:.2f}"]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _limited(texts: Iterable[str], max_bytes: int | None) -> Iterator[str]:
    """Texts while those before them hold fewer than `max_bytes`."""
    seen = 0
    for text in texts:
        yield text
        seen += len(text.encode("utf-8"))
        if max_bytes is not None and seen >= max_bytes:
            return


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(texts, _BATCH)):
        yield batch
