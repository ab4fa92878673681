"""The decoder's parameters as Flax Linen modules: shapes, starting values and the logical names of their dims.

The modules declare; `layers.py` computes. Layers are stacked: every parameter of a layer has a leading `layers` dim,
whatever the model's pattern of layer kinds, so that checkpoints, merging and conversion see one layout.

Matrices start from a normal distribution of standard deviation `initializer_range` (as Cohere's, Llama's and GPT-2's
configurations do), norm weights from one.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aya_jax.models.config import TransformerConfig


class _Declares(nn.Module):
    """A module that holds parameters and no computation."""

    config: TransformerConfig
    dtype: jnp.dtype

    def matrix(self, name: str, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> jax.Array:
        return self._param(name, nn.initializers.normal(self.config.initializer_range), shape, axes)

    def scale(self, name: str, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> jax.Array:
        return self._param(name, nn.initializers.ones_init(), shape, axes)

    def _param(self, name: str, init: Callable, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> jax.Array:
        return self.param(name, nn.with_logical_partitioning(init, axes), shape, self.dtype)


class Table(_Declares):
    """A row per token: [V, D]."""

    @nn.compact
    def __call__(self) -> None:
        self.matrix("table", (self.config.vocab_size, self.config.embed_dim), ("vocab", "embed"))


class Norm(_Declares):
    """A weight per channel; `heads` gives one per channel of each head, of every layer.

    Attributes:
      shape: of the weight.
      axes: logical names of its dims.
    """

    shape: tuple[int, ...] = ()
    axes: tuple[str | None, ...] = ()

    @nn.compact
    def __call__(self) -> None:
        self.scale("scale", self.shape, self.axes)


class Attention(_Declares):
    """Projections of all layers: query [L, D, H, hd], key and value [L, D, KV, hd], output [L, H, hd, D]."""

    @nn.compact
    def __call__(self) -> None:
        c = self.config
        layers, width, head = c.num_layers, c.embed_dim, c.head_dim
        self.matrix("query", (layers, width, c.num_heads, head), ("layers", "embed", "heads", "head_dim"))
        self.matrix("key", (layers, width, c.num_kv_heads, head), ("layers", "embed", "kv_heads", "head_dim"))
        self.matrix("value", (layers, width, c.num_kv_heads, head), ("layers", "embed", "kv_heads", "head_dim"))
        self.matrix("output", (layers, c.num_heads, head, width), ("layers", "heads", "head_dim", "embed"))
        if c.qk_norm:
            shape = (layers, c.num_heads, head)
            Norm(c, self.dtype, shape, ("layers", "heads", "head_dim"), name="query_norm")()
            shape = (layers, c.num_kv_heads, head)
            Norm(c, self.dtype, shape, ("layers", "kv_heads", "head_dim"), name="key_norm")()


class FeedForward(_Declares):
    """Projections of all layers: gate and up [L, D, F], down [L, F, D]."""

    @nn.compact
    def __call__(self) -> None:
        c = self.config
        self.matrix("gate", (c.num_layers, c.embed_dim, c.mlp_dim), ("layers", "embed", "mlp"))
        self.matrix("up", (c.num_layers, c.embed_dim, c.mlp_dim), ("layers", "embed", "mlp"))
        self.matrix("down", (c.num_layers, c.mlp_dim, c.embed_dim), ("layers", "mlp", "embed"))


class Layers(_Declares):
    """All layers, stacked."""

    @nn.compact
    def __call__(self) -> None:
        c = self.config
        # Norm weights are small: whole on every device rather than gathered over `embed`'s mesh axes at each use.
        shape, axes = (c.num_layers, c.embed_dim), ("layers", None)
        for name in ("norm",) if c.block == "parallel" else ("attention_norm", "mlp_norm"):
            Norm(c, self.dtype, shape, axes, name=name)()
        Attention(c, self.dtype, name="attention")()
        FeedForward(c, self.dtype, name="mlp")()


class Decoder(_Declares):
    """Every parameter of the model."""

    @nn.compact
    def __call__(self) -> None:
        c = self.config
        Table(c, self.dtype, name="embedding")()
        Layers(c, self.dtype, name="layers")()
        Norm(c, self.dtype, (c.embed_dim,), (None,), name="final_norm")()
        if not c.tie_embeddings:
            Table(c, self.dtype, name="head")()
