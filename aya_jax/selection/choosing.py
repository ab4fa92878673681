"""Which rows to take, given where they lie, how good they are, and how many are wanted: arrays in, arrays out.

The rules are those of "Diversify and Conquer" (arXiv 2409.11378, sections 2 and 3) and of what it compares with. A budget is
met exactly: what a cluster cannot give, since it has too few rows, the others give by their weights.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Weighing = Literal["linear", "softmax"]


def allocate(weights: np.ndarray, capacities: np.ndarray, budget: int) -> np.ndarray:
    """How many each cluster gives: in proportion to its weight, no more than it has, and `budget` in all.

    Parts of a row go to the largest remainders (of equal ones to the first). What is over a cluster's capacity is shared among
    the others by their weights, and once those with a weight are empty, by what the rest have left.

    Args:
      weights: float [K], at least 0.
      capacities: int [K].
      budget: rows; at most the sum of capacities.

    Returns:
      int64 [K].

    Raises:
      ValueError: there are too few rows, or a weight is negative or not finite.
    """
    weights, room = np.asarray(weights, np.float64), np.asarray(capacities, np.int64)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError("weights of clusters are finite and not negative")
    if budget > room.sum():
        raise ValueError(f"{budget:,} rows are wanted, and there are {room.sum():,}")
    given = np.zeros_like(room)
    while (left := budget - int(given.sum())) > 0:
        rest = room - given
        shares = np.where(rest > 0, weights, 0.0)
        if shares.sum() == 0:
            shares = rest.astype(np.float64)
        exact = left * (shares / shares.sum())
        full = exact >= rest
        if np.any(full & (rest > 0)):  # these are emptied first: what they cannot give is shared out anew
            given = np.where(full, room, given)
            continue
        parts = np.floor(exact).astype(np.int64)
        largest = np.argsort(-(exact - parts), kind="stable")[: left - int(parts.sum())]
        parts[largest] += 1
        given += np.minimum(parts, rest)
    return given


def draw(labels: np.ndarray, counts: np.ndarray, keys: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Of each cluster the rows with the highest keys (of equal ones the first), as many as `counts` says.

    Args:
      labels: int [N], the rows' clusters.
      counts: int [K].
      keys: float [N].
      among: bool [N], rows that may be taken; None: all.

    Returns:
      int64, the rows' numbers in ascending order.
    """
    numbers = np.arange(len(labels)) if among is None else np.flatnonzero(among)
    order = numbers[np.lexsort((-keys[numbers], labels[numbers]))]
    sizes = np.bincount(labels[numbers], minlength=len(counts))
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(order)) - begins[labels[order]]
    return np.sort(order[rank < counts[labels[order]]])


def random_keys(quality: np.ndarray | None, rows: int, weighing: Weighing, rng: np.random.Generator) -> np.ndarray:
    """Keys [N] whose largest are a draw without replacement with chances in proportion to quality.

    With "linear" a row's chance is in proportion to its quality, as in the paper, with "softmax" to the exponential of it, as
    in the released code; without a quality all are alike. log(chance) + Gumbel noise (Efraimidis and Spirakis 2006).

    Raises:
      ValueError: a chance would be negative.
    """
    noise = rng.gumbel(size=rows)
    if quality is None:
        return noise
    if weighing == "softmax":
        return quality + noise
    if np.any(quality < 0):
        raise ValueError(
            f"a quality of {quality.min():.4g} is no weight: bind SelectConfig.weighing = 'softmax', or shift the scores"
        )
    with np.errstate(divide="ignore"):
        return np.log(quality) + noise


def draw_again(
    labels: np.ndarray, counts: np.ndarray, quality: np.ndarray | None, weighing: Weighing, rng: np.random.Generator
) -> np.ndarray:
    """How often each row is drawn, int64 [N], where a row may be drawn again (as the paper writes it): multinomial per cluster.

    Raises:
      ValueError: a chance would be negative.
    """
    drawn = np.zeros(len(labels), np.int64)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(counts)))
    for numbers, count in zip(np.split(order, ends[:-1]), counts, strict=True):
        if count:
            drawn[numbers] = rng.multinomial(
                count, _chances(None if quality is None else quality[numbers], len(numbers), weighing)
            )
    return drawn


def _chances(quality: np.ndarray | None, rows: int, weighing: Weighing) -> np.ndarray:
    if quality is None:
        return np.full(rows, 1 / rows)
    if weighing == "softmax":
        quality = np.exp(quality - quality.max())
    elif np.any(quality < 0):
        raise ValueError("a negative quality is no weight: bind SelectConfig.weighing = 'softmax', or shift the scores")
    return quality / quality.sum() if quality.sum() > 0 else np.full(rows, 1 / rows)


def k_center(vectors: np.ndarray, budget: int, *, first: int) -> np.ndarray:
    """Rows that each lie farthest from those taken before (Gonzalez 1985; Sener and Savarese 2018, "k-center greedy").

    Args:
      vectors: float32 [N, D].
      budget: rows, at most N.
      first: the row to begin with.

    Returns:
      int64 [budget], in the order in which they were taken.
    """
    return np.asarray(_farthest(jnp.asarray(vectors), jnp.int32(first), budget), np.int64)


@jax.jit(static_argnums=2)
def _farthest(vectors: jax.Array, first: jax.Array, budget: int) -> jax.Array:
    squares = jnp.sum(jnp.square(vectors), axis=1)

    def step(state: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        distances, taken = state
        to_taken = squares - 2 * (vectors @ vectors[taken]) + squares[taken]
        # A row that is taken stays so, however rounding goes, and among copies of it the next is another.
        distances = jnp.minimum(distances, jnp.maximum(to_taken, 0)).at[taken].set(-1)
        return (distances, jnp.argmax(distances).astype(jnp.int32)), taken

    state = jnp.full(vectors.shape[0], jnp.inf), first
    return jax.lax.scan(step, state, length=budget)[1]
