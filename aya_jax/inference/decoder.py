"""The model over a cache: the same layers as in training, with attention to what was kept of the tokens before.

Parameters are laid out for it once (`lay_out`): layers apart instead of stacked, since a program that takes one layer's part
of a stacked array for each token copies it, and rotation in halves, so that no weight is reordered for each token.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from aya_jax.config import UserError
from aya_jax.kernels.attention.cached import CACHE_DIMS, cache_size, cached_attention, empty
from aya_jax.kernels.embedding import lookup
from aya_jax.models import layers
from aya_jax.models.config import TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes, as_tuple
from aya_jax.parallel.mesh import platform
from aya_jax.parallel.sharding import named_shardings, partition_spec

Cache = tuple[tuple[jax.Array, jax.Array], ...]
"""Keys and values of each layer, as `cached.empty` gives them; the number of blocks N is the layer's own."""


class Tokens(NamedTuple):
    """Tokens that go through the model together.

    Attributes:
      ids: int32 [R, Q].
      positions: int32 [R, Q], ascending by one along a row.
      valid: bool [R, Q]; the rest is padding behind the tokens.
      rows: int32 [R], the cache's sequences that they belong to, as in `cached_attention`; None: all, in order.
    """

    ids: jax.Array
    positions: jax.Array
    valid: jax.Array
    rows: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A model as the engine runs it: a value, to be closed over by jitted functions.

    Attributes:
      config: the model's, with rotation in halves.
      model: the model in training's layout.
      rules: which mesh axes split which dims; a token's position is never split.
    """

    config: TransformerConfig
    model: Transformer
    rules: LogicalAxes

    @classmethod
    def of(cls, model: Transformer) -> Decoder:
        """The decoder of a model.

        Raises:
          UserError: the model's mesh splits sequences.
        """
        mesh = jax.sharding.get_abstract_mesh()
        if not mesh.empty and mesh.shape["context"] > 1:
            raise UserError("MeshConfig.context: generation does not split sequences; bind MeshConfig.tensor instead")
        rules = dataclasses.replace(model.rules, sequence=None, residual=None)
        return cls(dataclasses.replace(model.config, rope_layout="half"), model, rules)

    @property
    def kinds(self) -> tuple[layers.LayerKind, ...]:
        """Of every layer."""
        period = layers.layer_kinds(self.config)
        return period * (self.config.num_layers // len(period))

    def lay_out(self, params: Any, *, consume: bool = False) -> Any:
        """Parameters as `forward` takes them, in the compute format; under the mesh in context.

        Args:
          params: in training's layout.
          consume: free each stacked array as soon as its layers are laid out, so that no more than one is held twice.
        """
        rest = {name: part for name, part in params.items() if name != "layers"}
        stacked, structure = jax.tree_util.tree_flatten_with_path(params["layers"])
        logical = self.model.logical_axes()["layers"]
        names = jax.tree.leaves(logical, is_leaf=lambda node: isinstance(node, tuple))
        columns = []
        for (path, array), dims in zip(stacked, names, strict=True):
            of_layer = self._partition(
                jax.tree_util.keystr(path, simple=True, separator="/"), dims[1:], array.shape[1:]
            )
            columns.append(jax.jit(functools.partial(self._unstack, path), out_shardings=of_layer)(array))
            if consume:
                jax.block_until_ready(columns[-1])
                array.delete()
        apart = [jax.tree.unflatten(structure, layer) for layer in zip(*columns, strict=True)]
        compute = self.model.precision.compute
        rest = jax.tree.map(lambda array: array.astype(compute), rest)
        return {**rest, "layers": tuple(map(self._fused, apart))}

    def _fused(self, layer: Any) -> Any:
        """A layer with fewer products; as it is where key heads and query heads are divided differently."""
        if as_tuple(self.rules.heads) != as_tuple(self.rules.kv_heads):
            return layer
        fused = {**layer, "attention": jax.jit(layers.fuse_heads)(layer["attention"])}
        if platform() != "tpu":  # which would lay the fused matrix out anew for every block of tokens
            fused["mlp"] = jax.jit(layers.fuse_gate)(layer["mlp"])
        return fused

    def _unstack(self, path: tuple, stacked: jax.Array) -> tuple[jax.Array, ...]:
        """A parameter [L, ...] as one for each layer, queries and keys in halves where they are rotated in pairs."""
        name = path[1].key if path[0].key == "attention" else ""
        turned = self.model.config.rope_layout == "interleaved" and name in ("query", "key", "query_norm", "key_norm")
        stacked = stacked.astype(self.model.precision.compute)
        return tuple(
            layers.pairs_to_halves(stacked[index]) if turned and kind.rope else stacked[index]
            for index, kind in enumerate(self.kinds)
        )

    def _partition(self, name: str, dims: tuple[str | None, ...], shape: tuple[int, ...]) -> PartitionSpec | None:
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty:
            return None
        shapes = {name: jax.ShapeDtypeStruct(shape, self.model.precision.compute)}
        return named_shardings(mesh, self.rules, {name: dims}, shapes)[name].spec

    def cache_size(self, kind: layers.LayerKind, length: int, chunk: int) -> int:
        """Places of a layer's cache: for sequences of `length`, or where that is less, for its window and a chunk."""
        needed = length if kind.window is None else min(length, kind.window - 1 + chunk)
        return cache_size(needed)

    def empty_cache(self, rows: int, length: int, chunk: int, dtype: str) -> Cache:
        """A cache for `rows` sequences of at most `length` tokens that come at most `chunk` at a time."""
        c = self.config

        def make() -> Cache:
            sizes = [self.cache_size(kind, length, chunk) for kind in self.kinds]
            return tuple(empty(rows, c.num_kv_heads, c.head_dim, size, dtype) for size in sizes)

        partitions = None
        if not jax.sharding.get_abstract_mesh().empty:
            partitions = ((partition_spec(self.rules, CACHE_DIMS),) * 2,) * c.num_layers
        return jax.jit(make, out_shardings=partitions)()

    def forward(
        self, params: Any, cache: Cache, tokens: Tokens, *, span: int | None = None, only_last: bool = False
    ) -> tuple[jax.Array, Cache]:
        """The final norm's output [R, Q, D] for tokens that come after those in the cache, and the cache with them.

        Args:
          params: from `lay_out`.
          cache: of which the places of earlier positions are read, and those of the tokens' own written.
          tokens: what comes next.
          span: as in `cached.read`.
          only_last: give the output of each row's last token alone, [R, 1, D]; of the others the last layer takes no more than
            keys and values.
        """
        compute = jnp.dtype(self.model.precision.compute)
        with jax.named_scope("embedding"):
            x = lookup(params["embedding"]["table"], tokens.ids, rules=self.rules, dtype=compute)
        angles = layers.rotation(self.config, tokens.positions)
        new: list[tuple[jax.Array, jax.Array]] = []

        def keep(array: jax.Array) -> jax.Array:
            """Of the last layer's positions [R, Q, ...] those whose output is wanted."""
            if not only_last:
                return array
            last = jnp.maximum(jnp.sum(tokens.valid, axis=1) - 1, 0)
            return jnp.take_along_axis(array, last.reshape(-1, *[1] * (array.ndim - 1)), axis=1)

        def attend(kind: layers.LayerKind, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            output, written = cached_attention(
                keep(query) if len(new) == self.config.num_layers - 1 else query,
                key,
                value,
                cache[len(new)],
                rows=tokens.rows,
                positions=tokens.positions,
                valid=tokens.valid,
                rules=self.rules,
                window=kind.window,
                span=span,
            )
            new.append(written)
            return output

        block = functools.partial(layers.block, self.config, self.model.precision, self.rules)
        *rest, (final_kind, final_layer) = zip(self.kinds, params["layers"], strict=True)
        for kind, layer in rest:
            x = block(kind, layer, x, angles, attend)
        x = block(final_kind, final_layer, x, angles, attend, keep)
        return layers.norm(self.config, params["final_norm"]["scale"], x), tuple(new)

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """float32 [V, ...] from the final norm's output [..., D].

        The vocabulary first, as the table has it: otherwise a CPU turns the product over for every token.
        """
        table = params["embedding" if self.config.tie_embeddings else "head"]["table"]
        logits = jnp.einsum("vd,...d->v...", table, hidden, preferred_element_type=jnp.float32)
        return self.config.logit_scale * logits
