"""Side by side with mergekit: its own method objects on the same tensors, to 1e-6.

Two things of mergekit's are set, since they are arbitrary there. Its sums are float32, and those over a million entries are off
by up to 6e-4 of what mergekit itself finds in float64, so where a result hangs on such sums large tensors go to mergekit as
float64. And PyTorch's sort of equal entries is in any order (by the processor it runs on), so that it is made stable.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from aya_jax.merging.methods import METHODS
from aya_jax.merging.tensor import HostBlocks, Settings, merge

pytestmark = pytest.mark.parity

LARGE = (260, 4100)
CASES = [
    ("apart", (1,)), ("equal", (7,)), ("close", (40, 33)), ("apart", (40, 33)), ("equal", (40, 33)), ("same", (40, 33)),
    ("close", LARGE), ("apart", LARGE),
]  # fmt: skip
"""Kinds of models, and shapes."""

WEIGHTS = (0.7, 0.4, 0.9)
DENSITIES = (0.5, 0.3, 0.8)
GAMMAS = (0.02, 0.1, 0.3)
EPSILONS = (0.1, 0.2, 0.15)


def tensors(kind, shape, count=3):
    """A base and models; `close` ones as of tuning, `apart`, `equal` magnitudes in masses, `same`: nothing was changed."""
    rng = np.random.default_rng(len(shape) + sum(shape))
    base = rng.normal(size=shape).astype(np.float32)
    if kind == "same":
        return base, [base.copy() for _ in range(count)]
    if kind == "equal":
        base = rng.integers(-4, 5, shape).astype(np.float32)
        return base, [base + rng.integers(-3, 4, shape).astype(np.float32) / 2 for _ in range(count)]
    spread = {"close": 0.01, "apart": 1.0}[kind]
    return base, [base + spread * rng.normal(size=shape).astype(np.float32) for _ in range(count)]


def ours(method, base, models, names="abc", **numbers):
    """By `tensor.merge`, with mergekit's defaults."""
    rescale = {"inverse_density": "l1"}.get(METHODS[method].rescale, METHODS[method].rescale)
    given = {"weights": WEIGHTS, "normalize": METHODS[method].normalize, "rescale": rescale} | numbers
    by_rows = METHODS[method].sparsifier == "ranked"
    blocks = [HostBlocks(array, by_rows=by_rows) for array in models]
    own = None if base is None else HostBlocks(base, by_rows=by_rows)
    found = merge("w", Settings(method, **given), own, blocks, names=names, seed=0, dtype=np.dtype(np.float32))
    flat = np.concatenate([np.asarray(block).reshape(-1) for block in found])
    return flat[: models[0].size].reshape(models[0].shape)


def mergekits(method, base, models, *, dtype=np.float32, **parameters):
    """By its method of this name."""
    torch = pytest.importorskip("torch")
    groups = pytest.importorskip("mergekit.merge_methods.base")
    registry = pytest.importorskip("mergekit.merge_methods.registry")
    arrays = models if base is None else [base, *models]
    group = groups.TensorGroup.from_tensors(
        [torch.from_numpy(array.astype(dtype)) for array in arrays], base_index=None if base is None else 0
    )
    return registry.get(method)([group], parameters=parameters)[0].numpy()


def equal(found, expected, *, grown=False):
    """To 1e-6; of a result that is `grown`, by weights above 1 or a factor, to 1e-6 of the largest entry."""
    largest = max(1.0, float(np.max(np.abs(expected)))) if grown else 1.0
    np.testing.assert_allclose(found, expected, atol=1e-6 * largest, rtol=2e-7)


def also_in_float64(found, *given, grown=False, **parameters):
    """The same as mergekit in float64, and for all but the largest tensors in float32."""
    equal(found, mergekits(*given, dtype=np.float64, **parameters), grown=grown)
    if found.size < 10_000:
        equal(found, mergekits(*given, **parameters), grown=grown)


@pytest.fixture
def stable_sort(monkeypatch):
    """Equal entries in the tensor's order."""
    torch = pytest.importorskip("torch")
    for name in ("sort", "argsort"):
        monkeypatch.setattr(torch, name, functools.partial(getattr(torch, name), stable=True))


@pytest.mark.parametrize(("kind", "shape"), CASES)
class TestCombinations:
    """Weighted sums."""

    @pytest.mark.parametrize("normalize", [True, False])
    def test_linear(self, shape, kind, normalize):
        _, models = tensors(kind, shape)
        found = ours("linear", None, models, normalize=normalize)
        equal(found, mergekits("linear", None, models, weight=list(WEIGHTS), normalize=normalize))

    @pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
    def test_slerp(self, shape, kind, t):
        base, models = tensors(kind, shape, 1)
        also_in_float64(ours("slerp", base, models, t=t), "slerp", base, models, t=t)

    @pytest.mark.parametrize("with_base", [True, False])
    def test_nuslerp(self, shape, kind, with_base):
        base, models = tensors(kind, shape, 2)
        base = base if with_base else None
        found = ours("nuslerp", base, models, weights=WEIGHTS[:2])
        also_in_float64(found, "nuslerp", base, models, weight=list(WEIGHTS[:2]))

    @pytest.mark.parametrize("normalize", [True, False])
    @pytest.mark.parametrize("with_base", [True, False])
    def test_multislerp(self, shape, kind, with_base, normalize):
        base, models = tensors(kind, shape)
        base = base if with_base else None
        if with_base and (kind == "same" or shape == (1,)):
            pytest.skip("no direction: both refuse, or rounding decides")
        found = ours("multislerp", base, models, normalize=normalize)
        parameters = {"weight": list(WEIGHTS), "normalize_weights": normalize}
        also_in_float64(found, "multislerp", base, models, grown=not normalize, **parameters)

    def test_karcher(self, shape, kind):
        _, models = tensors(kind, shape)
        also_in_float64(ours("karcher", None, models, weights=(1.0, 1.0, 1.0)), "karcher", None, models)

    def test_model_stock(self, shape, kind):
        base, models = tensors(kind, shape)
        also_in_float64(ours("model_stock", base, models), "model_stock", base, models)


@pytest.mark.parametrize(("kind", "shape"), CASES)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "breadcrumbs", "breadcrumbs_ties"])
@pytest.mark.parametrize("turned", [False, True])
def test_sparse_deltas(method, kind, shape, turned, stable_sort):
    """By default, and with everything the other way round."""
    base, models = tensors(kind, shape)
    normalize = METHODS[method].normalize ^ turned
    rescale, scale = ("l1", 1.3) if turned else ("none", 1.0)
    parameters = {"weight": list(WEIGHTS), "density": list(DENSITIES), "normalize": normalize, "lambda": scale}
    parameters |= {"gamma": list(GAMMAS)} if method.startswith("breadcrumbs") else {}
    expected = mergekits(method, base, models, rescale=turned, **parameters)
    numbers = {"densities": DENSITIES, "gammas": GAMMAS, "normalize": normalize, "rescale": rescale, "scale": scale}
    equal(ours(method, base, models, **numbers), expected, grown=turned)


@pytest.mark.parametrize(("kind", "shape"), [case for case in CASES if case[0] != "equal"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
@pytest.mark.parametrize("rescale", ["l1", "none"])
def test_random_deltas_with_the_same_masks(method, kind, shape, rescale, monkeypatch, stable_sort):
    """mergekit draws what we drew, with the chances that it asks for."""
    torch = pytest.importorskip("torch")
    base, models = tensors(kind, shape)
    if method.startswith("della") and shape[-1] == 1:
        return  # mergekit divides 0 by 0 for a row of one entry
    linear = "della_linear" if method.startswith("della") else "dare_linear"
    masks, chances = [], []
    for at, model in enumerate(models):
        numbers = {"densities": DENSITIES[at : at + 1], "epsilons": EPSILONS[at : at + 1], "weights": (1.0,)}
        # of a delta with the same ranks and no zeros
        delta = np.where(model == base, np.float32(1), model - base)
        masks.append(ours(linear, 0 * base, [delta], "abc"[at], rescale="none", **numbers) != 0)

    def drawn(chance):
        mask = torch.from_numpy(masks[len(chances)].astype(np.float32)).reshape(chance.shape)
        chances.append(chance)
        return mask

    monkeypatch.setattr(torch, "bernoulli", drawn)
    parameters = {"weight": list(WEIGHTS), "density": list(DENSITIES), "rescale": rescale == "l1"}
    parameters |= {"epsilon": list(EPSILONS)} if method.startswith("della") else {}
    expected = mergekits(method, base, models, **parameters)
    numbers = {"densities": DENSITIES, "epsilons": EPSILONS, "rescale": rescale}
    equal(ours(method, base, models, **numbers), expected)
    assert len(chances) == 3
    if np.prod(shape) > 1000:
        for mask, chance in zip(masks, chances, strict=True):
            share, error = float(chance.mean()), np.sqrt(0.25 / mask.size)
            assert abs(mask.mean() - share) < 5 * error


def test_della_asks_for_the_same_chances(monkeypatch):
    import jax.numpy as jnp

    from aya_jax.merging.magnitudes import ranks
    from aya_jax.merging.methods import keep_probability

    torch = pytest.importorskip("torch")
    sparsify = pytest.importorskip("mergekit.sparsify")
    asked = []
    monkeypatch.setattr(torch, "bernoulli", lambda chance: asked.append(chance.numpy()) or torch.ones_like(chance))
    for shape in ((7,), (40, 33)):
        delta = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        sparsify.della_magprune(torch.from_numpy(delta), 0.6, 0.2)
        found = keep_probability(ranks(jnp.asarray(np.atleast_2d(delta))), jnp.float32(0.6), jnp.float32(0.2))
        equal(np.asarray(found), asked[-1])


def test_every_method_is_compared():
    compared = Path(__file__).read_text()
    assert all(f'"{name}"' in compared for name in METHODS)
