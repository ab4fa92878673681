"""One tensor of a merge, a block at a time: what the method needs to know of all of it, then block after block.

A tensor is read as blocks of 256 rows of 4,096 entries in its own order, whatever its shape is; memory is that of a few blocks, and
one compiled program serves tensors of all sizes. Blocks may be divided over a mesh by columns: sums over entries add up over
devices, and random bits are those of the whole block, so the result is that of one device.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_jax.merging import methods
from aya_jax.merging.magnitudes import Cut, find_cut, inside
from aya_jax.merging.methods import METHODS, Method, Rescale

ROWS, COLUMNS = 256, 4096
_BLOCK = ROWS * COLUMNS


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
      rescale: of the entries that a sparsifier keeps: nothing, by one over the chance that they are kept (Yu et al. 2024), or so
        that the delta's L1 norm stays (mergekit).
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
        return jnp.asarray(part) if self._sharding is None else jax.device_put(part, self._sharding)


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
    about = settings.about
    if about.is_delta:
        deltas = [_Delta(base, model, settings, at, _key(seed, name, names[at])) for at, model in enumerate(models)]
        weights = jnp.asarray(settings.weights, jnp.float32)
        scale = jnp.float32(settings.scale)
        how = {"elects": about.elects, "normalize": settings.normalize, "dtype": np.dtype(dtype).name}
        for number in range(base.count):
            yield _add(base.block(number), [delta.block(number) for delta in deltas], weights, scale, **how)
        return
    inputs = models if base is None else [base, *models]
    coefficients = jnp.asarray(_coefficients(settings, base, models), jnp.float32)
    for number in range(inputs[0].count):
        yield _combine([one.block(number) for one in inputs], coefficients, dtype=np.dtype(dtype).name)


def gram(inputs: Sequence[Blocks], base: Blocks | None = None) -> np.ndarray:
    """Inner products float64 [M, M] of tensors, or of what they changed of a base."""
    total = np.zeros((len(inputs), len(inputs)))
    for number in range(inputs[0].count):
        own = None if base is None else base.block(number)
        total += np.asarray(_gram([one.block(number) for one in inputs], own), np.float64).sum(axis=0)
    return total


def _coefficients(settings: Settings, base: Blocks | None, models: Sequence[Blocks]) -> np.ndarray:
    if settings.method == "slerp":
        return methods.slerp(gram([base, *models]), settings.t)
    if settings.method == "model_stock":
        return methods.model_stock(gram(models, base))
    if settings.method == "karcher":
        return methods.karcher(gram(models), settings.weights)
    if settings.method == "multislerp":
        return methods.multislerp(gram(models), settings.weights, settings.normalize)
    return methods.linear(settings.weights, settings.normalize)


class _Delta:
    """What a model changed of the base, sparsified."""

    def __init__(self, base: Blocks, model: Blocks, settings: Settings, at: int, key: jax.Array):
        self._base, self._model, self._key = base, model, key
        self._sparsifier = settings.about.sparsifier
        self._density = settings.densities[at] if settings.densities else 1.0
        if self._density >= 1:
            self._sparsifier = None
        self._epsilon = settings.epsilons[at] if settings.epsilons else 0.0
        self._cuts: tuple[Cut, ...] = ()
        if self._sparsifier in ("magnitude", "outliers"):
            self._cuts = self._find_cuts(settings.gammas[at] if self._sparsifier == "outliers" else 0.0)
        self._by_chance = settings.rescale == "inverse_density" and self._sparsifier is not None
        self._factor = 1.0
        if self._sparsifier and settings.rescale == "l1":
            sums = [np.asarray(_l1(self._whole(n), self.block(n)), np.float64).sum(0) for n in range(base.count)]
            before, after = np.sum(sums, axis=0)
            self._factor = before / after if min(before, after) >= 1e-7 else 1.0

    def _whole(self, number: int) -> jax.Array:
        return _subtract(self._base.block(number), self._model.block(number))

    def _find_cuts(self, gamma: float) -> tuple[Cut, ...]:
        entries = self._base.entries
        kept = int(self._density * entries)
        dropped = min(int(gamma * entries), entries - kept)

        def pieces() -> Iterator[jax.Array]:
            return (self._whole(number) for number in range(self._base.count))

        outer = find_cut(pieces, max(1, kept + dropped))
        return (outer, find_cut(pieces, dropped)) if dropped else (outer,)

    def block(self, number: int) -> jax.Array:
        delta = self._whole(number)
        if self._sparsifier is None:
            return delta
        if self._cuts:
            bits = jnp.asarray([cut.bits for cut in self._cuts], jnp.int32)
            quotas = jnp.asarray([cut.quota(number) for cut in self._cuts], jnp.int32)
            splits = tuple(cut.splits_equals for cut in self._cuts)
            factor = self._factor / self._density if self._by_chance else self._factor
            return _between(delta, bits, quotas, jnp.float32(factor), splits=splits)
        key = jax.random.fold_in(self._key, number)
        numbers = (jnp.float32(self._density), jnp.float32(self._epsilon), jnp.float32(self._factor))
        return _drawn(delta, key, *numbers, ranked=self._sparsifier == "ranked", by_chance=self._by_chance)


def _key(seed: int, tensor: str, model: str) -> jax.Array:
    """Of the random masks of a model's tensor: of nothing but these three, so of no order, sharding or number of threads."""
    words = np.frombuffer(hashlib.blake2b(f"{seed}\0{tensor}\0{model}".encode(), digest_size=8).digest(), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


# On the devices -------------------------------------------------------------------------------------------------------


@jax.jit
def _gram(arrays: Sequence[jax.Array], base: jax.Array | None) -> jax.Array:
    """A sum for each row, float32 [R, M, M]; the host adds them up in float64."""
    if base is not None:
        arrays = [array.astype(jnp.float32) - base.astype(jnp.float32) for array in arrays]
    stacked = jnp.stack([array.astype(jnp.float32) for array in arrays])
    return jnp.einsum("mrc,nrc->rmn", stacked, stacked, precision="highest")


@jax.jit
def _l1(whole: jax.Array, sparse: jax.Array) -> jax.Array:
    """float32 [R, 2]."""
    return jnp.stack([jnp.sum(jnp.abs(whole), axis=-1), jnp.sum(jnp.abs(sparse), axis=-1)], axis=-1)


@functools.partial(jax.jit, static_argnames="dtype")
def _combine(arrays: Sequence[jax.Array], coefficients: jax.Array, *, dtype: str) -> jax.Array:
    total = coefficients[0] * arrays[0].astype(jnp.float32)
    for number in range(1, len(arrays)):
        total = total + coefficients[number] * arrays[number].astype(jnp.float32)
    return total.astype(dtype)


@jax.jit
def _subtract(base: jax.Array, model: jax.Array) -> jax.Array:
    return model.astype(jnp.float32) - base.astype(jnp.float32)


@functools.partial(jax.jit, static_argnames=("elects", "normalize", "dtype"))
def _add(
    base: jax.Array,
    deltas: Sequence[jax.Array],
    weights: jax.Array,
    scale: jax.Array,
    *,
    elects: bool,
    normalize: bool,
    dtype: str,
) -> jax.Array:
    merged = methods.settle(deltas, weights, elects=elects, normalize=normalize)
    return (base.astype(jnp.float32) + scale * merged).astype(dtype)


@functools.partial(jax.jit, static_argnames="splits")
def _between(
    delta: jax.Array, bits: jax.Array, quotas: jax.Array, factor: jax.Array, *, splits: tuple[bool, ...]
) -> jax.Array:
    """What is among the entries of the first cut and not among those of the second."""
    kept = inside(delta, bits[0], quotas[0] if splits[0] else None)
    if len(splits) > 1:
        kept &= ~inside(delta, bits[1], quotas[1] if splits[1] else None)
    return jnp.where(kept, delta * factor, 0.0)


@functools.partial(jax.jit, static_argnames=("ranked", "by_chance"))
def _drawn(
    delta: jax.Array,
    key: jax.Array,
    density: jax.Array,
    epsilon: jax.Array,
    factor: jax.Array,
    *,
    ranked: bool,
    by_chance: bool,
) -> jax.Array:
    """What chance keeps."""
    chance = methods.keep_probability(delta, density, epsilon) if ranked else density
    kept = jax.random.bernoulli(key, chance, delta.shape)
    return jnp.where(kept, delta * factor / (chance if by_chance else 1.0), 0.0)
