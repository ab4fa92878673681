"""Pairs of answers in packed rows: segments 1 and 2 of a row are the first pair's chosen and rejected, 3 and 4 the next's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Pairs(NamedTuple):
    """What is said of the pairs of a batch; arrays [B, P], P = S // 2 places of which a row's pairs fill the first.

    Attributes:
      chosen: a number of each chosen answer.
      rejected: of each rejected one.
    """

    chosen: jax.Array
    rejected: jax.Array


def sum_pairs(values: jax.Array, segment_ids: jax.Array) -> Pairs:
    """Sums of values [B, S] over the segments of each pair."""
    sums = sum_segments(values, segment_ids)
    return Pairs(sums[:, ::2], sums[:, 1::2])


def sum_segments(values: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Sums of values [B, S] over each segment: [B, N], segment 1 first; N is S, or S - 1 where that is even."""
    places = values.shape[1] // 2 * 2

    def of_row(values: jax.Array, ids: jax.Array) -> jax.Array:
        return jnp.zeros(places + 1, values.dtype).at[ids].add(values, mode="drop")[1:]

    return jax.vmap(of_row)(values, segment_ids)


def answer_lengths(batch: Mapping[str, jax.Array]) -> Pairs:
    """How many tokens of each answer are predicted: those with weight."""
    return sum_pairs((batch["loss_weights"] > 0).astype(jnp.float32), batch["segment_ids"])


def pair_weights(lengths: Pairs) -> jax.Array:
    """float32 [B, P]: 1 where there is a pair with something to learn in both answers, else 0."""
    return ((lengths.chosen > 0) & (lengths.rejected > 0)).astype(jnp.float32)
