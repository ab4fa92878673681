"""Entries of a tensor by rank of magnitude, exactly, without sorting it.

The k largest are those above a magnitude, and of those as large as it the first, or the last. As float32 without their sign,
magnitudes are ordered as their bits are as integers. A sample of the tensor says between which bits the k-th largest most
likely lies; a pass over the tensor counts what is above them and keeps the few in between, among which it is then found.
Where the sample was wrong, or too many are in between, passes that count at sixteen steps narrow it down. Counts add up over
pieces and over devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aya_jax.parallel.distributed import whole

_END = 1 << 31  # above the bits of all magnitudes
_STEPS = 16  # of a pass that counts
_SAMPLE, _SAMPLE_PIECES, _DEVIATIONS = 1 << 14, 8, 6.0
_FEW = 1 << 24  # entries that may be kept


@dataclasses.dataclass(frozen=True)
class Cut:
    """Between the k largest entries and the others.

    Attributes:
      bits: of the magnitude of the k-th, as an integer.
      of_equals: how many of those as large as it are in.
      equals: how many there are, in each piece.
      last: whether those that are in are the last ones in the tensor's order, and not the first.
    """

    bits: int
    of_equals: int
    equals: tuple[int, ...]
    last: bool = False

    def quota(self, piece: int) -> int:
        """How many of the equals of a piece are in."""
        others = self.equals[piece + 1 :] if self.last else self.equals[:piece]
        return min(max(self.of_equals - sum(others), 0), self.equals[piece])

    def at(self, piece: int) -> Side:
        """What `Side.holds` needs to know for a piece."""
        quota, equals = self.quota(piece), self.equals[piece]
        if quota in (0, equals):
            return Side(np.int32(self.bits + (quota < equals)), None)
        after, until = (equals - quota, np.iinfo(np.int32).max) if self.last else (0, quota)
        return Side(np.int32(self.bits), np.array([after, until], np.int32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Side:
    """A cut, for one piece of the tensor.

    Attributes:
      bits: int32 [], of the cut's magnitude.
      equals: int32 [2]: the entries as large as it, counted from 1, are in from above the first number up to the second;
        None: all are in.
    """

    bits: jax.Array | np.ndarray
    equals: jax.Array | np.ndarray | None

    def holds(self, piece: jax.Array) -> jax.Array:
        """Which entries of [R, C] are among the k largest."""
        own = magnitude_bits(piece)
        if self.equals is None:
            return own >= self.bits
        equal = own == self.bits
        number = jnp.cumsum(equal.reshape(-1)).reshape(piece.shape)
        return (own > self.bits) | (equal & (number > self.equals[0]) & (number <= self.equals[1]))


def find_cuts(
    piece: Callable[[int], jax.Array], count: int, entries: int, ks: Sequence[int], *, last: bool = False
) -> tuple[Cut, ...]:
    """The cuts below the k-th largest magnitudes.

    Args:
      piece: gives the `magnitude_bits` [R, C] of the tensor's pieces, by number; after the tensor's end they are 0.
      count: of pieces.
      entries: of the tensor.
      ks: from 0 to the number of entries.
      last: of entries as large as the k-th, take the last ones.
    """
    visible = jax.process_count() == 1  # else no host has a whole piece, and all passes count
    searches = [_Search(k, visible and entries <= _FEW) for k in ks]
    if visible and entries > _SAMPLE:
        sample = _sample(piece, count, entries)
        for search in searches:
            search.guess(sample, entries)
    while left := [search for search in searches if search.equals is None]:
        for number in range(count):
            bits = piece(number)
            for search in left:
                search.see(bits)
        for search in left:
            search.narrow(visible)
    return tuple(_cut(search, count, entries, last) for search in searches)


def _cut(search: _Search, count: int, entries: int, last: bool) -> Cut:
    if search.k == 0:
        return Cut(_END - 1, 0, (0,) * count, last)
    equals = search.equals
    if search.low == 0:  # what fills up the last piece is none of the tensor's
        equals = (*equals[:-1], entries - search.above - sum(equals[:-1]))
    return Cut(search.low, search.k - search.above, equals, last)


def _sample(piece: Callable[[int], jax.Array], count: int, entries: int) -> np.ndarray:
    """Sorted; every so many entries of a few pieces. The step is odd, so that no column of a matrix is met over and over."""
    found, size = [], 0
    for number in np.unique(np.linspace(0, count - 1, _SAMPLE_PIECES).astype(int)):
        own = whole(piece(int(number))).reshape(-1)
        size = size or own.size
        own = own[: entries - number * size]
        found.append(own[:: own.size * _SAMPLE_PIECES // _SAMPLE | 1])
    return np.sort(np.concatenate(found))


class _Search:
    """For the k-th largest: where it lies or is believed to, and what a pass over the tensor finds out.

    Attributes:
      k: from 1; of 0, the search is over.
      low, high: its bits are at least, and below.
      above: when the search is over, how many entries are larger.
      equals: when the search is over, how many entries are as large, in each piece; None before.
    """

    def __init__(self, k: int, keeps: bool):
        """Begins.

        Args:
          k: of `find_cuts`.
          keeps: have the first pass keep all entries and not count them.
        """
        self.k, self.low, self.high, self.above = k, 0, _END, 0
        self.equals: tuple[int, ...] | None = None if k else ()
        self._begin(keeps)

    def guess(self, sample: np.ndarray, entries: int) -> None:
        """Takes the bounds from a sorted sample."""
        share = self.k / entries
        at, spread = len(sample) * (1 - share), _DEVIATIONS * np.sqrt(len(sample) * share * (1 - share)) + 2
        first, end = int(at - spread), int(at + spread) + 1
        self.low = int(sample[first]) if at >= spread else 0
        self.high = int(sample[end]) + 1 if end < len(sample) else _END
        inside = np.searchsorted(sample, self.high) - np.searchsorted(sample, self.low)
        self._begin(inside / len(sample) * entries <= _FEW)

    def see(self, bits: jax.Array) -> None:
        """A piece of the tensor."""
        if self._keeps:
            own = whole(bits).reshape(-1)
            below = own < self.high
            self.above += own.size - np.count_nonzero(below)
            self._seen.append(own[below & (own >= self.low)])
        else:
            steps = [min(step, _END - 1) for step in self._steps]
            counts = whole(count_at_least(bits, np.asarray(steps, np.int32))).astype(np.int64)
            self._seen.append(np.where(np.array(self._steps) == _END, 0, counts))

    def narrow(self, visible: bool) -> None:
        """Ends the pass, and the search where it can."""
        if not self._keeps:
            self._narrow_by_counts(visible)
            return
        kept = np.concatenate(self._seen)
        if not self.above < self.k <= self.above + kept.size:
            self.low, self.high = (self.high, _END) if self.k <= self.above else (0, self.low)
            self._begin(False)
            return
        at = kept.size - (self.k - self.above)
        self.low = int(np.partition(kept, at)[at])
        self.above += int(np.count_nonzero(kept > self.low))
        self.equals = tuple(int(np.count_nonzero(piece == self.low)) for piece in self._seen)

    def _narrow_by_counts(self, visible: bool) -> None:
        total = np.sum(self._seen, axis=0)
        at = int(np.count_nonzero(total >= self.k))
        known = 0 < at < len(self._steps)
        if known and self.high - self.low == 1:
            self.above = int(total[at])
            self.equals = tuple(int(counts[0] - counts[1]) for counts in self._seen)
            return
        inside = int(total[at - 1] - total[at]) if known else _FEW + 1
        self.low, self.high = (self._steps[at - 1] if at else 0), (self._steps[at] if at < len(total) else _END)
        self._begin(visible and inside <= _FEW and self.high - self.low > 1)

    def _begin(self, keeps: bool) -> None:
        self._keeps, self.above = keeps, 0
        self._steps = [int(step) for step in np.unique(np.linspace(self.low, self.high, _STEPS).astype(np.int64))]
        self._seen: list[np.ndarray] = []


@jax.jit
def count_at_least(piece: jax.Array, bits: jax.Array) -> jax.Array:
    """How many entries of [R, C] `magnitude_bits` are at least each of these, int32 [T]; a row at a time: it stays in cache."""

    def count(counts: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return counts + (row[None, :] >= bits[:, None]), None

    found, _ = jax.lax.scan(count, jnp.zeros((bits.shape[0], piece.shape[1]), jnp.int32), piece)
    return found.sum(axis=1)


def magnitude_bits(array: jax.Array) -> jax.Array:
    """int32, ordered as the magnitudes are."""
    return jax.lax.bitcast_convert_type(jnp.abs(array.astype(jnp.float32)), jnp.int32)


def ranks(array: jax.Array) -> jax.Array:
    """Of each entry of [R, C] within its row by magnitude, int32 from 0; of equals the first has the lower one.

    XLA's sort is many times slower than NumPy's on a CPU, and there the host has the array anyway.
    """
    if _on_cpu(array):
        return jax.device_put(_host_ranks(np.asarray(magnitude_bits(array))), array.sharding)
    order = jnp.argsort(magnitude_bits(array), axis=-1)
    return jnp.argsort(order, axis=-1).astype(jnp.int32)


def _on_cpu(array: jax.Array) -> bool:
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def _host_ranks(bits: np.ndarray) -> np.ndarray:
    columns = np.arange(bits.shape[1], dtype=np.int64)
    order = np.sort(bits.astype(np.int64) << 32 | columns, axis=1) & (_END - 1)
    found = np.empty(bits.shape, np.int32)
    np.put_along_axis(found, order, columns.astype(np.int32)[None], axis=1)
    return found
