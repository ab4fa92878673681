"""What models changed of their base, tensor by tensor: norms, angles between them, and signs that disagree.

Of each tensor there are only sums (inner products and counts), which add up: those of a layer or of a kind of matrix are the
sums over its tensors, and cosines and shares follow from them. Tensors are read as merges read them, so memory is bounded.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aya_jax.merging.magnitudes import Side, find_cuts, magnitude_bits
from aya_jax.merging.methods import cosines
from aya_jax.merging.tensor import Blocks, HostBlocks, gram

_NAME = re.compile(r"model\.layers\.(\d+)\.(?:self_attn\.|mlp\.)?(.+)\.weight")
OUTSIDE = "–"
"""Stands for the layer of what is in none."""


@dataclasses.dataclass(frozen=True)
class Sums:
    """Of one tensor, or of several together.

    Attributes:
      entries: how many.
      base: of the base's squares.
      gram: float64 [M, M] inner products of what models changed.
      same, opposite: int64 [2, M, M]: entries that two models both changed, up or down alike, and not alike; before and after
        trimming.
      mixed: int64 [2]: entries that some model moved up and another down; before and after trimming.
    """

    entries: int
    base: float
    gram: np.ndarray
    same: np.ndarray
    opposite: np.ndarray
    mixed: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)))

    def record(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """What follows from them, for JSON: of each model, then of each pair.

        An agreement is the share of alike among the entries that both changed; a conflict is the share of unlike among all
        entries. Either is None where there is nothing to divide by.
        """
        angles, norms = cosines(self.gram), np.sqrt(np.diag(self.gram))
        found: dict[str, Any] = {
            "entries": self.entries,
            "norms": norms.tolist(),
            "relative_norms": [_share(norm, np.sqrt(self.base)) for norm in norms],
            "mixed": _share(self.mixed[0], self.entries),
            "mixed_trimmed": _share(self.mixed[1], self.entries),
            "cosine": [float(angles[pair]) for pair in pairs],
        }
        for suffix, same, opposite in zip(("", "_trimmed"), self.same, self.opposite, strict=True):
            found["agreement" + suffix] = [_share(same[pair], same[pair] + opposite[pair]) for pair in pairs]
            found["conflict" + suffix] = [_share(opposite[pair], self.entries) for pair in pairs]
        return found


def sums_of(base: np.ndarray, models: Sequence[np.ndarray], density: float, mesh: Mesh | None = None) -> Sums:
    """Of one tensor.

    Args:
      base: the base's.
      models: those of the models.
      density: the share of its entries that trimming leaves of what each model changed, the largest.
      mesh: what blocks are divided over.
    """
    own, theirs = HostBlocks(base, mesh), [HostBlocks(model, mesh) for model in models]
    kept = max(1, int(density * own.entries))
    cuts = [find_cuts(_changed(own, one), own.count, own.entries, (kept,))[0] for one in theirs]
    counts = 0
    for number in range(own.count):
        sides = [cut.at(number) for cut in cuts]
        blocks = [one.block(number) for one in theirs]
        counts = counts + np.asarray(_counts(own.block(number), blocks, sides), np.int64)
    same, opposite, mixed = _unpacked(counts, len(models))
    return Sums(own.entries, float(gram([own])[0, 0]), gram(theirs, own), same, opposite, mixed)


def by_place(sums: Mapping[str, Sums]) -> dict[tuple[str, str], Sums]:
    """By (layer, kind of matrix): "3", "up_proj"; outside of the layers `OUTSIDE`, "embed_tokens"."""
    return {place(name): found for name, found in sums.items()}


def place(name: str) -> tuple[str, str]:
    """The layer and the kind of a tensor."""
    found = _NAME.fullmatch(name)
    if found is None:
        return OUTSIDE, name.removeprefix("model.").removesuffix(".weight")
    return found[1], found[2]


def report(
    base: str, models: Sequence[str], digests: Sequence[str], density: float, sums: Mapping[str, Sums]
) -> dict[str, Any]:
    """diagnostics.json: by tensor, by layer, by kind of matrix, and of all together."""
    pairs = list(itertools.combinations(range(len(models)), 2))
    places = by_place(sums)
    whole = total(sums.values())

    def group(part: int) -> dict[str, Any]:
        names = dict.fromkeys(where[part] for where in places)
        of = {name: total(found for where, found in places.items() if where[part] == name) for name in names}
        return {name: found.record(pairs) | {"norm_share": _norm_shares(found, whole)} for name, found in of.items()}

    return {
        "base": base,
        "models": list(models),
        "pairs": [[models[one], models[other]] for one, other in pairs],
        "digests": list(digests),
        "density": density,
        "all": whole.record(pairs),
        "layers": group(0),
        "kinds": group(1),
        "tensors": {
            name: {"layer": place(name)[0], "kind": place(name)[1]}
            | found.record(pairs)
            | {"norm_share": _norm_shares(found, whole)}
            for name, found in sums.items()
        },
    }


def total(sums: Iterable[Sums]) -> Sums:
    """Of several together."""
    first, *others = sums
    for other in others:
        first = first + other
    return first


def text_of(found: Mapping[str, Any]) -> str:
    """The report as it is written."""
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _norm_shares(part: Sums, whole: Sums) -> list[float | None]:
    """Of each model, the part's share of the sum of squares of all that it changed."""
    return [_share(own, of) for own, of in zip(np.diag(part.gram), np.diag(whole.gram), strict=True)]


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _changed(base: Blocks, model: Blocks) -> Any:
    return lambda number: _changed_bits(base.block(number), model.block(number))


@jax.jit
def _changed_bits(base: jax.Array, model: jax.Array) -> jax.Array:
    return magnitude_bits(model.astype(jnp.float32) - base.astype(jnp.float32))


@jax.jit
def _counts(base: jax.Array, models: Sequence[jax.Array], sides: Sequence[Side]) -> jax.Array:
    """int32: of each pair alike, then unlike, then mixed; first of all changes, then of those that trimming leaves."""
    deltas = [model.astype(jnp.float32) - base.astype(jnp.float32) for model in models]
    trimmed = [jnp.where(side.holds(delta), delta, 0.0) for side, delta in zip(sides, deltas, strict=True)]
    found = []
    for some in (deltas, trimmed):
        up, down = [delta > 0 for delta in some], [delta < 0 for delta in some]
        pairs = list(itertools.combinations(range(len(some)), 2))
        found += [jnp.sum((up[i] & up[j]) | (down[i] & down[j])) for i, j in pairs]
        found += [jnp.sum((up[i] & down[j]) | (down[i] & up[j])) for i, j in pairs]
        found.append(jnp.sum(jnp.any(jnp.stack(up), axis=0) & jnp.any(jnp.stack(down), axis=0)))
    return jnp.stack(found)


def _unpacked(counts: np.ndarray, models: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`Sums.same`, `opposite` and `mixed` of `_counts`."""
    upper = np.triu_indices(models, 1)
    pairs = len(upper[0])
    rows = counts.reshape(2, 2 * pairs + 1)
    same, opposite = np.zeros((2, models, models), np.int64), np.zeros((2, models, models), np.int64)
    for before_after in range(2):
        same[before_after][upper] = rows[before_after, :pairs]
        opposite[before_after][upper] = rows[before_after, pairs : 2 * pairs]
    return same, opposite, rows[:, -1]
