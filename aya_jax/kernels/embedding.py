"""Looking tokens up in a table that a mesh divides.

The table [V, D] is divided over devices by its width (FSDP) and, with tensor parallelism, by its rows. Gathering it would move
hundreds of millions of numbers for a vocabulary of 256k; here the tokens move instead. Each device looks up its part of the
width for the tokens of all devices that it shares the table with, and one all-to-all per mesh axis turns parts of many rows
into whole rows of its own. The backward pass is the same in reverse, with one local scatter-add.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from aya_jax.parallel.config import LogicalAxes, as_tuple
from aya_jax.parallel.sharding import partition_spec


def lookup(table: jax.Array, tokens: jax.Array, *, rules: LogicalAxes, dtype: jnp.dtype) -> jax.Array:
    """Rows of the table for each token, under the mesh in context.

    Rows are cast as soon as they are looked up: they travel in `dtype`, and the table's gradient is accumulated in the
    table's own.

    Args:
      table: [V, D], its dims `vocab` and `embed`.
      tokens: int32 [B, S], its dims `batch` and `sequence`.
      rules: which mesh axes split those dims.
      dtype: of the result.

    Returns:
      [B, S, D], split as the tokens are.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return jnp.take(table, tokens, axis=0).astype(dtype)

    def local(table: jax.Array, tokens: jax.Array) -> jax.Array:
        dims = {axis: _dim_of(axis, rules) for axis in as_tuple(rules.embed)}
        for axis, dim in dims.items():
            if dim is not None:
                tokens = jax.lax.all_gather(tokens, axis, axis=dim, tiled=True)
        rows = _local_rows(table, tokens, rules).astype(dtype)
        for axis, dim in reversed(
            dims.items()
        ):  # the last mesh axis of a dim varies fastest: its parts lie side by side
            if dim is None:
                rows = jax.lax.all_gather(rows, axis, axis=2, tiled=True)
            else:
                rows = jax.lax.all_to_all(rows, axis, split_axis=dim, concat_axis=2, tiled=True)
        return rows

    specs = partition_spec(rules, ("vocab", "embed")), partition_spec(rules, ("batch", "sequence"))
    out = partition_spec(rules, ("batch", "sequence", None))
    return jax.shard_map(local, in_specs=specs, out_specs=out, check_vma=False)(table, tokens)


def _dim_of(axis: str, rules: LogicalAxes) -> int | None:
    """Which dim of the tokens [B, S] a mesh axis splits."""
    return next((dim for dim, axes in enumerate((rules.batch, rules.sequence)) if axis in as_tuple(axes)), None)


def _local_rows(table: jax.Array, tokens: jax.Array, rules: LogicalAxes) -> jax.Array:
    """The rows, each from the device that has it."""
    axes = as_tuple(rules.vocab)
    if math.prod(jax.lax.axis_size(axis) for axis in axes) == 1:
        return jnp.take(table, tokens, axis=0)
    index = tokens - jax.lax.axis_index(axes) * table.shape[0]
    here = (index >= 0) & (index < table.shape[0])
    rows = jnp.take(table, jnp.where(here, index, 0), axis=0)
    return jax.lax.psum(jnp.where(here[..., None], rows, 0), axes)
