"""One tensor of a merge, a block at a time: what the method needs to know of all of it, then block after block.

A tensor is read as blocks of 256 rows of 4,096 entries in its own order, whatever its shape is; memory is that of a few blocks,
and one compiled program serves tensors of all sizes. Blocks may be divided over a mesh by columns: sums over entries add up
over devices, and random bits are those of the whole block, so the result is that of one device.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_jax.merging import methods
from aya_jax.merging.magnitudes import Cut, Side, find_cuts, magnitude_bits, ranks
from aya_jax.merging.methods import METHODS, Method, Rescale
from aya_jax.parallel.distributed import whole

ROWS, COLUMNS = 256, 4096
_BLOCK = ROWS * COLUMNS
_PARTS = 32  # of a row that are summed in float32


@dataclass(frozen=True)
class Settings:
    """The numbers of a method for one tensor; what a method does not use is left as it is.

    Attributes:
      method: a name of `METHODS`.
      weights: of each model beside the base.
      densities: share of a delta's entries that is kept, in (0, 1], for each.
      gammas: share of the largest entries that breadcrumbs drop, for each.
      epsilons: half the range of DELLA's chances, for each.
      t: of SLERP.
      scale: what the merged delta is multiplied by (mergekit's lambda).
      normalize: as in `Method`.
      rescale: of the entries that a sparsifier keeps: nothing, by one over the chance that they are kept (Yu et al. 2024), or
        so that the delta's L1 norm stays (mergekit).
    """

    method: str
    weights: tuple[float, ...]
    densities: tuple[float, ...] = ()
    gammas: tuple[float, ...] = ()
    epsilons: tuple[float, ...] = ()
    t: float = 0.5
    scale: float = 1.0
    normalize: bool = True
    rescale: Rescale = "none"

    @property
    def about(self) -> Method:
        """The method."""
        return METHODS[self.method]


class Blocks(Protocol):
    """A tensor in blocks on the devices."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def entries(self) -> int:
        """Of the tensor."""
        ...

    def block(self, number: int) -> jax.Array:
        """[R, C], filled up with zeros after the tensor's end."""
        ...


class HostBlocks:
    """A tensor in the host's memory, or in a file's pages, whose blocks are put on the devices when they are asked for."""

    def __init__(self, array: np.ndarray, mesh: Mesh | None = None, *, by_rows: bool = False):
        """Reads nothing.

        Args:
          array: the tensor.
          mesh: what blocks are divided over.
          by_rows: take the tensor's own rows for those of blocks, for methods that rank within them.
        """
        self._flat, self.entries = array.reshape(-1), array.size
        self._columns = (array.shape[-1] if array.ndim else 1) if by_rows else COLUMNS
        self._rows = max(1, _BLOCK // self._columns)
        self.count = -(-self.entries // (self._rows * self._columns))
        cut = None if mesh is None or self._columns % mesh.size else mesh.axis_names
        self._sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(None, cut))

    def block(self, number: int) -> jax.Array:
        """As `Blocks.block`."""
        size = self._rows * self._columns
        part = self._flat[number * size : (number + 1) * size]
        rows = min(self._rows, 1 << max(0, -(-part.size // self._columns) - 1).bit_length())
        if part.size < rows * self._columns:
            part = np.concatenate([part, np.zeros(rows * self._columns - part.size, part.dtype)])
        part = part.reshape(rows, self._columns)
        if self._sharding is None:
            return jax.device_put(part)  # four times as fast as jnp.asarray, on a CPU
        return jax.make_array_from_callback(part.shape, self._sharding, lambda index: part[index])


def merge(
    name: str,
    settings: Settings,
    base: Blocks | None,
    models: Sequence[Blocks],
    *,
    names: Sequence[str],
    seed: int,
    dtype: np.dtype,
) -> Iterator[jax.Array]:
    """The merged tensor's blocks, in order, each of `dtype`.

    Args:
      name: the tensor's, of which random masks are made.
      settings: of the method.
      base: the base's tensor, where the method has one.
      models: those of the models beside the base.
      names: of the models, of which random masks are made; two of one name have the same.
      seed: of random masks.
      dtype: of the result; sums are float32.

    Raises:
      ValueError: the method has no result with these numbers.
    """
    inputs = models if base is None else [base, *models]
    if not settings.about.is_delta:
        coefficients = np.asarray(_coefficients(settings, base, models), np.float32)
        return _ahead(
            inputs[0].count,
            lambda number: _combine([one.block(number) for one in inputs], coefficients, dtype=np.dtype(dtype).name),
        )
    deltas = [_Delta(base, model, settings, at, _key(seed, name, names[at])) for at, model in enumerate(models)]
    weights, scale = np.asarray(settings.weights, np.float32), np.float32(settings.scale)
    how = {"elects": settings.about.elects, "normalize": settings.normalize, "dtype": np.dtype(dtype).name}

    def block(number: int) -> jax.Array:
        own, theirs = base.block(number), [model.block(number) for model in models]
        filters = [delta.filter(number, own, its) for delta, its in zip(deltas, theirs, strict=True)]
        return _add(own, theirs, filters, weights, scale, **how)

    return _ahead(base.count, block)


def _ahead(count: int, block: Callable[[int], jax.Array]) -> Iterator[jax.Array]:
    """Blocks in order, each once the next has been asked for, so that the devices work while the caller takes it."""
    before = None
    for number in range(count):
        made = block(number)
        if before is not None:
            yield before
        before = made
    if before is not None:
        yield before


def gram(inputs: Sequence[Blocks], base: Blocks | None = None) -> np.ndarray:
    """Inner products float64 [M, M] of tensors, or of what they changed of a base."""
    total = np.zeros((len(inputs), len(inputs)))
    upper = np.triu_indices(len(inputs))
    for number in range(inputs[0].count):
        own = None if base is None else base.block(number)
        sums = whole(_gram([one.block(number) for one in inputs], own))
        total[upper] += sums.sum(axis=(1, 2), dtype=np.float64)
    return np.triu(total) + np.triu(total, 1).T


def _coefficients(settings: Settings, base: Blocks | None, models: Sequence[Blocks]) -> np.ndarray:
    if settings.method == "slerp":
        return methods.slerp(gram([base, *models]), settings.t)
    if settings.method == "nuslerp":
        return _from(base, methods.nuslerp(gram(models, base), settings.weights))
    if settings.method == "model_stock":
        return methods.model_stock(gram(models, base))
    if settings.method == "karcher":
        return methods.karcher(gram(models), settings.weights)
    if settings.method == "multislerp":
        return _from(base, methods.multislerp(gram(models, base), settings.weights, settings.normalize))
    return methods.linear(settings.weights, settings.normalize)


def _from(base: Blocks | None, coefficients: np.ndarray) -> np.ndarray:
    """With those of deltas, the base's coefficient first."""
    return coefficients if base is None else np.concatenate([[1 - coefficients.sum()], coefficients])


class _Delta:
    """What is to be kept of a model's delta."""

    def __init__(self, base: Blocks, model: Blocks, settings: Settings, at: int, key: jax.Array):
        self._base, self._model, self._key = base, model, key
        density = settings.densities[at] if settings.densities else 1.0
        self._sparsifier = settings.about.sparsifier if density < 1 and base.entries else None
        self._density, self._factor = density, 1.0
        self._epsilon = settings.epsilons[at] if settings.epsilons else 0.0
        self._by_chance = settings.rescale == "inverse_density"
        self._cuts: tuple[Cut, ...] = ()
        if self._sparsifier == "magnitude":
            self._cuts = self._find_cuts(max(1, int(density * base.entries)))
        elif self._sparsifier == "outliers":
            kept = int(density * base.entries)
            dropped = min(int(settings.gammas[at] * base.entries), base.entries - kept)
            self._cuts = self._find_cuts(kept + dropped, dropped)
        if self._sparsifier and settings.rescale == "l1":
            before, after = np.sum([self._l1(number) for number in range(base.count)], axis=0)
            self._factor = before / after if min(before, after) >= 1e-7 else 1.0

    def filter(self, number: int, base: jax.Array, model: jax.Array) -> _Filter:
        """What is applied to the delta between blocks of this number."""
        if self._sparsifier is None:
            return _All()
        if self._cuts:
            factor = self._factor / self._density if self._by_chance else self._factor
            return _Between(tuple(cut.at(number) for cut in self._cuts), np.float32(factor))
        ranked = ranks(_subtract(base, model)) if self._sparsifier == "ranked" else None
        numbers = (np.float32(self._density), np.float32(self._epsilon), np.float32(self._factor))
        return _Drawn(self._key, np.uint32(number), ranked, *numbers, by_chance=self._by_chance)

    def _find_cuts(self, *ks: int) -> tuple[Cut, ...]:
        """As mergekit sorts, breadcrumbs from the smallest on, so that of equals the last ones are among the largest."""

        def piece(number: int) -> jax.Array:
            return _changed_bits(self._base.block(number), self._model.block(number))

        return find_cuts(piece, self._base.count, self._base.entries, ks, last=self._sparsifier == "outliers")

    def _l1(self, number: int) -> np.ndarray:
        base, model = self._base.block(number), self._model.block(number)
        return whole(_l1(base, model, self.filter(number, base, model))).sum(axis=0, dtype=np.float64)


def _key(seed: int, tensor: str, model: str) -> jax.Array:
    """Of the random masks of a model's tensor: of nothing but these three, so of no order, sharding or number of threads."""
    words = np.frombuffer(hashlib.blake2b(f"{seed}\0{tensor}\0{model}".encode(), digest_size=8).digest(), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


# On the devices -------------------------------------------------------------------------------------------------------


class _Filter(Protocol):
    """Sparsifies a block of a delta."""

    def __call__(self, delta: jax.Array) -> jax.Array:
        """[R, C] to the same."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _All:
    """Keeps everything."""

    def __call__(self, delta: jax.Array) -> jax.Array:
        return delta


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Between:
    """Keeps what is among the entries of the first cut, and not among those of the second."""

    sides: tuple[Side, ...]
    factor: np.float32

    def __call__(self, delta: jax.Array) -> jax.Array:
        kept = self.sides[0].holds(delta)
        for side in self.sides[1:]:
            kept &= ~side.holds(delta)
        return jnp.where(kept, delta * self.factor, 0.0)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("key", "number", "ranks", "density", "epsilon", "factor"),
    meta_fields=("by_chance",),
)
@dataclass(frozen=True)
class _Drawn:
    """Keeps what chance says, by the block's number; with ranks as DELLA."""

    key: jax.Array
    number: np.uint32
    ranks: jax.Array | None
    density: np.float32
    epsilon: np.float32
    factor: np.float32
    by_chance: bool

    def __call__(self, delta: jax.Array) -> jax.Array:
        chance = self.density
        if self.ranks is not None:
            chance = methods.keep_probability(self.ranks, self.density, self.epsilon)
        kept = jax.random.bernoulli(jax.random.fold_in(self.key, self.number), chance, delta.shape)
        return jnp.where(kept, delta * self.factor / (chance if self.by_chance else 1.0), 0.0)


@jax.jit
def _gram(arrays: Sequence[jax.Array], base: jax.Array | None) -> jax.Array:
    """Sums over parts of rows, float32 [pairs, R, 32], which the host adds up in float64; pair by pair, as a CPU is many times
    slower at products of such narrow matrices."""
    found = [_delta(base, array) for array in arrays]
    parts = math.gcd(_PARTS, found[0].shape[1])
    products = [one * other for at, one in enumerate(found) for other in found[at:]]
    return jnp.stack([jnp.sum(product.reshape(product.shape[0], parts, -1), axis=-1) for product in products])


@jax.jit
def _l1(base: jax.Array, model: jax.Array, filter_: _Filter) -> jax.Array:
    """Of a delta and of what is kept of it, float32 [R, 2]."""
    delta = _delta(base, model)
    return jnp.stack([jnp.sum(jnp.abs(delta), axis=-1), jnp.sum(jnp.abs(filter_(delta)), axis=-1)], axis=-1)


@functools.partial(jax.jit, static_argnames="dtype")
def _combine(arrays: Sequence[jax.Array], coefficients: jax.Array, *, dtype: str) -> jax.Array:
    total = coefficients[0] * arrays[0].astype(jnp.float32)
    for number in range(1, len(arrays)):
        total = total + coefficients[number] * arrays[number].astype(jnp.float32)
    return total.astype(dtype)


@jax.jit
def _subtract(base: jax.Array, model: jax.Array) -> jax.Array:
    return _delta(base, model)


@jax.jit
def _changed_bits(base: jax.Array, model: jax.Array) -> jax.Array:
    return magnitude_bits(_delta(base, model))


def _delta(base: jax.Array | None, model: jax.Array) -> jax.Array:
    return model.astype(jnp.float32) if base is None else model.astype(jnp.float32) - base.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("elects", "normalize", "dtype"))
def _add(
    base: jax.Array,
    models: Sequence[jax.Array],
    filters: Sequence[_Filter],
    weights: jax.Array,
    scale: jax.Array,
    *,
    elects: bool,
    normalize: bool,
    dtype: str,
) -> jax.Array:
    deltas = [filter_(_delta(base, model)) for filter_, model in zip(filters, models, strict=True)]
    merged = methods.settle(deltas, weights, elects=elects, normalize=normalize)
    return (base.astype(jnp.float32) + scale * merged).astype(dtype)
