"""The operation with its gradient, on one device or with the vocabulary divided over a mesh.

Under a mesh each device scores its tokens against its rows of the table, which it gathers over the axes that divide the
tokens (FSDP) and no others. Two numbers per token cross the axes that divide the vocabulary: a maximum and a sum for
log-sum-exp, and the target's logit, which one device has (Shoeybi et al. 2019, Megatron-LM, section 3). Backward, the
gradient of hidden is summed over those axes, and that of the rows, in float32, once over the tokens' axes: scattered where
they divide the width, after the last tile of tokens, or as the TPU's kernels do it after each piece of the vocabulary.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from aya_jax.config.errors import UserError
from aya_jax.kernels.cross_entropy import xla
from aya_jax.parallel.config import LogicalAxes, as_tuple

# Bytes of the table's float32 gradient that "pallas_tpu" holds at a time: what is made is summed over the devices first.
GRADIENT_PIECE = 2**29


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a mesh divides the operation.

    Attributes:
      batch, sequence: mesh axes of the tokens' dims.
      vocab: mesh axes that divide the rows for good; those of the tokens are gathered instead.
      embed: mesh axes that divide the width of the table at rest and the tokens too; it is gathered over them.
      sizes: (mesh axis, devices) of the mesh.
    """

    batch: tuple[str, ...]
    sequence: tuple[str, ...]
    vocab: tuple[str, ...]
    embed: tuple[str, ...]
    sizes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, rules: LogicalAxes, mesh: AbstractMesh) -> Layout:
        """The layout that the rules give under a mesh."""
        batch, sequence = as_tuple(rules.batch), as_tuple(rules.sequence)
        tokens = {*batch, *sequence}
        return cls(
            batch=batch,
            sequence=sequence,
            vocab=tuple(axis for axis in as_tuple(rules.vocab) if axis not in tokens),
            embed=tuple(axis for axis in as_tuple(rules.embed) if axis in tokens),
            sizes=tuple(mesh.shape.items()),
        )

    def parts(self, axes: Sequence[str]) -> int:
        """Over how many devices these mesh axes divide a dim."""
        return math.prod(size for axis, size in self.sizes if axis in axes)

    def local(self, batch: int, length: int, vocab_size: int, width: int) -> tuple[int, int, int]:
        """The rows of the batch, positions and rows of the table of one device.

        Raises:
          UserError: if a dim does not divide.
        """
        dims = (
            ("batch", "rows of a batch", batch, self.batch),
            ("sequence", "positions", length, self.sequence),
            ("vocab", "rows of the token table", vocab_size, self.vocab),
            ("embed", "columns of the token table", width, self.embed),
        )
        for name, what, size, axes in dims:
            if size % self.parts(axes):
                raise UserError(
                    f"linear + cross-entropy: {size:,} {what} do not divide over {' x '.join(axes)} = {self.parts(axes)} "
                    f"devices; choose a MeshConfig that divides them, or bind LogicalAxes.{name} to other mesh axes or None"
                )
        return (
            batch // self.parts(self.batch),
            length // self.parts(self.sequence),
            vocab_size // self.parts(self.vocab),
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed when the operation is traced.

    Attributes:
      name: "dense", "tiled" or "pallas_tpu".
      layout: None on one device.
      tile: positions per sequence in one tile of "tiled".
      interpret: run "pallas_tpu" by Pallas' interpreter.
      table_dtype: of the table and of its gradient.
    """

    name: str
    layout: Layout | None
    tile: int
    interpret: bool
    table_dtype: str

    def functions(self) -> tuple[Callable, Callable]:
        """Forward and backward over one device's rows, as `xla` describes them."""
        if self.name == "dense":
            return xla.dense_forward, xla.dense_backward
        if self.name == "tiled":
            return tuple(functools.partial(f, tile=self.tile) for f in (xla.tiled_forward, xla.tiled_backward))
        # Pallas is imported where it is used: it takes as long as the rest of this package.
        from aya_jax.kernels.cross_entropy import pallas_tpu

        whole = math.prod(self.layout.parts((axis,)) for axis in self.layout.embed) if self.layout else 1
        backward = functools.partial(pallas_tpu.backward, interpret=self.interpret, multiple=whole)
        return functools.partial(pallas_tpu.forward, interpret=self.interpret), backward


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scores(plan: Plan, hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(log p(target), log-sum-exp), float32 [B, S] each, for hidden [B, S, D], table [V, D] and targets int32 [B, S]."""
    return _forward(plan, hidden, table, targets)[0]


def _forward(plan: Plan, hidden: jax.Array, table: jax.Array, targets: jax.Array):
    layout = plan.layout

    def local(hidden, table, targets):
        # Cast before it is gathered: half the bytes where parameters are float32 and activations bfloat16.
        table = gather_table(table.astype(hidden.dtype), layout)
        targets = _own(targets, table.shape[0], layout)
        (target, lse), kept = plan.functions()[0](hidden, table, targets)
        if layout and layout.parts(layout.vocab) > 1:
            peak = jax.lax.pmax(lse, layout.vocab)
            total, target = jax.lax.psum((jnp.exp(lse - peak), target), layout.vocab)
            lse = peak + jnp.log(total)
        return (target - lse, lse), (table, kept)

    if layout:
        specs = Specs.of(layout)
        kept = (specs.logits, specs.logits) if plan.name == "dense" else ()
        local = jax.shard_map(
            local,
            in_specs=(specs.hidden, specs.table, specs.tokens),
            out_specs=((specs.tokens, specs.tokens), (specs.gathered, kept)),
            check_vma=False,
        )
    (log_probs, lse), (cast, kept) = local(hidden, table, targets)
    return (log_probs, lse), (hidden, cast, targets, kept, lse)


def _backward(plan: Plan, saved, cotangents):
    layout = plan.layout

    def local(hidden, table, targets, kept, lse, grad_log_probs, grad_lse):
        own = _own(targets, table.shape[0], layout)
        cotangents = grad_log_probs, grad_lse - grad_log_probs
        grad_hidden, grad_table = plan.functions()[1](hidden, table, own, kept, lse, *cotangents, share=share)
        if layout:
            grad_hidden = jax.lax.psum(grad_hidden, layout.vocab)
        return grad_hidden, grad_table

    def share(rows: jax.Array) -> jax.Array:
        """Rows of this device's float32 gradient [n, D] -> what it keeps of their sum over the tokens' axes."""
        if layout:
            for axis in layout.embed:
                rows = _scatter_width(rows, axis, layout.parts((axis,)))
            rest = tuple(axis for axis in (*layout.batch, *layout.sequence) if axis not in layout.embed)
            rows = jax.lax.psum(rows, rest)
        return rows.astype(plan.table_dtype)

    if layout:
        specs = Specs.of(layout)
        kept = (specs.logits, specs.logits) if plan.name == "dense" else ()
        local = jax.shard_map(
            local,
            in_specs=(specs.hidden, specs.gathered, specs.tokens, kept, *(3 * (specs.tokens,))),
            out_specs=(specs.hidden, specs.table),
            check_vma=False,
        )
    return *local(*saved, *cotangents), None


scores.defvjp(_forward, _backward)


def gather_table(table: jax.Array, layout: Layout | None) -> jax.Array:
    """A device's rows of the table in their whole width, inside `jax.shard_map`; as it is without a layout."""
    if layout:
        for axis in reversed(layout.embed):  # the last axis of a dim varies fastest: its parts lie side by side
            table = _gather_width(table, axis, layout.parts((axis,)))
    return table


def _gather_width(table: jax.Array, axis: str, parts: int) -> jax.Array:
    """[V, D / parts] -> [V, D]: turned to [V / parts, D] first, since whole rows are gathered where they are to lie.

    A few columns of each row, as FSDP over many devices has them, are not what a TPU's memory is tiled by: they would be
    gathered beside one another and put in order by copies of the whole table.
    """
    if table.shape[0] % parts:
        return jax.lax.all_gather(table, axis, axis=1, tiled=True)
    table = jax.lax.all_to_all(table, axis, split_axis=0, concat_axis=1, tiled=True)
    return jax.lax.all_gather(table, axis, axis=0, tiled=True)


def _scatter_width(gradient: jax.Array, axis: str, parts: int) -> jax.Array:
    """The sum over a mesh axis of [V, D], of which each device keeps [V, D / parts]: the transpose of `_gather_width`."""
    if gradient.shape[0] % parts:
        return jax.lax.psum_scatter(gradient, axis, scatter_dimension=1, tiled=True)
    gradient = jax.lax.psum_scatter(gradient, axis, scatter_dimension=0, tiled=True)
    return jax.lax.all_to_all(gradient, axis, split_axis=1, concat_axis=0, tiled=True)


def _own(targets: jax.Array, rows: int, layout: Layout | None) -> jax.Array:
    """Each target's row in this device's part of the table, -1 where another has it."""
    if layout and layout.parts(layout.vocab) > 1:
        targets = targets - jax.lax.axis_index(layout.vocab) * rows
    return jnp.where((targets >= 0) & (targets < rows), targets, -1)


class Specs(NamedTuple):
    """Partitions of the arrays at the border of `jax.shard_map`."""

    tokens: PartitionSpec
    hidden: PartitionSpec
    logits: PartitionSpec
    table: PartitionSpec
    gathered: PartitionSpec

    @classmethod
    def of(cls, layout: Layout) -> Specs:
        batch, sequence, vocab, embed = (
            axes or None for axes in (layout.batch, layout.sequence, layout.vocab, layout.embed)
        )
        return cls(
            tokens=PartitionSpec(batch, sequence),
            hidden=PartitionSpec(batch, sequence, None),
            logits=PartitionSpec(batch, sequence, vocab),
            table=PartitionSpec(vocab, embed),
            gathered=PartitionSpec(vocab, None),
        )
