"""Log-probabilities of continuations, many at a time: `log p(tokens | context)` and whether greedy decoding would say them.

What makes it quick: texts are packed into rows as documents are in training, so that little is padding; a text that is the
beginning of another is read once (all four letters of a multiple-choice question are one text); two texts that begin alike
share their beginning (two answers to a question: see `Block`); and the head, the largest matrix of a small multilingual
model, works on continuations only, not on the questions before them.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.data.packing import Piece, first_fit
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.sharding import replicated
from aya_jax.training.placement import batch_shards, place_whole

_ROWS = (256, 512, 1024)  # lengths of rows that several texts share; longer texts have rows of their own
_PLACES = 64  # places of a part of a batch that are asked for: a multiple of this
_WORTH_SHARING = 4  # tokens
_AS_THE_REST = 4096  # keys that cost a token as much as all else, about: what the length of rows is weighed by


class Continuation(NamedTuple):
    """What is asked.

    Attributes:
      context: token ids, at least one.
      tokens: those that follow, at least one.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]


class Likelihood(NamedTuple):
    """What is answered.

    Attributes:
      log_prob: natural logarithm of p(tokens | context), summed in float64.
      greedy: whether each token is the likeliest at its place.
    """

    log_prob: float
    greedy: bool


class Text(NamedTuple):
    """Something to read, and who asks of it.

    Attributes:
      tokens: ids.
      askers: numbers of the continuations that end in it or at its end.
    """

    tokens: tuple[int, ...]
    askers: list[int]


class Block(NamedTuple):
    """One text, or two that begin alike, in a run of a row: [the end of the second, backwards] [the beginning] [the end of the
    first].

    A token of the first sees the keys from where the beginning starts to itself; one of the second, whose tokens before it lie
    to its right, those from itself to where the beginning ends. Either way that is one interval of keys, which is all that
    attention over intervals asks for, and positions are what they would be in each text alone.

    Attributes:
      first: a text.
      second: another; None where there is none.
      shared: how many tokens both begin with; all of the first's where it is alone.
    """

    first: Text
    second: Text | None
    shared: int

    @property
    def before(self) -> int:
        """Tokens of the second alone."""
        return len(self.second.tokens) - self.shared if self.second else 0

    @property
    def length(self) -> int:
        """All tokens."""
        return self.before + len(self.first.tokens)

    def tokens(self) -> tuple[int, ...]:
        """In the order of the row."""
        return (self.second.tokens[self.shared :][::-1] if self.second else ()) + self.first.tokens

    def askers(self) -> Iterator[tuple[int, Text]]:
        """The numbers of those who ask, and in which text."""
        for text in filter(None, (self.first, self.second)):
            for number in text.askers:
                yield number, text

    def layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(positions, first keys, last keys) of the tokens, int32 [length] each, keys counted from the block's first token."""
        own, before = np.arange(self.length, dtype=np.int32), self.before
        backwards = own < before
        positions = np.where(backwards, self.shared + before - 1 - own, own - before)
        return positions, np.where(backwards, own, before), np.where(backwards, before + self.shared - 1, own)

    def place(self, of_second: bool, position: int) -> int:
        """Where a token of one of the texts is."""
        return (
            self.before - 1 - (position - self.shared)
            if of_second and position >= self.shared
            else self.before + position
        )


class Scorer:
    """A model that scores continuations; used under no mesh, it sets its own."""

    def __init__(self, model: Transformer, mesh: Mesh, *, max_length: int, batch_tokens: int):
        """Compiles nothing yet.

        Args:
          model: the model.
          mesh: what rows are divided over.
          max_length: tokens that it reads at most; what is longer loses its beginning, as in lm-evaluation-harness.
          batch_tokens: of one batch, over all devices.
        """
        self._model, self._mesh, self.max_length = model, mesh, max_length
        self._batch_tokens, self._shards = batch_tokens, batch_shards(mesh, model.rules)

        def score(params: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
            found = model.score_at(params, batch, batch["places"], batch["targets"])
            return found.log_probs, found.correct

        self._score = jax.jit(score, out_shardings=replicated(mesh))

    def score(
        self,
        params: Any,
        asked: Sequence[Continuation],
        answer: Callable[[dict[int, Likelihood]], None],
    ) -> None:
        """Answers continuations by their numbers, a batch at a time, the longest first; every process must ask for the same.

        Args:
          params: of the model.
          asked: what.
          answer: takes answers as they come; every number comes once.
        """
        with jax.set_mesh(self._mesh):
            pending: tuple[list[tuple[int, int, int, int]], Any] | None = None
            for reading, batch in self._batches(asked):
                ahead = reading, self._score(params, place_whole(batch, self._mesh, self._model.rules))
                if pending:
                    answer(_collect(*pending))
                pending = ahead
            if pending:
                answer(_collect(*pending))

    def _batches(
        self, asked: Sequence[Continuation]
    ) -> Iterator[tuple[list[tuple[int, int, int, int]], dict[str, np.ndarray]]]:
        """Batches, each with who reads what: (continuation, part, first place, one past the last)."""
        for longest, found in buckets(blocks(texts(asked, self.max_length)), self._batch_tokens):
            length, packed = pack([block.length for block in found], longest)
            rows = [[found[piece.document] for piece in pieces] for pieces in packed]
            of_part = self._rows(length, len(rows)) // self._shards
            count = -(-len(rows) // of_part)
            parts = [rows[first::count] for first in range(count)]  # so that about as much is asked of each
            width = _round_up(max(sum(_asked_for(asked, row) for row in part) for part in parts), _PLACES)
            for first in range(0, len(parts), self._shards):
                batch = parts[first : first + self._shards]
                yield fill(asked, batch, (self._shards, of_part, length, width))

    def _rows(self, length: int, needed: int) -> int:
        """Rows of a batch, a multiple of what the mesh divides: no more than are needed, and about what `batch_tokens` allow,
        an eighth more or less, so that the last batch is as full as the others."""
        most = max(1, self._batch_tokens // length)
        if needed <= most:
            rows = _power_of_two(needed)
        else:
            near = range(most - most // 8, most + most // 8 + 1)
            rows = min(near, key=lambda rows: (-(-needed // rows) * rows, abs(rows - most)))
        return -(-rows // self._shards) * self._shards


def texts(asked: Sequence[Continuation], max_length: int) -> list[Text]:
    """The texts to read: of each continuation all but its last token, less what another text begins with.

    In order of their tokens a text comes right before those that it begins, so one pass from the end finds them.
    """
    inputs = [(c.context + c.tokens)[-(max_length + 1) :][:-1] for c in asked]
    found: list[Text] = []
    for number in sorted(range(len(asked)), key=inputs.__getitem__, reverse=True):
        tokens = inputs[number]
        if found and found[-1].tokens[: len(tokens)] == tokens:
            found[-1].askers.append(number)
        else:
            found.append(Text(tokens, [number]))
    return found


def blocks(found: Sequence[Text]) -> list[Block]:
    """Texts two by two where neighbours, in the order of their tokens, begin alike for long enough to be worth it."""
    paired: list[Block] = []
    number = 0
    while number < len(found):
        first = found[number]
        second = found[number + 1] if number + 1 < len(found) else None
        shared = _common(first.tokens, second.tokens) if second else 0
        if shared >= _WORTH_SHARING:
            paired.append(Block(first, second, shared))
            number += 2
        else:
            paired.append(Block(first, None, len(first.tokens)))
            number += 1
    return paired


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    for count, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return count
    return min(len(left), len(right))


def buckets(found: Sequence[Block], batch_tokens: int) -> Iterator[tuple[int, list[Block]]]:
    """(tokens of the longest row that they go into, blocks of about one length, the longest first), the longest ones first.

    A row is four times as long as its blocks, or once they are long, just long enough. Those that do not make a batch go with
    the next shorter ones, if they fit in their rows.
    """
    by_length: dict[int, list[Block]] = defaultdict(list)
    for block in found:
        rows = (length for length in _ROWS if block.length <= length // 4)
        by_length[next(rows, max(_ROWS[-1], _power_of_two(block.length)))].append(block)
    rest: list[Block] = []
    for longest, shorter in itertools.pairwise([*sorted(by_length, reverse=True), 0]):
        here = sorted([*rest, *by_length[longest]], key=lambda block: -block.length)
        rest = here if here[0].length <= shorter and sum(block.length for block in here) < batch_tokens else []
        if not rest:
            yield longest, here


def pack(lengths: Sequence[int], longest: int) -> tuple[int, list[list[Piece]]]:
    """Rows of one length for texts, the longest of these first: attention costs less in short rows, long ones fill better.

    Returns:
      (tokens of a row, `longest` or half of it; the texts of each row).
    """
    tried = {length: first_fit(lengths, length) for length in (longest, longest // 2) if lengths[0] <= length}
    length = min(tried, key=lambda length: len(tried[length]) * length * (_AS_THE_REST + length))
    return length, tried[length]


def fill(
    asked: Sequence[Continuation], parts: Sequence[Sequence[Sequence[Block]]], shape: tuple[int, int, int, int]
) -> tuple[list[tuple[int, int, int, int]], dict[str, np.ndarray]]:
    """A batch of rows of blocks, and who reads what; see `Scorer._batches`.

    Args:
      asked: what.
      parts: each part's rows of blocks; what is missing is padding.
      shape: parts, rows of a part, tokens of a row, places of a part that are asked for.
    """
    count, of_part, length, width = shape
    reading: list[tuple[int, int, int, int]] = []
    batch = {
        name: np.zeros((count * of_part, length), np.int32)
        for name in ("tokens", "positions", "first_keys", "last_keys")
    }
    batch["last_keys"][:] = -1  # padding sees nothing
    batch |= {name: np.zeros((count, width), np.int32) for name in ("places", "targets")}
    for part, rows in enumerate(parts):
        places: list[int] = []
        targets: list[int] = []
        for row, row_blocks in enumerate(rows):
            start = 0
            for block in row_blocks:
                at = part * of_part + row, slice(start, start + block.length)
                batch["tokens"][at] = block.tokens()
                positions, first_keys, last_keys = block.layout()
                batch["positions"][at] = positions
                batch["first_keys"][at], batch["last_keys"][at] = start + first_keys, start + last_keys
                for number, text in block.askers():
                    read, kept = _read(asked[number], text)
                    first = len(places)
                    of_second = text is block.second
                    begin = row * length + start
                    places += [begin + block.place(of_second, p) for p in range(read - len(kept), read)]
                    targets += kept
                    reading.append((number, part, first, len(places)))
                start += block.length
        batch["places"][part, : len(places)], batch["targets"][part, : len(places)] = places, targets
    return reading, batch


def _read(asked: Continuation, text: Text) -> tuple[int, tuple[int, ...]]:
    """How many tokens of a text are read for a continuation, and which of its own: its end, where the model reads no more."""
    read = min(len(asked.context) + len(asked.tokens) - 1, len(text.tokens))
    return read, asked.tokens[-read:]


def _asked_for(asked: Sequence[Continuation], row: Sequence[Block]) -> int:
    """Tokens that a row's texts are asked for."""
    return sum(len(_read(asked[number], text)[1]) for block in row for number, text in block.askers())


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _collect(reading: list[tuple[int, int, int, int]], scored: tuple[jax.Array, jax.Array]) -> dict[int, Likelihood]:
    log_probs, correct = jax.device_get(scored)
    log_probs = log_probs.astype(np.float64)
    return {
        number: Likelihood(float(log_probs[row, first:end].sum()), bool(correct[row, first:end].all()))
        for number, row, first, end in reading
    }


@functools.cache
def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least this."""
    return 1 << max(0, number - 1).bit_length()
