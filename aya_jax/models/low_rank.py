"""Low-rank adapters (Hu et al. 2021, LoRA) of a model's matrices: W + alpha / r * A B, with W held still."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aya_jax.models.config import MATRICES, AdapterConfig, PrecisionConfig, TransformerConfig
from aya_jax.models.projection import Adapted
from aya_jax.models.reward import HEAD, RewardModel
from aya_jax.models.transformer import Batch, Transformer
from aya_jax.parallel.config import LogicalAxes

ADAPTER = "adapter"


@dataclasses.dataclass(frozen=True)
class AdaptedModel:
    """A model of which adapters are trained; as a value, with the methods of `Transformer`.

    What is trained is `{"adapter": {part: {matrix: {"a", "b"}}}}`, and a reward model's head. Of a matrix W [L, I..., O...] the
    factors are a [L, I..., r] and b [L, r, O...], float32 whatever W is. b starts at zero: training starts at the model.

    Attributes:
      base: the model whose other parameters are held still.
      adapter: what is changed.
    """

    base: Transformer | RewardModel
    adapter: AdapterConfig

    @property
    def config(self) -> TransformerConfig:
        """The base's."""
        return self.base.config

    @property
    def precision(self) -> PrecisionConfig:
        """The base's."""
        return self.base.precision

    @property
    def rules(self) -> LogicalAxes:
        """The base's."""
        return self.base.rules

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """What is trained, fresh: a uniform within 1 / sqrt(inputs), as PEFT's, and b zero."""
        shapes = self._matrices(self.base.shapes())
        factors: dict[str, Any] = {}
        for number, (name, matrix) in enumerate(shapes.items()):
            split = 1 + MATRICES[name]
            inputs, outputs = matrix.shape[:split], matrix.shape[split:]
            bound = 1 / math.sqrt(math.prod(inputs[1:]))
            key = jax.random.fold_in(rng, number)
            a = jax.random.uniform(key, (*inputs, self.adapter.rank), jnp.float32, -bound, bound)
            pair = {"a": a, "b": jnp.zeros((inputs[0], self.adapter.rank, *outputs), jnp.float32)}
            _put(factors, name, pair)
        head = {HEAD: self.base.init_head(rng)} if isinstance(self.base, RewardModel) else {}
        return {ADAPTER: factors, **head}

    def shapes(self) -> dict[str, Any]:
        """As `Transformer.shapes`, of what is trained."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def logical_axes(self) -> dict[str, Any]:
        """As `Transformer.logical_axes`: factors lie where their matrices do, whole along the rank."""
        all_axes = self.base.logical_axes()
        factors: dict[str, Any] = {}
        for name, axes in self._matrices(all_axes).items():
            split = 1 + MATRICES[name]
            _put(factors, name, {"a": (*axes[:split], None), "b": (axes[0], None, *axes[split:])})
        return {ADAPTER: factors, **({HEAD: all_axes[HEAD]} if HEAD in all_axes else {})}

    def join(self, params: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
        """The base's parameters with what is trained: adapted matrices are `Adapted`."""
        layers = {name: dict(part) if isinstance(part, Mapping) else part for name, part in frozen["layers"].items()}
        for part, matrices in params[ADAPTER].items():
            for name, factors in matrices.items():
                layers[part][name] = Adapted(layers[part][name], factors["a"], self.adapter.scale * factors["b"])
        return {**frozen, "layers": layers, **({HEAD: params[HEAD]} if HEAD in params else {})}

    def __call__(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> Any:
        """What the base gives, of parameters that were joined."""
        return self.base(params, batch, rng)

    def _matrices(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tree["layers"][name.split("/")[0]][name.split("/")[1]] for name in self.adapter.names}


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
    part, matrix = name.split("/")
    tree.setdefault(part, {})[matrix] = value


Model = Transformer | RewardModel | AdaptedModel
"""What a run trains."""


def base_model(model: Model) -> Transformer:
    """The model of tokens behind a head and adapters."""
    inner = model.base if isinstance(model, AdaptedModel) else model
    return inner.transformer if isinstance(inner, RewardModel) else inner


def merged(params: Any) -> Any:
    """Parameters with every `Adapted` matrix as the one matrix that it stands for, in the matrix's dtype."""
    return jax.tree.map(_merge, params, is_leaf=lambda leaf: isinstance(leaf, Adapted))


def _merge(leaf: Any) -> Any:
    if not isinstance(leaf, Adapted):
        return leaf
    # a [L, I..., r], b [L, r, O...]
    change = jax.vmap(lambda a, b: jnp.tensordot(a.astype(jnp.float32), b.astype(jnp.float32), axes=1))(leaf.a, leaf.b)
    return (leaf.weight.astype(jnp.float32) + change).astype(leaf.weight.dtype)
