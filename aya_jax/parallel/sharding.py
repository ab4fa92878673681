"""From the logical names of dims to shardings over a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aya_jax.config.errors import UserError
from aya_jax.parallel.config import LogicalAxes

Logical = Sequence[str | None]


def partition_spec(rules: LogicalAxes, logical: Logical) -> PartitionSpec:
    """The partition of an array whose dims bear these logical names.

    Raises:
      UserError: for an unknown name, or a mesh axis that would split two dims.
    """
    return PartitionSpec(*rules.mesh_axes(logical))


def named_shardings(mesh: Mesh, rules: LogicalAxes, logical_tree: Any, shapes: Any = None) -> Any:
    """Shardings for a tree of tuples of logical names, as `Transformer.logical_axes()` gives.

    Args:
      mesh: the mesh to shard over.
      rules: which mesh axes split which dims.
      logical_tree: a tree whose leaves are tuples of logical names, one per dim.
      shapes: the matching tree of arrays or `jax.ShapeDtypeStruct`; when given, every split dim must divide evenly.

    Raises:
      UserError: for an unknown name, a mesh axis used twice in one array, or a dim that does not divide; the message
        names the array.
    """

    def one(path: tuple, logical: Logical, shape: Any = None) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        try:
            spec = partition_spec(rules, logical)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        sharding = NamedSharding(mesh, spec)
        if shape is not None:
            _check_divides(name, mesh, logical, spec, shape.shape)
        return sharding

    def is_leaf(node: Any) -> bool:
        return isinstance(node, tuple)

    if shapes is None:
        return jax.tree_util.tree_map_with_path(one, logical_tree, is_leaf=is_leaf)
    return jax.tree_util.tree_map_with_path(one, logical_tree, shapes, is_leaf=is_leaf)


def batch_sharding(mesh: Mesh, rules: LogicalAxes) -> NamedSharding:
    """The sharding of a batch's arrays [B, S]."""
    return NamedSharding(mesh, partition_spec(rules, ("batch", "sequence")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device, so that each of several processes can read it."""
    return NamedSharding(mesh, PartitionSpec())


def constrain(array: jax.Array, rules: LogicalAxes, logical: Logical) -> jax.Array:
    """Pins the sharding of an activation inside a jitted function traced under `jax.set_mesh(mesh)`.

    Without a mesh in context (one device, or a caller that leaves everything to propagation) this is the identity. The
    mesh in context is part of jit's cache key, so the same function may be traced with and without one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return array
    return jax.lax.with_sharding_constraint(array, partition_spec(rules, logical))


def _check_divides(name: str, mesh: Mesh, logical: Logical, spec: PartitionSpec, shape: tuple[int, ...]) -> None:
    for dim, axes, size in zip(logical, spec, shape, strict=True):
        axes = () if axes is None else (axes,) if isinstance(axes, str) else axes
        parts = 1
        for axis in axes:
            parts *= mesh.shape[axis]
        if size % parts:
            raise UserError(
                f"{name}: its dim {dim!r} of {size} does not divide over {' x '.join(axes)} = {parts} devices; "
                f"choose a mesh that divides it, or bind LogicalAxes.{dim} = None"
            )
