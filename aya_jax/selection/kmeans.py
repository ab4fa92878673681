"""k-means: groups of like vectors, millions of them, on whatever devices there are.

Lloyd's algorithm (1982) on samples that grow. The rows are laid out in a seeded random order, so that their beginning is a
uniform sample at every length: centres are drawn from a small one by greedy k-means++ (Arthur and Vassilvitskii 2007), improved
on it, then on four times as many rows and so on, and on all rows at the end, where few passes are left to do.

What makes it quick: a pass reads rows in chunks, whose scores against all centres are one matrix product that stays in the
caches (there is never a matrix of all rows and clusters); and rows for many first centres are drawn, and measured against all
others, at once (see `draw_centres`: rejection sampling, as Cohen-Addad et al. 2020).

A cluster that loses its last row gets the row that is farthest from its own centre, and all rows that are nearer to that one
than to theirs.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aya_jax.config import UserError
from aya_jax.parallel.sharding import replicated

_SCORES = 2**20  # entries of a chunk's scores: what a processor's caches hold
_MANY_SCORES = 2**26  # on other devices
_LONGEST = 1e36  # of squared lengths: their sums are still float32
_DRAWN = 64  # rows that are drawn at once, as candidates for several centres
_SAMPLE = 32  # rows per cluster of the smallest sample
_GROWTH = 4  # of the samples
_LOOSER = 10  # the tolerance on samples, whose noise is soon all that is learnt
_HIGHEST = jax.lax.Precision.HIGHEST  # the default would be TF32 on GPUs and bfloat16 on TPUs


@dataclasses.dataclass(frozen=True)
class Clustering:
    """What was found.

    Attributes:
      centres: float32 [K, D].
      labels: int32 [N], the centre that each row is nearest to.
      distances: float32 [N], the squares of the distances to it.
      inertia: their sum.
      iterations: passes over all rows that moved centres.
    """

    centres: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    inertia: float
    iterations: int


def kmeans(
    vectors: np.ndarray,
    clusters: int,
    *,
    seed: int,
    iterations: int = 10,
    tolerance: float = 1e-3,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> Clustering:
    """Groups rows.

    Args:
      vectors: float32 [N, D].
      clusters: K, of which none is empty in the end.
      seed: of the order of rows and of the first centres. The same seed on the same devices gives the same bits;
        on GPUs that is so within a process, as XLA chooses its matrix products anew in each.
      iterations: most passes over all rows, and over each sample of them.
      tolerance: no further pass over the same rows once one takes off less than this share of the inertia.
      mesh: rows are divided over all its devices; the first device alone where there is none.
      chunk: rows of a device that are scored at once; chosen by K where it is not said.

    Raises:
      UserError: the vectors are not finite rows of numbers, or fewer different ones than there are to be clusters.
    """
    vectors = _checked(vectors, clusters, iterations)
    rng = np.random.default_rng(seed)
    rows = _Rows(vectors, rng.permutation(len(vectors)), clusters, mesh, chunk)
    sizes = _sample_sizes(len(vectors), clusters)
    key = jax.random.key(int(rng.integers(2**31)))
    centres = np.asarray(draw_centres(rows.host(sizes[0]), key, clusters, 2 + int(math.log(clusters))))
    for size in sizes[:-1]:
        centres, _ = _lloyd(rows, centres, size, iterations, _LOOSER * tolerance)
    return _finish(rows, *_lloyd(rows, centres, sizes[-1], iterations, tolerance))


def lloyd(
    vectors: np.ndarray,
    centres: np.ndarray,
    *,
    iterations: int,
    tolerance: float = 0.0,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> Clustering:
    """Groups rows from given centres [K, D], in passes over all of them; else as `kmeans`.

    Raises:
      UserError: as `kmeans`, or the centres are not rows like the vectors.
    """
    centres = np.asarray(centres)
    vectors = _checked(vectors, len(centres), iterations)
    if centres.shape[1:] != vectors.shape[1:] or not np.isfinite(centres).all():
        raise UserError(
            f"centres are {list(centres.shape)} and vectors {list(vectors.shape)}: give finite centres that are as wide."
        )
    rows = _Rows(vectors, np.arange(len(vectors)), len(centres), mesh, chunk)
    return _finish(rows, *_lloyd(rows, rows.shifted(centres), len(vectors), iterations, tolerance))


def _sample_sizes(count: int, clusters: int) -> list[int]:
    """How many rows each sample has, and all of them at the end; none has more than half, which would save little."""
    sizes = [_SAMPLE * clusters]
    while sizes[-1] <= count // 2:
        sizes.append(sizes[-1] * _GROWTH)
    return [*sizes[:-1], count]


class _Rows:
    """Vectors on devices: row p in their order is row p // devices of device p % devices, so a prefix is divided evenly."""

    def __init__(self, vectors: np.ndarray, order: np.ndarray, clusters: int, mesh: Mesh | None, chunk: int | None):
        """See `kmeans`; the order is a permutation."""
        self._vectors, self._order = vectors, order
        devices = np.array(jax.devices()[:1]) if mesh is None else mesh.devices.ravel()
        self.mesh = Mesh(devices, ("rows",), axis_types=(AxisType.Auto,))
        self.one_hot = devices[0].platform != "cpu"
        if chunk is not None and chunk < 1:
            raise UserError(f"a chunk of {chunk} rows cannot be scored: bind chunk to 1 or more, or leave it out.")
        if chunk is None:
            chunk = max(256, (_MANY_SCORES if self.one_hot else _SCORES) // clusters)
        each = -(-len(vectors) // self.mesh.size)
        self.chunk = min(chunk, each)
        # Rows far from zero lose their differences to rounding, so distances are taken about a middle.
        self._shift = vectors[np.sort(order[: 2**14])].mean(axis=0, dtype=np.float64).astype(np.float32)
        shape = (self.mesh.size, -(-each // self.chunk) * self.chunk, vectors.shape[1])
        sharding = NamedSharding(self.mesh, PartitionSpec("rows"))
        self.placed = jax.make_array_from_callback(shape, sharding, functools.partial(self._part, shape[1]))

    def __len__(self) -> int:
        return len(self._order)

    def _part(self, count: int, index: tuple[slice, ...]) -> np.ndarray:
        """The rows of some devices, filled up with zeros."""
        devices = range(self.mesh.size)[index[0]]
        part = np.empty((len(devices), count, self._vectors.shape[1]), np.float32)
        for held, device in zip(part, devices, strict=True):
            own = self._order[device :: self.mesh.size]
            np.take(self._vectors, own, axis=0, out=held[: len(own)], mode="clip")  # other modes go through a copy
            held[: len(own)] -= self._shift
            held[len(own) :] = 0
        return part

    def host(self, count: int) -> np.ndarray:
        """The first rows, as the devices see them."""
        return self.shifted(self._vectors[self._order[:count]])

    def shifted(self, centres: np.ndarray) -> np.ndarray:
        """Centres as the devices see them."""
        return centres.astype(np.float32) - self._shift

    def unshifted(self, centres: np.ndarray) -> np.ndarray:
        """Centres for the caller."""
        return centres + self._shift

    def fetch(self, placed: jax.Array) -> np.ndarray:
        """Numbers of rows, [devices, rows] on the devices, as [N] in the caller's order."""
        whole = np.asarray(jax.device_put(placed, replicated(self.mesh)))
        found = np.empty(len(self), whole.dtype)
        found[self._order] = whole.T.ravel()[: len(self)]
        return found


def _lloyd(
    rows: _Rows, centres: jax.Array | np.ndarray, count: int, iterations: int, tolerance: float
) -> tuple[jax.Array | np.ndarray, int]:
    """Passes over the first rows, each to move the centres or to seed those without rows; the centres, and how many passes."""
    before = np.inf
    for done in range(iterations):
        found = _assign(rows.placed, centres, count, mesh=rows.mesh, chunk=rows.chunk, one_hot=rows.one_hot)
        labels, distances, sums, counts, inertias = found
        counts, inertia = np.asarray(counts), np.asarray(inertias, np.float64).sum()
        if (
            not counts.all()
        ):  # means of rows that go elsewhere could be farther from those that stay: they wait for a pass
            centres, _, _, _ = _reseed(rows.placed, centres, labels, distances, count, mesh=rows.mesh)
            continue
        centres = _means(sums, counts)
        if inertia >= (1 - tolerance) * before:
            return centres, done + 1
        before = inertia
    return centres, iterations


def _finish(rows: _Rows, centres: jax.Array | np.ndarray, iterations: int) -> Clustering:
    """Every row's nearest centre, once these move no more."""
    found = _assign(rows.placed, centres, len(rows), mesh=rows.mesh, chunk=rows.chunk, one_hot=rows.one_hot)
    labels, distances, _, counts, _ = found
    if not np.asarray(counts).all():
        centres, labels, distances, counts = _reseed(rows.placed, centres, labels, distances, len(rows), mesh=rows.mesh)
    filled = np.count_nonzero(np.asarray(counts))
    if filled < len(counts):
        raise UserError(
            f"only {filled} of the {len(rows)} vectors differ, too few for {len(counts)} clusters: ask for {filled} or fewer."
        )
    kept = rows.fetch(distances)
    return Clustering(
        rows.unshifted(np.asarray(centres)), rows.fetch(labels), kept, float(kept.sum(dtype=np.float64)), iterations
    )


def _checked(vectors: np.ndarray, clusters: int, iterations: int) -> np.ndarray:
    """Vectors as float32 [N, D].

    Raises:
      UserError: see `kmeans`.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.shape[1]:
        raise UserError(
            f"k-means is of rows of numbers, and these are {vectors.dtype} {list(vectors.shape)}: give float32 [N, D]."
        )
    if clusters < 1:
        raise UserError(f"{clusters} clusters cannot be made: ask for at least 1.")
    if iterations < 0:
        raise UserError(f"{iterations} iterations cannot be made: ask for 0 or more.")
    if len(vectors) < clusters:
        raise UserError(f"{len(vectors)} vectors cannot fill {clusters} clusters: ask for {len(vectors)} or fewer.")
    vectors = np.ascontiguousarray(vectors, np.float32)
    for start in range(0, len(vectors), 2**14):
        block = vectors[start : start + 2**14]
        squares = np.einsum("nd,nd->n", block, block)
        if not (squares < _LONGEST).all():  # nor is that which is not a number
            row = start + int(np.flatnonzero(~(squares < _LONGEST))[0])
            raise UserError(
                f"vector {row} is not finite, or too long for float32: leave such rows out before clustering."
            )
    return vectors


@functools.partial(jax.jit, static_argnames=("mesh", "chunk", "one_hot"))
def _assign(
    rows: jax.Array, centres: jax.Array, count: int, *, mesh: Mesh, chunk: int, one_hot: bool
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """One pass.

    Args:
      rows: [devices, R, D].
      centres: [K, D].
      count: how many rows are read.
      mesh: what `rows` are divided over.
      chunk: rows of a device that are scored at once; divides R.
      one_hot: sums are products with the clusters' ones and zeros: a GPU adds rows by their labels in no fixed order.

    Returns:
      (labels int32 [devices, R], squares of distances [devices, R], sums of clusters' rows [K, D], how many these are
      int32 [K], sums of squares of each device's chunks [devices, chunks]); rows that are not read have 0 for all.
    """
    clusters = len(centres)

    def local(rows: jax.Array, centres: jax.Array, count: jax.Array) -> tuple[jax.Array, ...]:
        rows, places = rows[0], _places(rows.shape[1], mesh)
        half = 0.5 * jnp.sum(centres * centres, axis=1)
        numbers = jnp.arange(clusters, dtype=jnp.int32)

        def step(turn: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            labels, distances, sums, counts, inertias = found
            own = jax.lax.dynamic_slice_in_dim(rows, turn * chunk, chunk)
            read = jax.lax.dynamic_slice_in_dim(places, turn * chunk, chunk) < count
            scores = jax.lax.dot_general(own, centres, (((1,), (1,)), ((), ())), precision=_HIGHEST) - half
            # A maximum and then the first that has it: `argmax` is a reduction of pairs, which XLA does not vectorise on CPUs.
            best = jnp.max(scores, axis=1, keepdims=True)
            nearest = jnp.min(jnp.where(scores >= best, numbers, clusters), axis=1)
            gaps = own - centres[nearest]
            squares = jnp.where(read, jnp.sum(gaps * gaps, axis=1), 0.0)
            if one_hot:
                mine = (nearest[:, None] == numbers) & read[:, None]
                added = jax.lax.dot_general(mine.astype(own.dtype), own, (((0,), (0,)), ((), ())), precision=_HIGHEST)
                more = jnp.sum(mine, axis=0, dtype=jnp.int32)
            else:
                target = jnp.where(read, nearest, clusters)  # beyond the last: dropped
                added = jax.ops.segment_sum(own, target, clusters)
                more = jax.ops.segment_sum(jnp.ones_like(target), target, clusters)
            return (
                jax.lax.dynamic_update_slice_in_dim(labels, jnp.where(read, nearest, 0), turn * chunk, 0),
                jax.lax.dynamic_update_slice_in_dim(distances, squares, turn * chunk, 0),
                sums + added,
                counts + more,
                inertias.at[turn].set(jnp.sum(squares)),
            )

        none = (
            jnp.zeros(len(rows), jnp.int32),
            jnp.zeros(len(rows), jnp.float32),
            jnp.zeros_like(centres),
            jnp.zeros(clusters, jnp.int32),
            jnp.zeros(len(rows) // chunk, jnp.float32),
        )
        turns = (count + mesh.size * chunk - 1) // (mesh.size * chunk)
        labels, distances, sums, counts, inertias = jax.lax.fori_loop(0, turns, step, none)
        return labels[None], distances[None], jax.lax.psum(sums, "rows"), jax.lax.psum(counts, "rows"), inertias[None]

    whole, divided = PartitionSpec(), PartitionSpec("rows")
    labels, distances, sums, counts, inertias = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(divided, whole, whole),
        out_specs=(divided, divided, whole, whole, divided),
        check_vma=False,
    )(rows, centres, count)
    return labels, distances, sums, counts, jax.lax.with_sharding_constraint(inertias, replicated(mesh))


@jax.jit
def _means(sums: jax.Array, counts: jax.Array) -> jax.Array:
    """Clusters' means [K, D], of clusters that have rows."""
    return sums / counts[:, None]


@functools.partial(jax.jit, static_argnames=("mesh",))
def _reseed(
    rows: jax.Array, centres: jax.Array, labels: jax.Array, distances: jax.Array, count: int, *, mesh: Mesh
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Gives rows to clusters that have none: to each the row farthest from its centre, and those that this one is nearer to.

    Every turn takes some off the inertia, so there is a last one, even where it empties another cluster: all have rows, or
    every row is its centre.

    Args:
      rows: [devices, R, D].
      centres: [K, D].
      labels: [devices, R], as `_assign` gives them.
      distances: theirs.
      count: rows that are read.
      mesh: what `rows` are divided over.

    Returns:
      (centres, labels, distances, counts of rows int32 [K]).
    """
    clusters = len(centres)

    def local(
        rows: jax.Array, centres: jax.Array, labels: jax.Array, distances: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, ...]:
        rows, labels, distances, places = rows[0], labels[0], distances[0], _places(rows.shape[1], mesh)
        read = places < count

        def counted(labels: jax.Array) -> jax.Array:
            target = jnp.where(read, labels, clusters)
            return jax.lax.psum(jax.ops.segment_sum(jnp.ones_like(target), target, clusters), "rows")

        def unfinished(found: tuple[jax.Array, ...]) -> jax.Array:
            _, _, distances, counts = found
            return jnp.any(counts == 0) & (jax.lax.pmax(jnp.max(distances), "rows") > 0)

        def step(found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            centres, labels, distances, counts = found
            empty = jnp.argmin(counts)  # 0 is the least, and the first of these is taken
            farthest = jax.lax.pmax(jnp.max(distances), "rows")
            place = jax.lax.pmin(jnp.min(jnp.where(distances == farthest, places, jnp.iinfo(jnp.int32).max)), "rows")
            chosen = rows[place // mesh.size]
            chosen = jax.lax.psum(jnp.where(jnp.any(places == place), chosen, 0.0), "rows")
            gaps = rows - chosen
            squares = jnp.sum(gaps * gaps, axis=1)
            nearer = squares < distances  # never a row that is not read: its distance is 0
            labels = jnp.where(nearer, empty, labels)
            return centres.at[empty].set(chosen), labels, jnp.where(nearer, squares, distances), counted(labels)

        found = jax.lax.while_loop(unfinished, step, (centres, labels, distances, counted(labels)))
        centres, labels, distances, counts = found
        return centres, labels[None], distances[None], counts

    whole, divided = PartitionSpec(), PartitionSpec("rows")
    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(divided, whole, divided, divided, whole),
        out_specs=(whole, divided, divided, whole),
        check_vma=False,
    )(rows, centres, labels, distances, count)


def _places(count: int, mesh: Mesh) -> jax.Array:
    """In a mapped function, where a device's rows are in the order of all: int32 [R]."""
    return jnp.arange(count, dtype=jnp.int32) * mesh.size + jax.lax.axis_index("rows")


@functools.partial(jax.jit, static_argnames=("clusters", "trials"))
def draw_centres(rows: jax.Array | np.ndarray, key: jax.Array, clusters: int, trials: int) -> jax.Array:
    """First centres by greedy k-means++: the first row, then each time the best of some rows that are drawn.

    Rows are drawn with a chance as the square of their distance from the centres so far; the best is the one that leaves the
    smallest sum of squares. Those for several centres are drawn together, by the distances before the first of these. Each is
    then kept with the probability that its distance has left, relative to that, which gives it the chance it should have
    (rejection sampling); a turn in which no more than half are kept is left out, as a choice of few is a poor one.

    Args:
      rows: float32 [M, D], in random order.
      key: what chance derives from.
      clusters: K.
      trials: rows that are drawn for a centre.

    Returns:
      [K, D]; zeros at the end where there are fewer rows that differ.
    """
    norms = jnp.sum(rows * rows, axis=1)
    together = max(1, _DRAWN // trials)

    def squares(drawn: jax.Array) -> jax.Array:
        """Of the distances of all rows to some: [..., M]."""
        found = norms[drawn][..., None] + norms
        left = found - 2 * jnp.einsum("...d,md->...m", rows[drawn], rows, precision=_HIGHEST)
        return jnp.where(left > 1e-6 * found, left, 0.0)  # less is the product's rounding, not a row of its own

    def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        chosen, found, before, key = state
        key, for_drawing, for_keeping = jax.random.split(key, 3)
        sums = jnp.cumsum(before)
        drawn = jnp.searchsorted(sums, jax.random.uniform(for_drawing, together * trials) * sums[-1], side="right")
        drawn = jnp.minimum(drawn, len(rows) - 1).reshape(together, trials)
        needed = jax.random.uniform(for_keeping, drawn.shape) * before[drawn]
        gaps = squares(drawn)

        def choose(turn: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            chosen, found, distances = state
            kept = needed[turn] < distances[drawn[turn]]
            left = jnp.minimum(distances, gaps[turn])
            best = jnp.argmin(jnp.where(kept, jnp.sum(left, axis=1), jnp.inf))
            useful = (2 * jnp.sum(kept) > trials) & (found < clusters)
            return (
                chosen.at[jnp.where(useful, found, clusters)].set(drawn[turn, best], mode="drop"),
                found + useful,
                jnp.where(useful, left[best], distances),
            )

        return *jax.lax.fori_loop(0, together, choose, (chosen, found, before)), key

    chosen = jnp.zeros(clusters, jnp.int32)
    state = jax.lax.while_loop(
        lambda state: (state[1] < clusters) & jnp.any(state[2] > 0),
        step,
        (chosen, jnp.int32(1), squares(chosen[0]), key),
    )
    return jnp.where((jnp.arange(clusters) < state[1])[:, None], rows[state[0]], 0.0)
