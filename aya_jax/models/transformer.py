"""The decoder-only transformer: Cohere, Cohere2 and Llama 3 from one configuration."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aya_jax.kernels.attention.sharded import from_shards, to_shards
from aya_jax.kernels.cross_entropy import linear_cross_entropy, linear_statistics, mean_logit
from aya_jax.kernels.embedding import lookup
from aya_jax.models import layers
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.modules import Decoder
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.mesh import platform

Batch = Mapping[str, jax.Array]


class TokenScores(NamedTuple):
    """What objectives see of a model; all but the first two are compiled away where nothing reads them.

    Attributes:
      log_probs: float32 [B, S], log p(targets).
      lse: float32 [B, S], log-sum-exp of the logits (for z-loss).
      mean_logit: float32 [B, S], the mean of the logits (for label smoothing).
      entropy: float32 [B, S], of the distribution, in nats; no gradient.
      correct: bool [B, S], whether the target is the likeliest token.
    """

    log_probs: jax.Array
    lse: jax.Array
    mean_logit: jax.Array | None = None
    entropy: jax.Array | None = None
    correct: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A model as a value: hashable, so it can be a static argument of jit; parameters are passed to every call.

    Under `jax.set_mesh(mesh)` activations are pinned to the mesh by `rules`; without a mesh in context the compiler
    decides from the shardings of the arguments.

    Attributes:
      config: the shape.
      precision: number formats and rematerialisation.
      rules: which mesh axes split which dims.
    """

    config: TransformerConfig
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    rules: LogicalAxes = dataclasses.field(default_factory=LogicalAxes)

    def init(self, rng: jax.Array) -> dict[str, Any]:
        """Fresh parameters: a plain nested dict of arrays in `precision.params`."""
        return nn.meta.unbox(self._boxed(rng))

    def shapes(self) -> dict[str, Any]:
        """The parameters' tree with `jax.ShapeDtypeStruct` leaves; nothing is allocated."""
        return jax.eval_shape(self.init, jax.random.key(0))

    def logical_axes(self) -> dict[str, Any]:
        """The parameters' tree with the logical names of each one's dims, as tuples."""
        boxed = jax.eval_shape(self._boxed, jax.random.key(0))
        return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))

    def hidden(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> jax.Array:
        """The final norm's output [B, S, D], in the compute dtype.

        Args:
          params: as `init` gives them.
          batch: `tokens` int32 [B, S], and where given `positions` int32 [B, S] (by default 0 to S - 1) and
            `segment_ids` int32 [B, S] (documents do not see each other; by default a row is one document), or in their
            place `first_keys` and `last_keys` int32 [B, S], which tokens of the row each token sees.
          rng: unused: the model has no dropout. Part of the signature that objectives call.
        """
        del rng
        return from_shards(self._hidden(params, batch), self.rules)

    def __call__(self, params: Any, batch: Batch, rng: jax.Array | None = None) -> TokenScores:
        """Scores of `batch["targets"]`, int32 [B, S]. Logits do not leave the linear + cross-entropy kernel."""
        del rng
        hidden = self._hidden(params, batch)
        scores = self._scores(params, hidden, to_shards(batch["targets"], self.rules))
        return TokenScores(*(from_shards(score, self.rules) for score in scores))

    def score_at(self, params: Any, batch: Batch, places: jax.Array, targets: jax.Array) -> TokenScores:
        """Scores of given targets at given places: the head works on those places only, as does most of the last layer.

        For evaluation: gradients through it would cost more than those of `__call__`.

        Args:
          params: as `init` gives them.
          batch: as `hidden` takes it.
          places: int32 [G, N]: the rows of the batch are G equal parts, and these are places in each part, its rows one after
            the other; in any order and as often as there are targets for them.
          targets: int32 [G, N].

        Returns:
          scores [G, N].
        """

        def keep(array: jax.Array) -> jax.Array:
            parts = from_shards(array, self.rules).reshape(places.shape[0], -1, *array.shape[2:])
            return jnp.take_along_axis(parts, places.reshape(*places.shape, *[1] * (array.ndim - 2)), axis=1)

        return self._scores(params, self._hidden(params, batch, keep), targets)

    def _scores(self, params: Any, hidden: jax.Array, targets: jax.Array) -> TokenScores:
        head, scale = self._head(params), self.config.logit_scale
        with jax.named_scope("head"):
            scores = linear_cross_entropy(
                hidden,
                head,
                targets,
                logit_scale=scale,
                rules=self.rules,
                implementation=self.precision.cross_entropy,
            )
            mean = mean_logit(hidden, head, logit_scale=scale)
            statistics = linear_statistics(hidden, head, targets, logit_scale=scale, rules=self.rules)
        return TokenScores(*scores, mean, *statistics)

    def logits(self, params: Any, batch: Batch) -> jax.Array:
        """Next-token logits, float32 [B, S, V], for small batches: comparison with other libraries, and decoding."""
        hidden = self.hidden(params, batch)
        table = self._head(params).astype(hidden.dtype)
        return self.config.logit_scale * jnp.einsum("bsd,vd->bsv", hidden, table, preferred_element_type=jnp.float32)

    def _boxed(self, rng: jax.Array) -> dict[str, Any]:
        return Decoder(self.config, jnp.dtype(self.precision.params)).init(rng)["params"]

    def _head(self, params: Any) -> jax.Array:
        return params["embedding" if self.config.tie_embeddings else "head"]["table"]

    def _hidden(self, params: Any, batch: Batch, keep: layers.Keep = layers.keep_all) -> jax.Array:
        """`hidden` with positions in the order of `to_shards`; or of those only that `keep` takes."""
        config, tokens = self.config, batch["tokens"]
        positions = batch.get("positions")
        if positions is None:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        segment_ids = batch.get("segment_ids")
        if segment_ids is not None:
            segment_ids = to_shards(segment_ids, self.rules)
        bounds = None
        if "first_keys" in batch:
            bounds = to_shards(batch["first_keys"], self.rules), to_shards(batch["last_keys"], self.rules)
        tokens = to_shards(tokens, self.rules)
        with jax.named_scope("embedding"):
            x = lookup(params["embedding"]["table"], tokens, rules=self.rules, dtype=jnp.dtype(self.precision.compute))
        x = layers.pin("residual", x, self.rules)
        angles = layers.rotation(config, to_shards(positions, self.rules))
        x = self._layers(params["layers"], x, angles, segment_ids, bounds, keep)
        return layers.pin("final", layers.norm(config, params["final_norm"]["scale"], x), self.rules)

    def _layers(
        self,
        params: Any,
        x: jax.Array,
        angles: layers.Rotation,
        segment_ids: jax.Array | None,
        bounds: tuple[jax.Array, jax.Array] | None,
        keep: layers.Keep,
    ) -> jax.Array:
        """All layers, scanned by groups of one period of layer kinds; of the last layer's outputs those that `keep` takes."""
        kinds = layers.layer_kinds(self.config)
        groups = self.config.num_layers // len(kinds)
        params = jax.tree.map(lambda stacked: stacked.reshape(groups, len(kinds), *stacked.shape[1:]), params)

        def layer(kind, params, x, angles, segment_ids, bounds, *, keep):
            attend = layers.attend_within(self.precision, self.rules, segment_ids, bounds)

            def attend_and_keep(*heads):
                return keep(attend(*heads))

            return layers.block(self.config, self.precision, self.rules, kind, params, x, angles, attend_and_keep, keep)

        def group(x: jax.Array, params: Any, keep: layers.Keep = layers.keep_all) -> tuple[jax.Array, None]:
            for index, kind in enumerate(kinds):
                of_layer = jax.tree.map(lambda stacked, index=index: stacked[index], params)
                wanted = keep if index == len(kinds) - 1 else layers.keep_all
                x = self._remat(functools.partial(layer, kind, keep=wanted))(of_layer, x, angles, segment_ids, bounds)
            return x, None

        if keep is layers.keep_all:
            return jax.lax.scan(group, x, params, unroll=self._unroll())[0]

        def numbered(
            x: jax.Array, number: jax.Array | int, keep: layers.Keep = layers.keep_all
        ) -> tuple[jax.Array, None]:
            return group(x, jax.tree.map(lambda stacked: stacked[number], params), keep)

        # By numbers: to scan all groups but one, their parameters would be copied.
        x, _ = jax.lax.scan(numbered, x, jnp.arange(groups - 1), unroll=max(1, min(self._unroll(), groups - 1)))
        return numbered(x, groups - 1, keep)[0]

    def _remat(self, function: Callable) -> Callable:
        if self.precision.remat == "none":
            return function
        policies = jax.checkpoint_policies
        policy = {
            "dots": policies.dots_with_no_batch_dims_saveable,
            "full": None,
            "offload": policies.save_and_offload_only_these_names(
                names_which_can_be_saved=[],
                names_which_can_be_offloaded=[layers.LAYER_INPUT],
                offload_src="device",
                offload_dst="pinned_host",
            ),
        }[self.precision.remat]
        # A loop by itself keeps the compiler from merging the recomputation with the forward pass.
        return jax.checkpoint(function, policy=policy, prevent_cse=self._unroll() > 1)

    def _unroll(self) -> int:
        """How many groups of layers are laid out in a row."""
        groups = self.config.num_layers // len(layers.layer_kinds(self.config))
        if self.precision.unroll is not None:
            return min(groups, -(-self.precision.unroll // len(layers.layer_kinds(self.config))))
        return groups if platform() == "cpu" else 1
