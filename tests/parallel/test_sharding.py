"""Logical names to shardings."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from aya_jax.config import UserError
from aya_jax.parallel.config import MESH_AXES, LogicalAxes
from aya_jax.parallel.sharding import batch_sharding, constrain, named_shardings

RULES = LogicalAxes()
TREE = {"table": ("vocab", "embed"), "layers": {"down": ("layers", "mlp", "embed"), "scale": ("layers", None)}}


@pytest.fixture
def mesh():
    return AbstractMesh((1, 1, 4, 1, 2), MESH_AXES, axis_types=(AxisType.Auto,) * 5)


def test_a_tree_of_names_becomes_a_tree_of_shardings(mesh):
    shardings = named_shardings(mesh, RULES, TREE)
    assert jax.tree.map(lambda s: s.spec, shardings) == {
        "table": P("tensor", "fsdp"),
        "layers": {"down": P(None, "tensor", "fsdp"), "scale": P(None, None)},
    }
    assert batch_sharding(mesh, RULES).spec == P(("slice", "data", "fsdp"), "context")


def test_a_dim_that_does_not_divide_is_named(mesh):
    def shapes(vocab, width):
        leaf = jax.ShapeDtypeStruct
        layers = {"down": leaf((3, 6, width), jnp.float32), "scale": leaf((3, width), jnp.float32)}
        return {"table": leaf((vocab, width), jnp.float32), "layers": layers}

    named_shardings(mesh, RULES, TREE, shapes(10, 8))
    with pytest.raises(UserError, match=r"table: its dim 'vocab' of 11 does not divide over tensor = 2 devices"):
        named_shardings(mesh, RULES, TREE, shapes(11, 8))
    with pytest.raises(UserError, match=r"layers/down: its dim 'embed' of 6 .* fsdp = 4"):
        named_shardings(mesh, RULES, TREE, shapes(10, 6))


def test_a_collision_names_the_array(mesh):
    with pytest.raises(UserError, match=r"layers/down: mesh axis 'fsdp' would split two dims"):
        named_shardings(mesh, LogicalAxes(layers="fsdp"), TREE)


def test_constrain_without_a_mesh_is_the_identity():
    array = jnp.ones((2, 3))
    assert constrain(array, RULES, ("batch", None)) is array
