"""Counting a model's parameters without making them."""

from __future__ import annotations

import dataclasses
import math

import jax

from aya_jax.models.config import TransformerConfig
from aya_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """How many numbers a model learns.

    Attributes:
      total: all of them; a tied table counts once.
      embedding: those of the token table, and of the output head where it is a table of its own.
    """

    total: int
    embedding: int

    @property
    def non_embedding(self) -> int:
        """All but the tables: the count that the Aya 23 paper prints beside the embedding's."""
        return self.total - self.embedding


def shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by its path ("layers/mlp/gate"), in the tree's order; nothing is allocated."""
    leaves = jax.tree_util.tree_leaves_with_path(Transformer(config).shapes())
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def count(config: TransformerConfig) -> ParameterCount:
    """The number of parameters, by shape evaluation."""
    sizes = {name: math.prod(shape) for name, shape in shapes(config).items()}
    tables = sum(size for name, size in sizes.items() if name.endswith("table"))
    return ParameterCount(total=sum(sizes.values()), embedding=tables)
