"""Picking how the head and its loss are computed."""

from __future__ import annotations

import jax

from aya_jax.config.errors import UserError
from aya_jax.kernels.cross_entropy.reference import reference
from aya_jax.kernels.cross_entropy.xla import dense, tiled

IMPLEMENTATIONS = ("dense", "tiled", "reference")

# Logits kept whole up to this many per device (512 MiB in float32).
DENSE_LOGITS = 2**27
# Logits of one tile per device: large enough that the matrix products run at full rate.
TILE_LOGITS = 2**28


def choose(*, tokens: int, vocab_size: int, implementation: str | None = None) -> str:
    """The name of the implementation for so many tokens per device.

    Raises:
      UserError: if the one asked for is unknown.
    """
    if implementation is None:
        return "dense" if tokens * vocab_size <= DENSE_LOGITS else "tiled"
    if implementation not in IMPLEMENTATIONS:
        raise UserError(f"no cross-entropy {implementation!r}; there are {', '.join(IMPLEMENTATIONS)}")
    return implementation


def linear_cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    *,
    logit_scale: float = 1.0,
    tile: int | None = None,
    implementation: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets under softmax(logit_scale * hidden @ table^T). Both results are differentiable.

    Args:
      hidden: [B, S, D], in the compute dtype.
      table: [V, D], in the parameters' dtype.
      targets: int32 [B, S].
      logit_scale: factor on the logits.
      tile: positions per sequence whose logits exist at a time ("tiled"); by default chosen from the shapes and, under
        `jax.set_mesh`, the number of devices.
      implementation: "dense", "tiled" or "reference"; by default `choose` picks one.

    Returns:
      (log p(target), log sum exp of the logits), float32 [B, S] each.

    Raises:
      UserError: if the implementation is unknown.
    """
    batch, length = targets.shape
    vocab_size = table.shape[0]
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    name = choose(tokens=-(-batch * length // devices), vocab_size=vocab_size, implementation=implementation)
    if name == "reference":
        return reference(hidden, table, targets, logit_scale=logit_scale)
    if name == "dense":
        return dense(hidden, table, targets, logit_scale=logit_scale)
    tile = tile or max(1, TILE_LOGITS * devices // (batch * vocab_size))
    return tiled(hidden, table, targets, logit_scale=logit_scale, tile=tile)
