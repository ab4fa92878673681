"""The Triton kernels step by step on any platform, and lowered for an H200 that is described only."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.kernels.attention.dispatch import by_intervals
from aya_jax.kernels.attention.pallas_gpu import Blocks, pallas_gpu, query_spans
from tests.kernels.attention.oracle import arrays, float32, oracle

INTERPRET = jax.default_backend() != "gpu"


@pytest.mark.parametrize(
    ("heads", "width", "soft_cap", "blocks"),
    [
        ((4, 2), 16, None, Blocks(32, 16, 16, 32, 4)),
        ((3, 1), 48, 2.0, Blocks(16, 32, 32, 16, 4)),
        ((2, 2), 80, None, None),
    ],
)
def test_any_interval_any_tile(heads, width, soft_cap, blocks):
    """Bounds of no mask, empty ones among them; fewer queries than keys; lengths and heads that no tile divides."""
    inputs = arrays(0, 2, 45, 70, *heads, width)
    rng = np.random.default_rng(1)
    first, last = rng.integers(-5, 70, (2, 45)), rng.integers(-5, 80, (2, 45))
    first[:, :16], last[:, :16] = 50, 40
    keys = np.arange(70)
    mask = (first[..., None] <= keys) & (keys <= last[..., None])
    bounds = [jnp.asarray(bound, jnp.int32) for bound in (first, last)]
    options = {"scale": 0.3, "soft_cap": soft_cap}

    @jax.jit
    def values(query, key, value, grad):
        def forward(*args):
            return pallas_gpu(*args, *bounds, blocks=blocks, interpret=INTERPRET, **options)

        output, back = jax.vjp(forward, query, key, value)
        return output, *back(grad)

    for actual, wanted in zip(values(*float32(*inputs)), oracle(*inputs[:3], mask, inputs[3], **options), strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)


@pytest.mark.parametrize("what", ["output", "gradients"])
def test_tiles_outside_the_intervals_are_never_read(what):
    """NaN in keys that no query of a tile sees would spread, through 0 * NaN, if their tile were read."""
    query, key, value, grad = float32(*arrays(2, 1, 32, 96, 2, 1, 16))
    tiles = jnp.arange(96) // 16
    key, value = (
        jnp.where(((tiles == 2) | (tiles == 5))[None, :, None, None], jnp.nan, array) for array in (key, value)
    )
    first = jnp.repeat(jnp.array([0, 48], jnp.int32), 16)[None]
    blocks = Blocks(16, 16, 16, 16, 4)
    output, back = jax.vjp(
        lambda *args: pallas_gpu(
            *args, first, first + 20, scale=1.0, soft_cap=None, blocks=blocks, interpret=INTERPRET
        ),
        query,
        key,
        value,
    )
    for array in (output,) if what == "output" else back(grad):
        assert jnp.isfinite(array).all()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), spread=st.integers(0, 40))
def test_the_queries_of_a_tile_of_keys(seed, spread):
    """Against every pair of tiles: none that meet is left out, and the ends are no wider than those that meet."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 64, (2, 32)).astype(np.int32)
    last = np.minimum(first + rng.integers(-1, spread + 1, first.shape), 63).astype(np.int32)
    first, last = np.where(last < first, 64, first), np.where(last < first, -1, last)
    start, stop = query_spans(jnp.asarray(first), jnp.asarray(last), 8, 16, 64)
    for row in range(2):
        for tile in range(4):
            meets = [
                index
                for index in range(4)
                if first[row, index * 8 : index * 8 + 8].min() // 16
                <= tile
                <= last[row, index * 8 : index * 8 + 8].max() // 16
            ]
            expected = (meets[0], meets[-1] + 1) if meets else (0, 0)
            assert (start[row, tile], stop[row, tile]) == expected


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="lowering for a GPU that is not here needs jax 0.11")
@pytest.mark.parametrize(
    ("length", "heads", "kv_heads", "width", "dtype", "soft_cap"),
    [
        (8192, 32, 8, 128, jnp.bfloat16, None),
        (4096, 16, 4, 64, jnp.bfloat16, None),
        (8192, 8, 4, 256, jnp.bfloat16, 50.0),
        (2048, 12, 4, 80, jnp.float16, None),
        (1000, 6, 2, 160, jnp.float32, 50.0),
    ],
)
def test_lowers_for_an_h200_at_real_shapes(length, heads, kv_heads, width, dtype, soft_cap):
    """Through Triton's own checks (powers of two, types, memory accesses), to its code; the GPU's assembler comes after."""
    function = functools.partial(
        by_intervals(pallas_gpu), causal=True, window=4096, scale=width**-0.5, soft_cap=soft_cap
    )

    def loss(query, key, value, segments):
        return function(query, key, value, segment_ids=segments).astype(jnp.float32).sum()

    shapes = [jax.ShapeDtypeStruct((2, length, count, width), dtype) for count in (heads, kv_heads, kv_heads)]
    segments = jax.ShapeDtypeStruct((2, length), jnp.int32)
    device = jax.sharding.AbstractDevice("NVIDIA H200", 132, "gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), (jax.sharding.AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*shapes, segments)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    # Forward, the queries' gradient, the keys' and values'.
    assert text.count("__gpu$xla.gpu.triton") == 3


@pytest.mark.gpu
@pytest.mark.parametrize("width", [64, 80, 128, 256])
def test_on_a_gpu_and_the_same_bits_twice(width):
    inputs = [jnp.asarray(array, jnp.bfloat16) for array in arrays(3, 2, 500, 500, 8, 2, width)]
    first = jnp.broadcast_to(jnp.maximum(jnp.arange(500, dtype=jnp.int32) - 200, 0), (2, 500))
    last = jnp.broadcast_to(jnp.arange(500, dtype=jnp.int32), (2, 500))

    @jax.jit
    def values(query, key, value, grad):
        forward = functools.partial(pallas_gpu, scale=width**-0.5, soft_cap=None)
        output, back = jax.vjp(lambda *args: forward(*args, first, last), query, key, value)
        return output, *back(grad)

    results = values(*inputs)
    keys = np.arange(500)
    mask = (np.asarray(first)[..., None] <= keys) & (keys <= np.asarray(last)[..., None])
    exact = [np.asarray(array, np.float64) for array in inputs]
    for actual, wanted in zip(results, oracle(*exact[:3], mask, exact[3]), strict=True):
        assert np.abs(np.asarray(actual, np.float64) - wanted).max() < 0.02 * np.abs(wanted).max()
    for one, two in zip(results, values(*inputs), strict=True):
        np.testing.assert_array_equal(one, two)
