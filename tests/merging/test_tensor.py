"""Merged tensors against whole ones in NumPy's float64, and what must not change them: blocks, order, devices."""

from __future__ import annotations

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh

from aya_jax.merging.methods import METHODS, model_stock
from aya_jax.merging.tensor import HostBlocks, Settings, gram, merge
from tests import eight_devices

SHAPE = (300, 4100)  # two blocks, the second of them not full
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DELTA_METHODS = [name for name, about in METHODS.items() if about.is_delta]
RANDOM = [name for name in DELTA_METHODS if METHODS[name].sparsifier in ("random", "ranked")]


def tensors(count=3, shape=SHAPE, seed=0, spread=0.3, dtype=np.float32):
    """A base, and models near it."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape).astype(np.float32)
    models = [base + spread * rng.normal(size=shape).astype(np.float32) for _ in range(count)]
    return base.astype(dtype), [model.astype(dtype) for model in models]


def about(method, count, **given_):
    """The method's defaults."""
    weights = given_.pop("weights", tuple(np.linspace(0.4, 0.9, count)))
    numbers = {"densities": (0.6,) * count, "gammas": (0.05,) * count, "epsilons": (0.2,) * count}
    default = {"normalize": METHODS[method].normalize, "rescale": METHODS[method].rescale}
    return Settings(method, weights, **numbers | default | given_)


def merged(chosen, base, models, *, name="w", names="abcdef", seed=0, dtype=np.float32, mesh=None):
    """The whole tensor."""
    by_rows = chosen.about.sparsifier == "ranked"
    blocks = [HostBlocks(array, mesh, by_rows=by_rows) for array in ([] if base is None else [base]) + models]
    own, theirs = (None, blocks) if base is None else (blocks[0], blocks[1:])
    found = merge(name, chosen, own, theirs, names=names, seed=seed, dtype=np.dtype(dtype))
    flat = np.concatenate([np.empty(0, dtype), *[np.asarray(block).reshape(-1) for block in found]])
    shape = models[0].shape
    return flat[: models[0].size].reshape(shape)


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


# Against float64 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_linear_adds_in_float32_whatever_the_inputs_are(dtype):
    _, models = tensors(dtype=dtype)
    found = merged(about("linear", 3, weights=(1.0, 2.0, 4.0)), None, models)
    one, two, three = wide(*models)
    np.testing.assert_allclose(found, (one + 2 * two + 4 * three) / 7, atol=1e-6)


def test_the_result_is_rounded_once():
    """bfloat16 of a float64 sum, but where that is within float32's rounding of half way."""
    _, models = tensors(dtype=BFLOAT16)
    found = merged(about("linear", 3), None, models, dtype=BFLOAT16)
    share = np.linspace(0.4, 0.9, 3) / np.linspace(0.4, 0.9, 3).sum()
    expected = sum(part * model for part, model in zip(share, wide(*models), strict=True)).astype(np.float32)
    assert found.dtype == BFLOAT16
    assert np.mean(found != expected.astype(BFLOAT16)) < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_inner_products_are_float64s(dtype):
    base, models = tensors(dtype=dtype)
    blocks = [HostBlocks(model) for model in models]
    for origin in (None, base):
        shift = 0.0 if origin is None else origin.astype(np.float64)
        whole = np.stack([(model - shift).reshape(-1) for model in wide(*models)])
        found = gram(blocks, None if origin is None else HostBlocks(origin))
        lengths = np.linalg.norm(whole, axis=1)
        np.testing.assert_allclose(
            found / np.outer(lengths, lengths), whole @ whole.T / np.outer(lengths, lengths), atol=2e-7
        )


def test_slerp_of_a_whole_tensor():
    base, (model,) = tensors(1, spread=1.0)
    found = merged(about("slerp", 1, t=0.3), base, [model])
    one, other = wide(base.reshape(-1), model.reshape(-1))
    angle = np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    expected = (np.sin(0.7 * angle) * one + np.sin(0.3 * angle) * other) / np.sin(angle)
    np.testing.assert_allclose(found.reshape(-1), expected, atol=2e-6)
    np.testing.assert_array_equal(merged(about("slerp", 1, t=0.0), base, [model]), base)
    np.testing.assert_array_equal(merged(about("slerp", 1, t=1.0), base, [model]), model)


@pytest.mark.parametrize("method", ["nuslerp", "multislerp"])
def test_around_a_base_deltas_are_combined(method):
    """What a shift of all tensors does not change is the delta that is found."""
    base, models = tensors(2)
    without = merged(about(method, 2), None, [model - base for model in models])
    np.testing.assert_allclose(merged(about(method, 2), base, models), base + without, atol=2e-6)


def test_model_stock_lies_between_the_base_and_the_average():
    base, models = tensors(3)
    found = merged(about("model_stock", 3), base, models)
    deltas = np.stack([(model - wide(base)[0]).reshape(-1) for model in wide(*models)])
    share = model_stock(deltas @ deltas.T)
    np.testing.assert_allclose(found.reshape(-1), base.reshape(-1) + share[1:] @ deltas, atol=2e-6)


def trimmed(delta, density):
    flat = np.zeros(delta.size)
    kept = np.argsort(-np.abs(delta.reshape(-1)), kind="stable")[: max(1, int(density * delta.size))]
    flat[kept] = delta.reshape(-1)[kept]
    return flat.reshape(delta.shape)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_ties_of_a_whole_tensor(dtype):
    base, models = tensors(dtype=dtype)
    weights, densities = (0.5, 1.0, 0.8), (0.2, 0.5, 0.9)
    found = merged(about("ties", 3, weights=weights, densities=densities, scale=1.5), base, models)
    deltas = [trimmed(np.float32(model) - np.float32(base), d) for model, d in zip(models, densities, strict=True)]
    weighted = np.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)])
    sign = np.where(weighted.sum(0) >= 0, 1, -1)
    agree = np.sign(weighted) == sign
    below = (np.array(weights)[:, None, None] * agree).sum(0)
    expected = base.astype(np.float64) + 1.5 * (weighted * agree).sum(0) / np.where(below == 0, 1, below)
    unsure = np.abs(weighted.sum(0)) < 1e-6  # whose sign rounding decides
    np.testing.assert_allclose(found[~unsure], expected[~unsure], atol=2e-6)
    assert unsure.mean() < 0.2


@pytest.mark.parametrize("method", DELTA_METHODS)
@pytest.mark.parametrize("shape", [(3,), (5, 7), SHAPE])
def test_one_model_of_density_1_is_the_model(method, shape):
    base, (model,) = tensors(1, shape)
    found = merged(about(method, 1, weights=(1.0,), densities=(1.0,)), base, [model])
    np.testing.assert_allclose(found, model, atol=1e-6)


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("shape", [(), (1,), (0, 4), (1, 1), (4097,)])
def test_tensors_of_any_size_are_merged(method, shape):
    base, models = tensors(METHODS[method].most or 2, shape)
    base, models = np.asarray(base), [np.asarray(model) for model in models]
    own = base if METHODS[method].base in ("required", "first") else None
    found = merged(about(method, len(models)), own, models)
    assert found.shape == shape
    assert np.isfinite(found).all()


# Sparsity ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.floats(0.01, 0.99), st.floats(0, 0.6), st.integers(0, 1000))
def test_breadcrumbs_keep_their_count_with_equals(entries, density, gamma, seed):
    """Of magnitudes 1 to 3: a stable sort from the smallest on, without its end and its beginning."""
    delta = np.random.default_rng(seed).choice(np.array([-3, -2, -1, 1, 2, 3], np.float32), entries)
    found = merged(about("breadcrumbs", 1, weights=(1.0,), densities=(density,), gammas=(gamma,)), 0 * delta, [delta])
    order = np.argsort(np.abs(delta), kind="stable")
    kept, dropped = int(density * entries), int(gamma * entries)
    bottom = max(0, entries - kept - dropped)
    expected = np.zeros_like(delta)
    expected[order[bottom : bottom + kept]] = delta[order[bottom : bottom + kept]]
    np.testing.assert_array_equal(found, expected)


def test_ties_keep_one_entry_at_the_least():
    delta = np.array([1.0, -3.0, 2.0], np.float32)
    found = merged(about("ties", 1, weights=(1.0,), densities=(0.01,)), 0 * delta, [delta])
    np.testing.assert_array_equal(found, [0, -3, 0])


def test_dare_is_unbiased():
    """Over seeds each entry is kept with the density's chance, and the mean is the delta: within five standard errors."""
    seeds, density = 250, 0.3
    base, models = tensors(1, (50,), spread=1.0)
    delta = (models[0] - base).astype(np.float64)
    chosen = about("dare_linear", 1, weights=(1.0,), densities=(density,))
    found = np.stack([merged(chosen, base, models, seed=seed) - base for seed in range(seeds)])
    kept = found != 0
    np.testing.assert_allclose(found[kept], np.broadcast_to(delta, kept.shape)[kept] / density, atol=1e-5)
    error = np.sqrt(density * (1 - density) / seeds)
    assert np.abs(kept.mean(0) - density).max() < 5 * error
    assert np.abs(found.mean(0) - delta).max() < 5 * error / density * np.abs(delta).max()
    assert abs(kept.mean() - density) < 5 * error / np.sqrt(kept.shape[1])
    apart = np.corrcoef(kept.T)[np.triu_indices(kept.shape[1], 1)]
    assert np.abs(apart).max() < 5 / np.sqrt(seeds)  # entries are kept independently


def test_della_is_unbiased_and_prefers_large_entries():
    seeds, density, epsilon = 250, 0.5, 0.3
    delta = np.arange(1.0, 41, dtype=np.float32)
    chosen = about("della_linear", 1, weights=(1.0,), densities=(density,), epsilons=(epsilon,))
    found = np.stack([merged(chosen, 0 * delta, [delta], seed=seed) for seed in range(seeds)])
    chance = np.linspace(density - epsilon, density + epsilon, 40)
    error = np.sqrt(chance * (1 - chance) / seeds)
    assert np.all(np.abs((found != 0).mean(0) - chance) < 5 * error)
    assert np.all(np.abs(found.mean(0) - delta) < 5 * error / chance * delta)


@pytest.mark.parametrize("method", ["dare_linear", "ties", "breadcrumbs", "della_linear"])
def test_rescaling_by_l1_keeps_the_norm(method):
    base, models = tensors(1, SHAPE if method == "ties" else (30, 50))
    chosen = about(method, 1, weights=(1.0,), rescale="l1", normalize=False)
    found = merged(chosen, 0 * base, [models[0] - base]).astype(np.float64)
    assert 0.5 < np.mean(found != 0) < 0.7
    assert np.abs(found).sum() == pytest.approx(np.abs((models[0] - base).astype(np.float64)).sum(), rel=1e-6)


# What does not change a merge ----------------------------------------------------------------------------------------------


def zeros_of(method, base, models, **how):
    """Where the merged delta is exactly 0."""
    return merged(about(method, len(models), **how.pop("numbers", {})), base, models, **how) == 0


@pytest.mark.parametrize("method", RANDOM)
def test_masks_follow_from_seed_tensor_and_model(method):
    base, models = tensors(1, (30, 50))
    delta = [models[0] - base]
    first = zeros_of(method, 0 * base, delta)
    for other in ({"seed": 1}, {"name": "v"}, {"names": "b"}):
        assert np.mean(first != zeros_of(method, 0 * base, delta, **other)) > 0.3
    np.testing.assert_array_equal(first, zeros_of(method, 0 * base, delta))


def test_a_mask_does_not_depend_on_the_tensor_s_values_or_its_other_blocks():
    base, models = tensors(2)
    first, second = (zeros_of("dare_linear", 0 * base, [model], names="a") for model in models)
    np.testing.assert_array_equal(first, second)
    longer = np.concatenate([models[0], models[1]])  # the first block is full in both
    found = zeros_of("dare_linear", 0 * longer, [longer]).reshape(-1)
    np.testing.assert_array_equal(found[: 256 * 4096], first.reshape(-1)[: 256 * 4096])
    assert np.mean(found[256 * 4096 :][: first.size - 256 * 4096] != found[: first.size - 256 * 4096]) > 0.3


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"slerp"}))
@settings(deadline=None, max_examples=4)
@given(st.permutations([0, 1, 2, 3]), st.integers(0, 100))
def test_the_order_of_models_changes_nothing(method, order, seed):
    count = METHODS[method].most or 4
    order = [number for number in order if number < count]
    base, models = tensors(count, (9, 13), seed)
    own = base if METHODS[method].base == "required" else None
    numbers = {
        "weights": tuple(np.linspace(0.4, 0.9, count)), "densities": tuple(np.linspace(0.4, 0.7, count)),
        "gammas": tuple(np.linspace(0.0, 0.2, count)), "epsilons": tuple(np.linspace(0.1, 0.2, count)),
    }  # fmt: skip
    turned = {name: tuple(values[number] for number in order) for name, values in numbers.items()}
    names = [f"model {number}" for number in range(count)]
    first = merged(about(method, count, **numbers), own, models, names=names)
    second = merged(about(method, count, **turned), own, [models[n] for n in order], names=[names[n] for n in order])
    np.testing.assert_allclose(second, first, atol=2e-6)


def test_eight_devices_merge_as_one():
    eight_devices.run("-c", "from tests.merging.test_tensor import on_eight; on_eight()")


def on_eight():
    """Run by the test above with eight emulated devices: the same masks, and sums within rounding."""
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("fsdp", "tensor"))
    assert mesh.size == 8
    base, models = tensors(2, (5, 4104))
    for method in ("linear", "multislerp"):
        whole = merged(about(method, 2), None, models)
        np.testing.assert_allclose(merged(about(method, 2), None, models, mesh=mesh), whole, atol=1e-6, err_msg=method)
    for method in ("ties", "breadcrumbs_ties", "dare_linear", "della"):
        chosen = about(method, 2, rescale="l1")
        whole = merged(chosen, 0 * base, models)
        divided = merged(chosen, 0 * base, models, mesh=mesh)
        np.testing.assert_allclose(divided, whole, atol=1e-6, err_msg=method)
        np.testing.assert_array_equal(divided == 0, whole == 0, err_msg=method)
        assert (whole == 0).any(), method
