"""FLOPs per token against hand-counted matrix products."""

from __future__ import annotations

import dataclasses

import pytest

from aya_jax.models import flops
from aya_jax.models.config import TransformerConfig

SMALL = TransformerConfig(
    vocab_size=64, embed_dim=32, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48
)


def counted(config, length, keys_per_query):
    """Three times the forward pass's multiplications and additions, with `keys_per_query` keys on average per layer."""
    width, heads = config.embed_dim, config.num_heads * config.head_dim
    projections = 2 * width * (2 * heads + 2 * config.num_kv_heads * config.head_dim + 3 * config.mlp_dim)
    attention = sum(2 * 2 * heads * keys for keys in keys_per_query)
    head = 2 * width * config.vocab_size
    return 3 * (config.num_layers * projections + attention + head)


def norms(config):
    """The formula counts norm weights as parameters of a matrix product."""
    return 6 * (config.num_layers + 1) * config.embed_dim


def test_causal():
    expected = counted(SMALL, 512, [512 / 2] * 4) + norms(SMALL)
    assert flops.per_token(SMALL, 512) == expected


def test_an_untied_input_table_does_no_arithmetic():
    assert flops.per_token(dataclasses.replace(SMALL, tie_embeddings=False), 512) == flops.per_token(SMALL, 512)


def test_window():
    config = dataclasses.replace(SMALL, sliding_window=128, sliding_window_pattern=4)
    exact = sum(min(q + 1, 128) for q in range(512)) / 512
    assert flops.attended(config, 512)[0] / 2 == pytest.approx(exact, rel=5e-3)
    expected = counted(config, 512, [flops.attended(config, 512)[0] / 2] * 3 + [256]) + norms(config)
    assert flops.per_token(config, 512) == expected
    assert flops.attended(config, 64) == (64.0,) * 4


def test_the_roofline_page():
    """54.6 GFLOP per token for Aya 8B at 8,192: 6 x 8.03e9 + 6 x 32 x 8,192 x 4,096 (own arithmetic)."""
    config = TransformerConfig(
        vocab_size=256_000, embed_dim=4096, num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128, mlp_dim=14336
    )
    assert flops.per_token(config, 8192) == pytest.approx(54.6e9, rel=1e-3)
