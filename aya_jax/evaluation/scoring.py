"""Log-probabilities of continuations, many at a time: `log p(tokens | context)` and whether greedy decoding would say them.

What makes it quick: texts are packed into rows as documents are in training, so that little is padding; a text that is the
beginning of another is read once (all four letters of a multiple-choice question are one text); two texts that begin alike
share their beginning (two answers to a question: see `Block`); and the head, the largest matrix of a small multilingual
model, works on continuations only, not on the questions before them.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from aya_jax.data.packing import first_fit
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.sharding import replicated
from aya_jax.training.placement import batch_shards, place_whole

_ROWS = (256, 512, 1024)  # lengths of rows that several texts share; longer texts have rows of their own
_PLACES = 32  # places of a row that are asked for: a multiple of this
_WORTH_SHARING = 4  # tokens


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
        """Batches, each with who reads what: (continuation, row, first place, one past the last)."""
        by_length: dict[int, list[Block]] = defaultdict(list)
        for block in blocks(texts(asked, self.max_length)):
            by_length[row_length(block.length)].append(block)
        for length in sorted(by_length, reverse=True):
            found = sorted(by_length[length], key=lambda block: -block.length)
            packed = first_fit([block.length for block in found], length)
            step = self._rows(length, len(packed))
            rows = [[found[piece.document] for piece in pieces] for pieces in packed]
            width = _round_up(max(_asked_for(asked, row) for row in rows), _PLACES)
            for first in range(0, len(packed), step):
                yield fill(asked, rows[first : first + step], step, length, width)

    def _rows(self, length: int, needed: int) -> int:
        """Rows of a batch: as many as `batch_tokens` allow, no more than are needed, a multiple of what the mesh divides."""
        most = max(1, self._batch_tokens // length)
        rows = min(most, _power_of_two(needed))
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


def row_length(tokens: int) -> int:
    """Of the row that so many tokens go into: four times as long, or once they are many, just long enough."""
    for length in _ROWS:
        if tokens <= length // 4:
            return length
    return max(_ROWS[-1], _power_of_two(tokens))


def fill(
    asked: Sequence[Continuation], packed: Sequence[Sequence[Block]], rows: int, length: int, width: int
) -> tuple[list[tuple[int, int, int, int]], dict[str, np.ndarray]]:
    """A batch of `rows` rows of `length` tokens, `width` of them asked for, from some rows of blocks; see `Scorer._batches`."""
    reading: list[tuple[int, int, int, int]] = []
    places: list[list[int]] = [[] for _ in range(rows)]
    targets: list[list[int]] = [[] for _ in range(rows)]
    batch = {name: np.zeros((rows, length), np.int32) for name in ("tokens", "positions", "first_keys", "last_keys")}
    batch["last_keys"][:] = -1  # padding sees nothing
    for row, row_blocks in enumerate(packed):
        start = 0
        for block in row_blocks:
            at = slice(start, start + block.length)
            positions, first_keys, last_keys = block.layout()
            batch["tokens"][row, at], batch["positions"][row, at] = block.tokens(), positions
            batch["first_keys"][row, at], batch["last_keys"][row, at] = start + first_keys, start + last_keys
            for text in filter(None, (block.first, block.second)):
                for number in text.askers:
                    context, tokens = asked[number]
                    read = min(len(context) + len(tokens) - 1, len(text.tokens))
                    kept = tokens[-read:]  # where even the continuation is longer than the model reads
                    begin = len(places[row])
                    of_second = text is block.second
                    places[row] += [start + block.place(of_second, p) for p in range(read - len(kept), read)]
                    targets[row] += kept
                    reading.append((number, row, begin, len(places[row])))
            start += block.length
    for name, values in (("places", places), ("targets", targets)):
        batch[name] = np.zeros((rows, width), np.int32)
        for row, row_values in enumerate(values):
            batch[name][row, : len(row_values)] = row_values
    return reading, batch


def _asked_for(asked: Sequence[Continuation], row: Sequence[Block]) -> int:
    """Tokens that a row's texts are asked for."""
    texts_of_row = (text for block in row for text in (block.first, block.second) if text)
    return sum(min(len(asked[n].tokens), len(text.tokens)) for text in texts_of_row for n in text.askers)


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
