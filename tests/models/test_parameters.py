"""Parameter counts of the shipped models against published numbers."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from aya_jax.config import resolve
from aya_jax.models import parameters
from aya_jax.models.config import DescribeConfig

MODELS = Path(__file__).parents[2] / "gin" / "models"
SHIPPED = sorted(path.stem for path in MODELS.glob("*.gin") if path.stem != "base_cohere")


@functools.cache
def model(name):
    return resolve(DescribeConfig, [MODELS / f"{name}.gin"]).config.model


# (all, embedding): the Aya 23 paper prints 6,979,457,024 and 32,883,679,232 beside the embeddings; the Llama 3.1 8B
# card's checkpoint has 8,030,261,248.
PUBLISHED = {
    "aya_23_8b": (8_028_033_024, 1_048_576_000),
    "aya_23_35b": (34_980_831_232, 2_097_152_000),
    "aya_expanse_8b": (8_028_033_024, 1_048_576_000),
    "aya_expanse_32b": (32_296_476_672, 2_097_152_000),
    "command_r7b": (8_028_033_024, 1_048_576_000),
    "llama3_8b": (8_030_261_248, 2 * 128_256 * 4096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    count = parameters.count(model(name))
    assert (count.total, count.embedding) == PUBLISHED[name]


def test_the_counts_that_the_paper_prints():
    assert parameters.count(model("aya_23_8b")).non_embedding == 6_979_457_024
    assert parameters.count(model("aya_23_35b")).non_embedding == 32_883_679_232


@pytest.mark.parametrize("name", SHIPPED)
def test_shape_evaluation_equals_the_formula(name):
    """L (2 D H hd + 2 D KV hd + 3 D F) + (L + 1) D + V D for Cohere; Llama has a second norm and a second table."""
    c = model(name)
    attention = 2 * c.embed_dim * c.head_dim * (c.num_heads + c.num_kv_heads)
    norms = 1 if c.block == "parallel" else 2
    layers = c.num_layers * (attention + 3 * c.embed_dim * c.mlp_dim + norms * c.embed_dim) + c.embed_dim
    tables = c.vocab_size * c.embed_dim * (1 if c.tie_embeddings else 2)
    count = parameters.count(c)
    assert (count.non_embedding, count.embedding) == (layers, tables)


def test_our_own_sizes_are_of_the_class_they_are_named_for():
    assert parameters.count(model("470m")).total == pytest.approx(470e6, rel=0.02)
    assert parameters.count(model("2_8b")).total == pytest.approx(2.8e9, rel=0.03)
    assert parameters.count(model("25m")).total == pytest.approx(25e6, rel=0.1)


def test_shapes_are_named_by_path():
    shapes = parameters.shapes(model("aya_23_8b"))
    assert shapes["layers/attention/key"] == (32, 4096, 8, 128)
    assert shapes["embedding/table"] == (256_000, 4096)
