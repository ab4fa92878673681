"""The pieces of a layer against closed forms in float64."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.models import layers
from aya_jax.models.config import TransformerConfig

CONFIG = TransformerConfig(
    vocab_size=64, embed_dim=32, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48
)


def angles(positions, config=CONFIG):
    """float64 [S, hd / 2] by the definition."""
    return np.asarray(positions)[:, None] * config.rope_theta ** (
        -2 * np.arange(config.head_dim // 2) / config.head_dim
    )


def rotate_pairs(vector, angle):
    """Multiplies the complex numbers (v0 + i v1), (v2 + i v3)... by e^(i angle)."""
    turned = (vector[..., 0::2] + 1j * vector[..., 1::2]) * np.exp(1j * angle)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(vector.shape)


def test_interleaved_scores_equal_complex_rotation():
    """Reordered to halves, queries and keys give the scores that rotating neighbouring pairs gives."""
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 5, 8))
    positions = np.array([0, 1, 2, 7, 100])
    expected = rotate_pairs(query, angles(positions)) @ rotate_pairs(key, angles(positions)).T
    turn = layers.rotation(CONFIG, jnp.asarray(positions, jnp.int32)[None])

    def ours(array):
        heads = layers.pairs_to_halves(jnp.asarray(array, jnp.float32))[None, :, None]
        return np.asarray(layers.rotate(heads, turn))[0, :, 0]

    np.testing.assert_allclose(ours(query) @ ours(key).T, expected, atol=2e-4)


def test_half_layout_rotates_i_with_i_plus_half():
    rng = np.random.default_rng(1)
    heads = rng.normal(size=(1, 3, 1, 8))
    turn = layers.rotation(CONFIG, jnp.array([[3, 4, 5]], jnp.int32))
    actual = np.asarray(layers.rotate(jnp.asarray(heads, jnp.float32), turn))[0, :, 0]
    turned = (heads[0, :, 0, :4] + 1j * heads[0, :, 0, 4:]) * np.exp(1j * angles([3, 4, 5]))
    np.testing.assert_allclose(actual, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-5)


def test_interleaved_and_half_differ_unless_reordered():
    heads = jnp.arange(16, dtype=jnp.float32).reshape(1, 2, 1, 8)
    turn = layers.rotation(CONFIG, jnp.array([[1, 2]], jnp.int32))
    scores = [np.einsum("bshd,bthd->st", r, r) for r in (layers.rotate(heads, turn),)]
    pairs = layers.rotate(layers.pairs_to_halves(heads), turn)
    assert np.abs(scores[0] - np.einsum("bshd,bthd->st", pairs, pairs)).max() > 1


def test_scores_depend_on_distance_only():
    rng = np.random.default_rng(2)
    heads = jnp.asarray(rng.normal(size=(1, 6, 1, 8)), jnp.float32)

    def scores(offset):
        turn = layers.rotation(CONFIG, jnp.arange(6, dtype=jnp.int32)[None] + offset)
        turned = layers.rotate(heads, turn)[0, :, 0]
        return turned @ turned.T

    np.testing.assert_allclose(scores(0), scores(500), atol=2e-3)


def test_llama3_scaling_at_both_ends():
    """Long wavelengths are stretched by the factor, short ones kept, and in between it falls monotonically."""
    config = dataclasses.replace(CONFIG, head_dim=128, rope_theta=500_000.0, rope_scaling="llama3")
    plain = layers.rope_frequencies(dataclasses.replace(config, rope_scaling="none"))
    ratio = plain / layers.rope_frequencies(config)
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(ratio[wavelength < 8192 / 4], 1.0)
    np.testing.assert_allclose(ratio[wavelength > 8192 / 1], 8.0)
    assert np.all(np.diff(ratio) >= -1e-12)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_norm(name, dtype):
    rng = np.random.default_rng(3)
    inputs = jnp.asarray(rng.normal(3.0, 2.0, size=(2, 5, 32)), dtype)
    scale = jnp.asarray(rng.uniform(0.5, 1.5, 32), jnp.float32)
    values = np.asarray(inputs, np.float64)
    if name == "layer_norm":
        values = values - values.mean(-1, keepdims=True)
    expected = values / np.sqrt((values**2).mean(-1, keepdims=True) + 1e-5) * np.asarray(scale)
    actual = layers.norm(dataclasses.replace(CONFIG, norm=name), scale, inputs)
    assert actual.dtype == dtype
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, atol=1e-5 if dtype == jnp.float32 else 0.02)


def test_norm_is_float32_inside():
    """A large mean would swamp the variance in bfloat16 arithmetic."""
    inputs = jnp.asarray(256 + np.arange(32)[None] % 2 * 2.0, jnp.bfloat16)
    actual = layers.norm(CONFIG, jnp.ones(32), inputs)
    np.testing.assert_allclose(np.abs(np.asarray(actual, np.float32)), 1.0, atol=0.01)


def test_layer_kinds():
    full = layers.LayerKind(None, True)
    assert layers.layer_kinds(CONFIG) == (full,)
    local = layers.LayerKind(8, True)
    assert layers.layer_kinds(dataclasses.replace(CONFIG, sliding_window=8)) == (local,)
    cohere2 = dataclasses.replace(CONFIG, sliding_window=8, sliding_window_pattern=4, rope_on_full_layers=False)
    assert layers.layer_kinds(cohere2) == (local, local, local, layers.LayerKind(None, False))
