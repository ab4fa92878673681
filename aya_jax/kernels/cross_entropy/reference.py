"""Linear layer and cross-entropy in plain jnp: what every back-end is held to."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def reference(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, *, logit_scale: float
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of each target and log-sum-exp of its logits.

    Args:
      hidden: [B, S, D].
      table: [V, D].
      targets: int32 [B, S].
      logit_scale: factor on the logits.

    Returns:
      (log p(target), log sum exp logits), each [B, S], in float32, or in float64 where the inputs are.
    """
    dtype = jnp.promote_types(hidden.dtype, jnp.float32)
    logits = logit_scale * jnp.einsum("bsd,vd->bsv", hidden.astype(dtype), table.astype(dtype))
    lse = jax.nn.logsumexp(logits, axis=-1)
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - lse, lse
