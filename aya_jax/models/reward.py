"""A transformer with a reward for an output: one number for what each position ends."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.transformer import Batch, Transformer
from aya_jax.parallel.config import LogicalAxes

HEAD = "reward_head"


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """A model as a value, with the attributes and methods of `Transformer`.

    Its parameters are the transformer's and, under `HEAD`, a `kernel` float32 [D] that starts as the matrices do.
    """

    config: TransformerConfig
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    rules: LogicalAxes = dataclasses.field(default_factory=LogicalAxes)

    @property
    def transformer(self) -> Transformer:
        """The model behind the head."""
        return Transformer(self.config, self.precision, self.rules)

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Fresh parameters."""
        return self.transformer.init(rng) | {HEAD: self.init_head(rng)}

    def init_head(self, rng: jax.Array) -> dict[str, jax.Array]:
        """Fresh parameters of the head alone."""
        start = nn.initializers.normal(self.config.initializer_range)
        return {"kernel": start(jax.random.fold_in(rng, 1), (self.config.embed_dim,), jnp.float32)}

    def shapes(self) -> dict[str, Any]:
        """As `Transformer.shapes`."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def logical_axes(self) -> dict[str, Any]:
        """As `Transformer.logical_axes`; the head is small, and whole on every device."""
        return self.transformer.logical_axes() | {HEAD: {"kernel": (None,)}}

    def __call__(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> jax.Array:
        """Rewards, float32 [B, S]: entry t is that of the text up to and with token t of its segment."""
        own = {name: part for name, part in params.items() if name != HEAD}
        hidden = self.transformer.hidden(own, batch, rng)
        with jax.named_scope("head"):
            return jnp.einsum("bsd,d->bs", hidden.astype(jnp.float32), params[HEAD]["kernel"])
