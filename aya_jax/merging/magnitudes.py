"""Entries of a tensor by rank of magnitude, exactly, without sorting it.

The k largest are those above a magnitude, and of those as large as it the first. As float32 without their sign, magnitudes
are ordered as their bits are as integers, so the magnitude is found bit by bit: a pass over the tensor counts the entries at or
above fifteen candidates and so settles four bits. Counts add up over pieces and over devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

_BITS = 4  # settled in a pass
_TOP = 31  # bits of a magnitude


@dataclasses.dataclass(frozen=True)
class Cut:
    """Between the k largest entries and the others.

    Attributes:
      bits: of the magnitude of the k-th, as an integer.
      of_equals: how many of those as large as it are in, the first ones in the tensor's order.
      equals: how many there are, in each piece.
    """

    bits: int
    of_equals: int
    equals: tuple[int, ...]

    def quota(self, piece: int) -> int:
        """How many of the equals of a piece are in."""
        before = sum(self.equals[:piece])
        return min(max(self.of_equals - before, 0), self.equals[piece])

    @property
    def splits_equals(self) -> bool:
        """Whether some equals are in and some are not."""
        return self.of_equals < sum(self.equals)





def find_cut(pieces: Callable[[], Iterator[jax.Array]], k: int) -> Cut:
    """The cut below the k-th largest magnitude.

    Args:
      pieces: gives the tensor's pieces, float32 [R, C], from the first, as often as it is called.
      k: at least 1, at most the number of entries.
    """
    known = 0
    for low in range(_TOP - _BITS, -_BITS, -_BITS):
        shift = max(low, 0)
        width = _BITS + min(low, 0)
        steps = np.arange(1, 1 << width, dtype=np.int32) << shift
        counts = sum(np.asarray(count_at_least(piece, jnp.asarray(known + steps)), np.int64) for piece in pieces())
        known += int(np.sum(counts >= k)) << shift
    above = 0
    equals = []
    for piece in pieces():
        greater, at_least = np.asarray(count_at_least(piece, jnp.asarray([known + 1, known], jnp.int32)), np.int64)
        above += int(greater)
        equals.append(int(at_least - greater))
    return Cut(known, k - above, tuple(equals))


@jax.jit
def count_at_least(piece: jax.Array, bits: jax.Array) -> jax.Array:
    """How many entries of [R, C] have a magnitude of at least each of these, int32 [T]; a row at a time, so that it stays in cache."""

    def count(counts: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return counts + (magnitude_bits(row)[None, :] >= bits[:, None]), None

    found, _ = jax.lax.scan(count, jnp.zeros((bits.shape[0], piece.shape[1]), jnp.int32), piece)
    return found.sum(axis=1)


def magnitude_bits(array: jax.Array) -> jax.Array:
    """int32, ordered as the magnitudes are."""
    return jax.lax.bitcast_convert_type(jnp.abs(array.astype(jnp.float32)), jnp.int32)


def inside(piece: jax.Array, bits: jax.Array, quota: jax.Array | None) -> jax.Array:
    """Which entries of [R, C] are among the k largest, by a cut's bits.

    Args:
      piece: of the tensor.
      bits: int32 [], of the cut.
      quota: int32 [], how many of the piece's equals are in; None: all of them.
    """
    own = magnitude_bits(piece)
    if quota is None:
        return own >= bits
    equal = (own == bits).reshape(-1)
    first = (jnp.cumsum(equal) <= quota) & equal
    return (own > bits) | first.reshape(piece.shape)
