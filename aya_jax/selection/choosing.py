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
_NOTHING = 1e-300


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


def log_chances(quality: np.ndarray | None, rows: int, weighing: Weighing) -> np.ndarray:
    """Logarithms of chances, up to a constant, float64 [N].

    With "linear" a row's chance is in proportion to its quality, as in the paper, with "softmax" to the exponential of it, as
    in the released code; without a quality all are alike. Where quality is nothing it counts as next to nothing, so that such
    rows come after all others, and among themselves in random order.

    Raises:
      ValueError: a chance would be negative.
    """
    if quality is None:
        return np.zeros(rows)
    if weighing == "softmax":
        return np.asarray(quality, np.float64)
    if np.any(quality < 0):
        raise ValueError(
            f"a quality of {np.nanmin(quality):.4g} is no weight: bind SelectConfig.weighing = 'softmax', or shift the scores"
        )
    return np.log(np.maximum(quality, _NOTHING, dtype=np.float64))


def random_keys(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keys [N] whose largest are a draw without replacement: log chances and Gumbel noise (Efraimidis and Spirakis 2006)."""
    return chances + rng.gumbel(size=len(chances))


def draw_again(labels: np.ndarray, counts: np.ndarray, chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How often each row is drawn, int64 [N], where a row may be drawn again (as the paper writes it): multinomial per cluster.

    Args:
      labels: int [N], the rows' clusters.
      counts: int [K], draws in each.
      chances: log chances [N]; -inf for rows that may not be drawn.
      rng: what chance derives from.
    """
    drawn = np.zeros(len(labels), np.int64)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(counts)))
    for numbers, count in zip(np.split(order, ends[:-1]), counts, strict=True):
        if count:
            weights = np.exp(chances[numbers] - chances[numbers].max())
            drawn[numbers] = rng.multinomial(count, weights / weights.sum())
    return drawn


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
