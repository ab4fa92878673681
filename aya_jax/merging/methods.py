"""Merge methods, each from small pure functions over tensors.

There are two kinds. A *combination* is a weighted sum of the models' tensors whose coefficients follow from numbers given and
from the angles between the tensors: linear, SLERP, spherical means, model stock. A *delta method* sparsifies what each model
changed of a base, settles where the models disagree on a sign, and adds what is left to the base: task arithmetic, TIES, DARE,
breadcrumbs, DELLA.

Everything a method needs to know of a whole tensor is either its Gram matrix (inner products of the models' tensors) or a
magnitude of a given rank (`magnitudes`). Both add up over pieces of a tensor, so a tensor of any size is merged a piece at a
time, and sharded pieces give what whole ones do.

Semantics are mergekit 0.1.5's wherever it has the method (`make test-parity` merges side by side), and the papers' where the
two differ and `MergeConfig` says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Sparsifier = Literal["magnitude", "random", "outliers", "ranked"]
Rescale = Literal["none", "inverse_density", "l1"]

_COLINEAR = 0.9995  # beyond this |cosine| SLERP is a straight line, as in mergekit
_TINY = 1e-8


@dataclasses.dataclass(frozen=True)
class Method:
    """What a method is.

    Attributes:
      base: "none"; "required"; "optional", where with a base what models changed of it is combined and added to it; or "first",
        where the base is one of the two models themselves (SLERP's t = 0).
      sparsifier: of a delta method: what a delta loses. None: nothing.
      elects: of a delta method: whether models that disagree with the elected sign are left out.
      is_delta: whether it is a delta method.
      normalize: by default, whether weights are divided by their sum (with `elects`: by the sum of those that agree).
      rescale: by default, what is done to the entries that a sparsifier keeps.
      uses_angles: whether coefficients follow from the Gram matrix.
      fewest, most: models beside the base.
    """

    base: Literal["none", "required", "optional", "first"] = "none"
    sparsifier: Sparsifier | None = None
    elects: bool = False
    is_delta: bool = False
    normalize: bool = False
    rescale: Rescale = "none"
    uses_angles: bool = False
    fewest: int = 1
    most: int | None = None


def _delta(sparsifier: Sparsifier | None, elects: bool, normalize: bool, rescale: Rescale = "none") -> Method:
    return Method("required", sparsifier, elects, True, normalize, rescale)


METHODS: Mapping[str, Method] = {
    "linear": Method(normalize=True),
    "slerp": Method("first", uses_angles=True, fewest=1, most=1),
    "nuslerp": Method("optional", normalize=True, uses_angles=True, fewest=2, most=2),
    "karcher": Method(normalize=True, uses_angles=True, fewest=2),
    "multislerp": Method("optional", normalize=True, uses_angles=True, fewest=2),
    "model_stock": Method("required", uses_angles=True, fewest=2),
    "task_arithmetic": _delta(None, False, False),
    "ties": _delta("magnitude", True, True),
    "dare_linear": _delta("random", False, False, "inverse_density"),
    "dare_ties": _delta("random", True, False, "inverse_density"),
    "breadcrumbs": _delta("outliers", False, False),
    "breadcrumbs_ties": _delta("outliers", True, False),
    "della": _delta("ranked", True, True, "inverse_density"),
    "della_linear": _delta("ranked", False, False, "inverse_density"),
}
"""By the names of mergekit."""


# Combinations: coefficients -------------------------------------------------------------------------------------------


def linear(weights: Sequence[float], normalize: bool = True) -> np.ndarray:
    """Coefficients [M] of a weighted sum, of weights that are made to sum to one where `normalize` says so.

    Raises:
      ValueError: they sum to zero and are to be normalised.
    """
    found = np.asarray(weights, np.float64)
    if not normalize:
        return found
    if abs(found.sum()) < _TINY:
        raise ValueError("the weights sum to zero, and cannot be made to sum to one")
    return found / found.sum()


def slerp(gram: np.ndarray, t: float) -> np.ndarray:
    """Coefficients [2] of spherical interpolation from the first tensor (t = 0) to the second (Shoemake 1985).

    The angle is between the tensors as vectors; what is interpolated are the tensors, not unit vectors, so that their lengths
    are blended too. A straight line where they are nearly colinear; a tensor of zeros is at a right angle to all others.

    Args:
      gram: float64 [2, 2] inner products.
      t: from 0 to 1.
    """
    cosine = cosines(gram)[0, 1]
    if abs(cosine) > _COLINEAR:
        return np.array([1 - t, t])
    return _along_arc(cosine, t)


def _along_arc(cosine: float, t: float) -> np.ndarray:
    angle = math.acos(cosine)
    return np.array([math.sin((1 - t) * angle), math.sin(t * angle)]) / math.sin(angle)


def nuslerp(gram: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Coefficients [2] of spherical interpolation by weights (mergekit's nuslerp): t is the second's share of their sum, a half
    where they cancel out; a straight line only where the tensors are colinear.

    Args:
      gram: float64 [2, 2] inner products.
      weights: of the two.
    """
    total = weights[0] + weights[1]
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    cosine = cosines(gram)[0, 1]
    if 1 - cosine**2 <= _TINY**2:
        return np.array([1 - t, t])
    return _along_arc(cosine, t)


def karcher(gram: np.ndarray, weights: Sequence[float], *, steps: int = 10, tolerance: float = 1e-5) -> np.ndarray:
    """Coefficients [M] of the weighted mean on the sphere (the point with the least sum of squared angles; Karcher 1977), as
    long as the tensors are on weighted average.

    The mean lies in the span of the unit tensors, so its coefficients and the Gram matrix are all that the iteration needs.

    Args:
      gram: float64 [M, M] inner products.
      weights: of the models; made to sum to one.
      steps: of the iteration, at most.
      tolerance: of the step's angle.
    """
    share = linear(weights)
    lengths = np.sqrt(np.diag(gram))
    there = lengths > tolerance
    if not there.any():
        return share
    inverse = np.where(there, 1 / np.where(there, lengths, 1.0), 0.0)
    units = gram * np.outer(inverse, inverse)
    own = np.where(there, share, 0.0) / share[there].sum()
    mean = (
        own / max(_length(units, own), tolerance)
        if _length(units, own) >= tolerance
        else np.eye(len(own))[there.argmax()]
    )
    for _ in range(steps):
        dots = np.clip(units @ mean, -1.0, 1.0)
        angles = np.arccos(dots)
        stretch = np.where(angles < tolerance, 0.0, own * angles / np.where(angles < tolerance, 1.0, np.sin(angles)))
        tangent = stretch - (stretch @ dots) * mean
        step = _length(units, tangent)
        if step < tolerance:
            break
        mean = math.cos(step) * mean + math.sin(step) * tangent / step
        mean = mean / _length(units, mean)
    return float(share @ lengths) * mean * inverse


def multislerp(gram: np.ndarray, weights: Sequence[float], normalize: bool = True) -> np.ndarray:
    """Coefficients [M] of the weighted mean of the unit tensors, as long as the tensors are on weighted average (mergekit's
    multislerp, which interpolates in the plane that touches the sphere at this mean; there the weighted tensors cancel out).

    Args:
      gram: float64 [M, M] inner products.
      weights: of the models.
      normalize: make them sum to one.

    Raises:
      ValueError: the weighted unit tensors cancel out.
    """
    share, lengths = linear(weights, normalize), np.sqrt(np.diag(gram))
    inverse = 1 / (lengths + _TINY)
    units = gram * np.outer(inverse, inverse)
    mean_length = _length(units, share)
    if mean_length < _TINY:
        if len(share) == 2:
            return share
        raise ValueError("the weighted tensors cancel out: they have no mean direction; choose other weights")
    return float(share @ lengths) * share / mean_length * inverse


def model_stock(gram: np.ndarray) -> np.ndarray:
    """Coefficients [1 + M], the base's first, of Model Stock (Jang et al. 2024, section 4.2).

    t = M cos / (1 + (M - 1) cos), with cos the mean cosine of two deltas; the result is t of the models' average and 1 - t
    of the base.

    Args:
      gram: float64 [M, M] inner products of the deltas.
    """
    count = len(gram)
    lengths = np.sqrt(np.diag(gram))
    products = np.maximum(np.outer(lengths, lengths), 1e-6)
    cosine = float(np.mean(np.clip(gram / products, -1, 1)[np.triu_indices(count, 1)]))
    below = 1 + (count - 1) * cosine
    t = 0.0 if abs(below) < 1e-6 else count * cosine / below
    return np.concatenate([[1 - t], np.full(count, t / count)])


def cosines(gram: np.ndarray) -> np.ndarray:
    """Cosines [M, M] from inner products; 0 with a tensor of zeros."""
    lengths = np.sqrt(np.diag(gram))
    lengths = np.where(lengths > _TINY, lengths, 1.0)
    return np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)


def _length(gram: np.ndarray, coefficients: np.ndarray) -> float:
    return math.sqrt(max(0.0, float(coefficients @ gram @ coefficients)))


def moving_average(decay: float, count: int) -> np.ndarray:
    """Coefficients [count] of an exponential moving average over checkpoints, the oldest first: it starts as the oldest."""
    powers = decay ** np.arange(count - 1, -1, -1, dtype=np.float64)
    return powers * np.where(np.arange(count) == 0, 1.0, 1.0 - decay)


# Delta methods ------------------------------------------------------------------------------------------------------


def settle(deltas: Sequence[jax.Array], weights: jax.Array, *, elects: bool, normalize: bool) -> jax.Array:
    """What sparsified deltas come to together (TIES-Merging: Yadav et al. 2023, section 3.2).

    With `elects`, an entry's sign is that of the weighted sum, positive where that is 0, and only deltas of this sign count.

    Args:
      deltas: of each model, float32, of one shape.
      weights: of each model, float32 [M].
      elects: as in `Method`.
      normalize: divide by the sum of the weights, or with `elects` of the weights that count; 0 divides by 1.
    """
    weighted = [weights[number] * delta for number, delta in enumerate(deltas)]
    if not elects:
        total = sum(weighted[1:], start=weighted[0])
        below = jnp.sum(weights)
        return total / jnp.where(jnp.abs(below) < _TINY, 1.0, below) if normalize else total
    positive = sum(weighted[1:], start=weighted[0]) >= 0
    counts = [(delta > 0) == positive for delta in weighted]
    counts = [count & (delta != 0) for count, delta in zip(counts, weighted, strict=True)]
    total = sum(jnp.where(count, delta, 0.0) for count, delta in zip(counts, weighted, strict=True))
    if not normalize:
        return total
    below = sum(jnp.where(count, weights[number], 0.0) for number, count in enumerate(counts))
    return total / jnp.where(below == 0, 1.0, below)


def keep_probability(ranks: jax.Array, density: jax.Array, epsilon: jax.Array) -> jax.Array:
    """DELLA's chance for each entry to be kept (Deep et al. 2024, section 3): from density - epsilon for the smallest of a row
    to density + epsilon for the largest, by rank.

    Args:
      ranks: of each entry of [R, C] within its row by magnitude, from 0.
      density: the mean chance.
      epsilon: half the range of chances.
    """
    return density - epsilon + ranks.astype(jnp.float32) / max(ranks.shape[-1] - 1, 1) * 2 * epsilon
