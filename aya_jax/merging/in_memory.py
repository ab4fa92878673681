"""Merges that no file is written for: models held on the devices, merged into parameters there.

Tensors are merged by the functions that `aya merge` uses, from the same blocks, so the parameters are bit for bit those that
would be loaded from what it writes.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.interop.architectures import Rule, rules
from aya_jax.merging import tensor
from aya_jax.merging.merge import merged_blocks
from aya_jax.merging.preflight import Plan, check
from aya_jax.merging.recipe import Recipe
from aya_jax.merging.sources import TABLES
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.distributed import agree_on
from aya_jax.training.state import abstract_params

_MOST = 0.5  # of the devices' memory, for models that are held


class DeviceBlocks:
    """The blocks of a tensor, which stay on the devices (`tensor.Blocks`)."""

    def __init__(self, blocks: tensor.Blocks):
        """Puts all of them there."""
        self.count, self.entries = blocks.count, blocks.entries
        # Copies: on a CPU a block may be the pages of a file, which somebody may write over meanwhile.
        self._blocks = [jnp.copy(blocks.block(number)) for number in range(blocks.count)]

    def block(self, number: int) -> jax.Array:
        """As `tensor.Blocks.block`."""
        return self._blocks[number]


class Merger:
    """Merges models again and again.

    Attributes:
      model: what all merges are, as it is run.
      first: the plan of the recipe that it was made with.
    """

    def __init__(
        self,
        recipe: Recipe,
        mesh: Mesh,
        precision: PrecisionConfig,
        axes: LogicalAxes,
        folder: Path,
        warn: Callable[[str], None],
        *,
        scan: bool = True,
        hold: bool | None = None,
    ):
        """Opens and compares the models of a recipe.

        Args:
          recipe: one of those to come, with the base where there is one.
          mesh: what models are divided over.
          precision: number formats of the parameters.
          axes: how the model is divided.
          folder: for files of rows, where vocabularies differ.
          warn: is told of what a person should know.
          scan: look for NaN and infinity.
          hold: keep models on the devices; None: where they fill at most half of their memory.

        Raises:
          UserError: the models do not fit together, or one is damaged.
        """
        self.mesh, self._folder, self._warn = mesh, folder, warn
        self._plans: dict[tuple[str | None, tuple[str, ...]], Plan] = {}
        self.first = self._plan_of_sources(recipe, scan)
        self.model = Transformer(self.first.config, precision, axes)
        leaves = jax.tree_util.tree_leaves_with_path(abstract_params(self.model, mesh))
        self._leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
        self._places = {rule.path: _place(rule, self._leaves[rule.path]) for rule in rules(self.first.config)}
        size = sum(info.nbytes for source in self.first.sources for info in source.reader.entries().values())
        self._holds = agree_on(size <= _MOST * _memory(mesh) if hold is None else hold)
        self._held: dict[tuple[str, str, str], DeviceBlocks] = {}

    def plan(self, recipe: Recipe) -> Plan:
        """What a recipe does to each tensor.

        Raises:
          UserError: the models do not fit together, or a number is none of the method's.
        """
        plan = self._plan_of_sources(recipe, scan=False)
        if plan.config != self.first.config:
            raise UserError(
                f"{recipe.method}: its result has {_difference(plan.config, self.first.config)}; bind tokenizer"
            )
        layers = plan.config.num_layers
        return dataclasses.replace(
            plan, recipe=recipe, settings={name: recipe.settings(name, layers) for name in plan.settings}
        )

    def params(self, plan: Plan) -> Any:
        """The parameters of a merge, on the devices.

        Raises:
          UserError: the method has no result with these numbers.
        """
        found: dict[str, Any] = {}
        with jax.set_mesh(self.mesh):
            for rule in rules(plan.config):
                found |= {rule.path: self._parameter(plan, rule)}
        return _tree(found)

    def _parameter(self, plan: Plan, rule: Rule) -> jax.Array:
        leaf, place = self._leaves[rule.path], self._places[rule.path]
        made = jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()
        for layer in range(leaf.shape[0]) if rule.stacked else (0,):
            name = rule.name.format(layer)
            made = place(made, list(merged_blocks(plan, name, self._blocks(plan, name))), layer)
        return made

    def _blocks(self, plan: Plan, name: str) -> list[tensor.Blocks]:
        """A tensor of each source. Rows of a tensor's own, which DELLA ranks within, are read anew each time."""
        by_rows = plan.settings[name].about.sparsifier == "ranked"
        mapped = "+".join(plan.recipe.sources) if plan.rows is not None and name in TABLES else ""
        keys = [(source.name, name, mapped) for source in plan.sources]
        if not by_rows and all(key in self._held for key in keys):
            return [self._held[key] for key in keys]
        mesh = self.mesh if self.mesh.size > 1 else None
        found = [tensor.HostBlocks(array, mesh, by_rows=by_rows) for array in plan.read(name, self._folder)]
        if by_rows or not self._holds:
            return list(found)
        for key, blocks in zip(keys, found, strict=True):
            if key not in self._held:
                self._held[key] = DeviceBlocks(blocks)
        return [self._held[key] for key in keys]

    def _plan_of_sources(self, recipe: Recipe, scan: bool) -> Plan:
        """A plan of the same models, of whatever method: what is opened and compared once."""
        key = recipe.base, recipe.models
        if key not in self._plans:
            found = check(recipe, self._warn, look=scan)
            for note in found.notes if not self._plans else ():
                self._warn(f"Note: {note}.")
            self._plans[key] = found
        return self._plans[key]


def _place(rule: Rule, leaf: jax.ShapeDtypeStruct) -> Callable[[jax.Array, Sequence[jax.Array], int], jax.Array]:
    """A compiled function that puts a tensor's blocks where they belong in a parameter: (parameter, blocks, layer)."""
    shape = leaf.shape[1:] if rule.stacked else leaf.shape
    theirs = rule.their_shape(shape)

    def place(whole: jax.Array, blocks: Sequence[jax.Array], layer: jax.Array) -> jax.Array:
        flat = jnp.concatenate([block.reshape(-1) for block in blocks])[: math.prod(theirs)].reshape(theirs)
        ours = (flat.T if rule.inputs else flat).reshape(shape).astype(leaf.dtype)
        return whole.at[layer].set(ours) if rule.stacked else ours

    return jax.jit(place, donate_argnums=0, out_shardings=leaf.sharding)


def _tree(leaves: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        inner = found
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = leaf
    return found


def _memory(mesh: Mesh) -> int:
    """Bytes of all devices together; of CPUs, the machine's."""
    device = mesh.devices.flat[0]
    known = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    if known:
        return known * mesh.size
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _difference(one: TransformerConfig, other: TransformerConfig) -> str:
    names = (each.name for each in dataclasses.fields(one) if getattr(one, each.name) != getattr(other, each.name))
    return "; ".join(f"{name} {getattr(one, name)}, and others {getattr(other, name)}" for name in names)
