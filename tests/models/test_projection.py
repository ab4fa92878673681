"""Quantized products against NumPy that rounds the same operands, and a model that learns with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.projection import project
from aya_jax.models.transformer import Transformer

EQUATION = "bsd,dhk->bshk"


def operands():
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 8, 64)), rng.standard_normal((64, 4, 16)) / 8


def int8_rows(rng, shape, contracted):
    """Rows along the contracted dim, and what they are once rounded: whole multiples of their largest entry / 127.5."""
    whole = rng.integers(-120, 121, shape).astype(np.float64)
    exact = whole + 0.25
    largest = [slice(None)] * len(shape)
    largest[contracted] = 0
    exact[tuple(largest)], whole[tuple(largest)] = 127.5, 127  # 128 is no int8
    scale = rng.uniform(0.5, 2.0, [1 if dim == contracted else size for dim, size in enumerate(shape)])
    return exact * scale, whole * scale


def test_int8_is_the_product_of_rounded_operands():
    rng = np.random.default_rng(0)
    inputs, rounded_inputs = int8_rows(rng, (2, 8, 64), 2)
    weight, rounded_weight = int8_rows(rng, (64, 4, 16), 0)
    found = project(PrecisionConfig(matmul="int8"), EQUATION, jnp.float32(inputs), jnp.float32(weight))
    expected = np.einsum(EQUATION, rounded_inputs, rounded_weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.max(np.abs(expected)))
    assert np.max(np.abs(found - np.einsum(EQUATION, inputs, weight))) > 100, "nothing was rounded"


@pytest.mark.parametrize(("matmul", "least"), [("int8", 0.9995), ("fp8", 0.997)])
def test_gradients_point_where_exact_ones_do(matmul, least):
    inputs, weight = (jnp.float32(array) for array in operands())

    def loss(precision, inputs, weight):
        return jnp.sum(jnp.sin(project(precision, EQUATION, inputs, weight)))

    exact = jax.grad(loss, argnums=(1, 2))(PrecisionConfig(), inputs, weight)
    found = jax.grad(loss, argnums=(1, 2))(PrecisionConfig(matmul=matmul), inputs, weight)
    for a, b in zip(found, exact, strict=True):
        cosine = jnp.vdot(a, b) / jnp.linalg.norm(a) / jnp.linalg.norm(b)
        assert least < cosine < 1 - 1e-7


@pytest.mark.parametrize(("matmul", "dtype"), [("int8", "i8"), ("fp8", "f8E4M3FN")])
def test_products_run_in_the_narrow_format(matmul, dtype):
    """By the program that is compiled: both operands of the product, forward and backward."""
    config = TransformerConfig(
        vocab_size=32, embed_dim=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24
    )
    model = Transformer(config, PrecisionConfig(compute="bfloat16", matmul=matmul, unroll=1, remat="full"))
    batch = {"tokens": jnp.zeros((1, 8), jnp.int32), "targets": jnp.ones((1, 8), jnp.int32)}
    gradient = jax.jit(jax.grad(lambda params: -jnp.mean(model(params, batch).log_probs)))
    text = gradient.lower(model.init(jax.random.key(0))).as_text()
    narrow = [line for line in text.splitlines() if "dot_general" in line and line.count(f"x{dtype}>") >= 2]
    assert len(narrow) >= 7 * 3  # seven products of a layer: forward, and two backward
