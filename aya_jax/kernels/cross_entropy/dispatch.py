"""Picking how the head and its loss are computed."""

from __future__ import annotations

import jax

from aya_jax.config.errors import UserError
from aya_jax.kernels.cross_entropy.reference import reference
from aya_jax.kernels.cross_entropy.xla import dense, tiled

IMPLEMENTATIONS = ("dense", "tiled", "reference")

# Logits kept whole up to this many (512 MiB in float32), in the batch of one device or of the whole mesh: what is small
# for one device stays small for each of many.
_DENSE_LOGITS = 2**27
# Logits of one tile, all devices together: large enough that the matrix products run at full rate.
_TILE_LOGITS = 2**28


def choose(*, tokens: int, vocab_size: int, implementation: str | None = None) -> str:
    """The name of the implementation for a batch of so many tokens.

    Raises:
      UserError: if the one asked for is unknown.
    """
    if implementation is None:
        return "dense" if tokens * vocab_size <= _DENSE_LOGITS else "tiled"
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
      tile: positions per sequence whose logits exist at a time ("tiled"); by default chosen from the shapes.
      implementation: "dense", "tiled" or "reference"; by default `choose` picks one.

    Returns:
      (log p(target), log sum exp of the logits), float32 [B, S] each.

    Raises:
      UserError: if the implementation is unknown.
    """
    batch, length = targets.shape
    vocab_size = table.shape[0]
    name = choose(tokens=batch * length, vocab_size=vocab_size, implementation=implementation)
    if name == "reference":
        return reference(hidden, table, targets, logit_scale=logit_scale)
    if name == "dense":
        return dense(hidden, table, targets, logit_scale=logit_scale)
    tile = tile or max(1, _TILE_LOGITS // (batch * vocab_size))
    return tiled(hidden, table, targets, logit_scale=logit_scale, tile=tile)
