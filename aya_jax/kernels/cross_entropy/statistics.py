"""What is said of a model's next-token distributions beside the loss: how spread they are, how often they are right.

Forward only, and by tiles as the loss is. Where a mesh divides the vocabulary, each device reduces its rows of the table to
a peak, a sum and a sum of logits under the weights exp(z - peak); rescaled to the common peak, those add up.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from aya_jax.kernels.cross_entropy import xla
from aya_jax.kernels.cross_entropy.operation import Layout, Specs, gather_table


class TokenStatistics(NamedTuple):
    """Of the distribution at each token.

    Attributes:
      entropy: float32 [B, S], nats.
      correct: bool [B, S], whether the target is the likeliest token (the first of equals).
    """

    entropy: jax.Array
    correct: jax.Array


def token_statistics(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, *, layout: Layout | None, tile: int
) -> TokenStatistics:
    """Entropy and top-1 correctness for hidden [B, S, D] (scaled), table [V, D] and targets int32 [B, S]. No gradient.

    With weights w = exp(z - peak), the entropy is log(sum w) - sum(w (z - peak)) / sum w.

    Args:
      hidden, table, targets: as in `operation.scores`.
      layout: how a mesh divides them; None on one device.
      tile: positions per sequence whose logits exist at a time.
    """
    divided = layout is not None and layout.parts(layout.vocab) > 1

    def of_tile(table: jax.Array, hidden: jax.Array, targets: jax.Array) -> TokenStatistics:
        logits = xla.logits_of(hidden, table)
        own = jnp.max(logits, axis=-1)
        first = _first_equal(logits, own)
        above = logits - own[..., None]
        weights = jnp.exp(above)
        total, moment = jnp.sum(weights, axis=-1), jnp.sum(weights * above, axis=-1)
        if divided:
            first += jax.lax.axis_index(layout.vocab) * table.shape[0]
            peak = jax.lax.pmax(own, layout.vocab)
            first = jax.lax.pmin(jnp.where(own == peak, first, jnp.iinfo(first.dtype).max), layout.vocab)
            down = own - peak
            total, moment = jax.lax.psum((total * jnp.exp(down), (moment + total * down) * jnp.exp(down)), layout.vocab)
        return TokenStatistics(jnp.log(total) - moment / total, first == targets)

    def local(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> TokenStatistics:
        table = gather_table(table.astype(hidden.dtype), layout)
        if targets.shape[1] <= tile:  # no loop, so that the logits are those that the loss made
            return of_tile(table, hidden, targets)
        _, found = jax.lax.scan(
            lambda _, rows: (None, of_tile(table, *rows)), None, (xla.cut(hidden, tile), xla.cut(targets, tile))
        )
        return TokenStatistics(*(xla.join(values, targets.shape[1]) for values in found))

    if layout:
        specs = Specs.of(layout)
        local = jax.shard_map(
            local,
            in_specs=(specs.hidden, specs.table, specs.tokens),
            out_specs=TokenStatistics(specs.tokens, specs.tokens),
            check_vma=False,
        )
    return local(*jax.lax.stop_gradient((hidden, table)), targets)


def _first_equal(logits: jax.Array, peak: jax.Array) -> jax.Array:
    """The first place of each peak, int32 [...]; as `argmax`, whose reduction of pairs a CPU does one by one."""
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    return jnp.min(jnp.where(logits == peak[..., None], places, jnp.iinfo(jnp.int32).max), axis=-1)
