"""Splash attention lowered for a TPU that is not here; its values are held to the oracle with all the others'."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from aya_jax.kernels.attention.splash import block_size, splash


@pytest.mark.parametrize(("length", "expected"), [(8192, 512), (768, 256), (1152, 128), (64, None), (1000, None)])
def test_block_size(length, expected):
    assert block_size(length) == expected


@pytest.mark.parametrize(
    ("length", "width", "window", "soft_cap"),
    [(8192, 128, None, None), (8192, 128, 4096, None), (4096, 64, None, None), (2048, 256, None, 50.0)],
)
def test_lowers_for_a_tpu_at_real_shapes(length, width, window, soft_cap):
    function = functools.partial(splash, causal=True, window=window, scale=width**-0.5, soft_cap=soft_cap)

    def loss(query, key, value, segments):
        return function(query, key, value, segment_ids=segments).astype(jnp.float32).sum()

    shapes = [jax.ShapeDtypeStruct((2, length, count, width), jnp.bfloat16) for count in (8, 2, 2)]
    exported = jax.export.export(jax.jit(jax.grad(loss, (0, 1, 2))), platforms=["tpu"])(
        *shapes, jax.ShapeDtypeStruct((2, length), jnp.int32)
    )
    # Forward, the queries' gradient, the keys' and values'.
    assert str(exported.mlir_module()).count("@tpu_custom_call") == 3


@pytest.mark.tpu
@pytest.mark.parametrize("width", [16, 40, 64, 80, 128, 192, 256])
def test_compiles_for_a_v5e(width):
    """With libtpu, whose compiler says whether blocks fit a TPU's memory; no TPU is needed."""
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    place = jax.sharding.SingleDeviceSharding(devices[0])
    function = functools.partial(splash, causal=True, window=1024, scale=width**-0.5, soft_cap=50.0)

    def loss(query, key, value, segments):
        return function(query, key, value, segment_ids=segments).astype(jnp.float32).sum()

    shapes = [jax.ShapeDtypeStruct((1, 2048, count, width), jnp.bfloat16, sharding=place) for count in (8, 2, 2)]
    segments = jax.ShapeDtypeStruct((1, 2048), jnp.int32, sharding=place)
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes, segments).compile()
    assert compiled.as_text().count("tpu_custom_call") >= 3
