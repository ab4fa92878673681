"""Contamination: which evaluation rows stand, in part or whole, in the training text.

Both sides become tokens: words, in lower case and compatibility form (NFKC) without punctuation, and single characters in
scripts that put no space between words (Han, kana, Thai, Lao, Khmer, Burmese), where a word n-gram would be a guess of a
segmenter. A row is contaminated as far as its n-grams of 13 tokens (GPT-3's length, 2005.14165, appendix C) occur in
training documents.

Memory is that of the evaluation set: its n-grams are kept as 64-bit hashes, training text streams past `Search.look`. All
work on text is on arrays of code points: a word's hash is a polynomial in random numbers of its characters modulo 2^64, read
off a cumulative sum, and an n-gram's is the same of its words. A false match needs one of G·E pairs to collide, G training
and E evaluation n-grams: for 10^10 and 10^6 the chance is 5 in 10,000.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aya_jax.config.errors import UserError

_CHUNK = 1 << 20  # code points of training text that are worked on at once: about 100 MB of arrays
_CODE_POINTS = 0x110000
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
# Odd numbers, so that division by their powers is multiplication by powers of an inverse modulo 2^64.
_CHARACTER_BASE, _WORD_BASE = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
# fmt: off
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
)
# fmt: on


class EvaluationRow(NamedTuple):
    """What may have leaked.

    Attributes:
      id: of the row.
      pieces: texts that are to be looked for, such as a question and each of its choices. No n-gram goes from one to the next:
        what stands between them in training text, if they stand together, is not known.
      language, benchmark: for the summary.
    """

    id: str
    pieces: tuple[str, ...]
    language: str = ""
    benchmark: str = ""


@dataclass(frozen=True)
class RowOverlap:
    """How much of a row the training text has.

    Attributes:
      row: which.
      ngrams: how many it has; 0 for a row whose pieces have fewer tokens than n, of which nothing can be said.
      share: of them that were seen; None for such a row.
      document: number of the training document that was the first to have the most of them, the earliest of several; None
        where none has any.
    """

    row: EvaluationRow
    ngrams: int
    share: float | None
    document: int | None


class LanguageOverlap(NamedTuple):
    """Rows of one language.

    Attributes:
      rows: how many.
      too_short: those without a piece of n tokens.
      touched: those with at least one n-gram that was seen.
      contaminated: those with at least the asked share of them seen.
      mean_share: over rows that are long enough; None where none is.
    """

    rows: int
    too_short: int
    touched: int
    contaminated: int
    mean_share: float | None


class _Tokens(NamedTuple):
    """Tokens of several documents.

    Attributes:
      hashes: uint64 [T].
      documents: which one each is from; int64 [T].
      begins, ends: where each stands in the documents' joined text; int64 [T].
    """

    hashes: np.ndarray
    documents: np.ndarray
    begins: np.ndarray
    ends: np.ndarray


class Search:
    """The n-grams of evaluation rows, and which training document was the first to have each."""

    def __init__(self, rows: Sequence[EvaluationRow], n: int = 13):
        """Takes the rows in.

        Args:
          rows: the evaluation set.
          n: tokens in an n-gram.

        Raises:
          UserError: n is below 1, or an id is there twice.
        """
        if n < 1:
            raise UserError(f"n-grams of {n} tokens; n has to be at least 1")
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                raise UserError(f"two evaluation rows have the same id, {row.id!r}")
            seen.add(row.id)
        self.rows, self.n = rows, n
        hashes, pieces = _ngrams(_tokenize([piece for row in rows for piece in row.pieces]), n)
        self._owners = np.repeat(np.arange(len(rows)), [len(row.pieces) for row in rows])[pieces]
        self._ngrams, self._places = np.unique(hashes, return_inverse=True)
        self._first = np.full(len(self._ngrams), _NEVER)
        # A table of bits in front of the search: almost all training n-grams are told apart by their lowest bits alone.
        bits = max(16, len(self._ngrams).bit_length() + 4)
        self._low = np.uint64((1 << bits) - 1)
        self._likely = np.zeros(1 << bits, bool)
        self._likely[self._ngrams & self._low] = True

    def look(self, documents: Sequence[str], begin: int) -> dict[int, int]:
        """Reads documents that were not read before.

        Args:
          documents: texts.
          begin: the number of the first of them; later calls have higher ones.

        Returns:
          what is new: the number of an n-gram -> the first document that has it; `know` takes it in again.
        """
        if not len(self._ngrams):
            return {}
        found: dict[int, int] = {}
        for batch in _batches(documents):
            hashes, owners = _ngrams(_tokenize(batch), self.n)
            likely = np.flatnonzero(self._likely[hashes & self._low])
            hashes, owners = hashes[likely], owners[likely] + begin
            at = np.minimum(np.searchsorted(self._ngrams, hashes), len(self._ngrams) - 1)
            new = (self._ngrams[at] == hashes) & (self._first[at] == _NEVER)
            np.minimum.at(self._first, at[new], owners[new])
            places = np.unique(at[new])
            found |= dict(zip(places.tolist(), self._first[places].tolist(), strict=True))
            begin += len(batch)
        return found

    def know(self, found: Mapping[int, int]) -> None:
        """Takes in what `look` found before, in another search for the same rows."""
        self._first[np.fromiter(found, np.int64, len(found))] = np.fromiter(found.values(), np.int64, len(found))

    def overlaps(self) -> list[RowOverlap]:
        """How much was seen of each row, in their order."""
        first = self._first[self._places]
        ends = np.searchsorted(self._owners, np.arange(len(self.rows) + 1))
        return [_row_overlap(row, first[ends[k] : ends[k + 1]]) for k, row in enumerate(self.rows)]


def overlap(rows: Sequence[EvaluationRow], documents: Iterable[str], n: int = 13) -> list[RowOverlap]:
    """Looks for every row's n-grams in training documents, which are read once.

    Raises:
      UserError: as `Search`.
    """
    search, begin = Search(rows, n), 0
    for batch in _batches(documents):
        search.look(batch, begin)
        begin += len(batch)
    return search.overlaps()


def passage(row: EvaluationRow, document: str, n: int) -> str:
    """The longest piece of a document whose n-grams are all in a row, in compatibility form; "" where none is."""
    own, _ = _ngrams(_tokenize(row.pieces), n)
    tokens = _tokenize([document])
    grams, _ = _ngrams(tokens, n)
    shared = np.concatenate([[False], np.isin(grams, own), [False]])
    begins, ends = np.flatnonzero(shared[1:] & ~shared[:-1]), np.flatnonzero(shared[:-1] & ~shared[1:])
    if not len(begins):
        return ""
    longest = int(np.argmax(ends - begins))
    text = _normalized(document)
    return text[tokens.begins[begins[longest]] : tokens.ends[ends[longest] - 1 + n - 1]]


def by_language(overlaps: Iterable[RowOverlap], threshold: float = 0.5) -> dict[str, LanguageOverlap]:
    """Sums rows up by language.

    Args:
      overlaps: of rows.
      threshold: share of n-grams from which on a row counts as contaminated.
    """
    groups: dict[str, list[RowOverlap]] = {}
    for row in overlaps:
        groups.setdefault(row.row.language, []).append(row)
    table = {}
    for language, rows in sorted(groups.items()):
        shares = np.array([row.share for row in rows if row.share is not None])
        table[language] = LanguageOverlap(
            rows=len(rows),
            too_short=len(rows) - len(shares),
            touched=int(np.sum(shares > 0)),
            contaminated=int(np.sum(shares >= threshold)),
            mean_share=float(shares.mean()) if len(shares) else None,
        )
    return table


_NEVER = np.iinfo(np.int64).max


def _row_overlap(row: EvaluationRow, first: np.ndarray) -> RowOverlap:
    """Of a row, from the first document of each of its n-grams; int64 [G]."""
    if not len(first):
        return RowOverlap(row, 0, None, None)
    seen = first[first < _NEVER]
    documents, counts = np.unique(seen, return_counts=True)
    document = int(documents[counts.argmax()]) if len(seen) else None
    return RowOverlap(row, len(first), len(seen) / len(first), document)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents by the chunk; one that is longer is a batch of its own."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document) + 1
        if size >= _CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokenize(texts: Sequence[str]) -> _Tokens:
    """Hashes of the tokens of each text."""
    # A line feed is in no token, so joined texts have no token in common.
    texts = [_normalized(text) for text in texts]
    joined = "\n".join(texts)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds, numbers = _alphabet()
    kind = kinds[points]
    in_token = kind != 0
    alone = kind == 2
    # A token begins at a character that is alone, after one, and after what is in no token.
    begins = in_token.copy()
    begins[1:] &= ~in_token[:-1] | alone[1:] | alone[:-1]
    at = np.flatnonzero(in_token)
    starts = np.flatnonzero(begins[at])
    hashes = _run_hashes(numbers[points[at]], starts, _CHARACTER_BASE)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(lengths + 1)
    last = np.append(starts[1:], len(at))[: len(starts)] - 1
    return _Tokens(hashes, np.searchsorted(ends, at[starts], side="right"), at[starts], at[last] + 1)


def _normalized(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


def _ngrams(tokens: _Tokens, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all n-grams that lie in one document, and its number; uint64 [G], int64 [G]."""
    count = len(tokens.hashes) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    powers = _powers(_WORD_BASE, n)
    # Of few words and one length, so a sum of n products is as quick as a cumulative sum.
    hashes = np.zeros(count, np.uint64)
    for place in range(n):
        hashes += tokens.hashes[place : place + count] * powers[place]
    inside = np.flatnonzero(tokens.documents[:count] == tokens.documents[n - 1 :])
    return _mixed(hashes[inside]), tokens.documents[inside]


def _run_hashes(numbers: np.ndarray, starts: np.ndarray, base: int) -> np.ndarray:
    """A hash of each run of numbers, Σ_j number[start + j] · base^j, mixed; uint64 [N], int64 [T] → uint64 [T]."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    powers = _powers(base, len(numbers))
    sums = np.add.reduceat(numbers * powers, starts)
    return _mixed(sums * _powers(pow(base, -1, 1 << 64), len(numbers))[starts])


def _powers(base: int, count: int) -> np.ndarray:
    """base^0 to base^(count - 1) modulo 2^64; the table is kept, and grows to twice what was asked for."""
    table = _POWERS.get(base)
    if table is None or len(table) < count:
        factors = np.full(max(64, 2 * count), base, np.uint64)
        factors[0] = 1
        table = _POWERS[base] = np.cumprod(factors, dtype=np.uint64)
    return table[:count]


_POWERS: dict[int, np.ndarray] = {}


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Spreads every bit over all (the finaliser of splitmix64): low bits of a product depend on low bits alone."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX[0]
    hashes = (hashes ^ (hashes >> np.uint64(27))) * _MIX[1]
    return hashes ^ (hashes >> np.uint64(31))


@functools.cache
def _alphabet() -> tuple[np.ndarray, np.ndarray]:
    """By code point: 0 in no token, 1 part of a word, 2 a token alone; and a random number, one for both cases of a letter."""
    kinds = np.zeros(_CODE_POINTS, np.uint8)
    lower = np.arange(_CODE_POINTS)
    # Planes 4 to 13 are empty, 14 has tags, 15 and 16 are private.
    for point in range(0x40000):
        character = chr(point)
        if character.isalnum() or unicodedata.category(character) in ("Mn", "Mc", "Me"):
            kinds[point] = 1
            small = character.lower()
            lower[point] = ord(small) if len(small) == 1 else point
    for first, last in _UNSPACED:
        kinds[first : last + 1] *= 2
    # Fixed, so that a run is repeatable; random, so that no text has structure that its hashes keep.
    numbers = np.random.default_rng(20241204).integers(1, 2**64, size=_CODE_POINTS, dtype=np.uint64)
    return kinds, numbers[lower]
