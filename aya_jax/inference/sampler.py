"""From logits to the next token, for rows that each have settings of their own.

Every row is computed by itself: what its neighbours ask for never changes its token. Filters find a threshold instead of
sorting: with 256k tokens a sort costs more than the model's last layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

_BLOCK = 512  # tokens whose probabilities are summed before one of them is chosen
_LIKELIEST = 128  # tokens of whose logits the highest is found first
_BITS = 32


class Options(NamedTuple):
    """How each row chooses; arrays [B], fields as in `SamplingConfig`.

    Attributes:
      temperature: float32.
      top_k: int32.
      top_p: float32.
      min_p: float32.
      repetition_penalty: float32.
      key: uint32 [B, 2], what the row's randomness derives from.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    repetition_penalty: jax.Array
    key: jax.Array


def sample(logits: jax.Array, seen: jax.Array, options: Options, index: jax.Array) -> jax.Array:
    """The next token of each row.

    Args:
      logits: float32 [V, B], as a product of the token table and the hidden states gives them.
      seen: bool [B, V], tokens of the prompt and the output so far; looked at where there is a repetition penalty.
      options: how each row chooses.
      index: int32 [B], how many tokens the row has sampled before; with the key it decides the draw.

    Returns:
      int32 [B].
    """
    plain = jnp.all((options.temperature <= 0) & (options.repetition_penalty == 1))
    return jax.lax.cond(plain, lambda logits, *_: _likeliest(logits), _sample, logits, seen, options, index)


def _sample(logits: jax.Array, seen: jax.Array, options: Options, index: jax.Array) -> jax.Array:
    logits = jax.lax.cond(
        jnp.any(options.repetition_penalty != 1), _penalise, lambda *given: given[0], logits, seen, options
    )
    likeliest = _likeliest(logits)
    drawn = jax.lax.cond(jnp.any(options.temperature > 0), _draw, lambda *_: likeliest, logits, options, index)
    return jnp.where(options.temperature > 0, drawn, likeliest)


def _likeliest(logits: jax.Array) -> jax.Array:
    """The first of the highest logits [V, B]; int32 [B]. By blocks: one pass over them, not two."""
    size, rows = logits.shape
    padded = jnp.pad(logits, ((0, -size % _LIKELIEST), (0, 0)), constant_values=-jnp.inf)
    blocks = padded.reshape(-1, _LIKELIEST, rows)
    highest = jnp.max(blocks, axis=1)
    block = _first((highest == jnp.max(highest, axis=0)).T)
    within = jnp.take_along_axis(blocks, block[None, None], axis=0)[0]
    found = block * _LIKELIEST + _first((within == jnp.max(within, axis=0)).T)
    return jnp.minimum(found, size - 1)  # logits that are no numbers have no highest


def _penalise(logits: jax.Array, seen: jax.Array, options: Options) -> jax.Array:
    """Keskar et al. 2019, CTRL, section 4.1, with the sign seen to as in transformers."""
    penalty = options.repetition_penalty
    return jnp.where(seen.T, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def _draw(logits: jax.Array, options: Options, index: jax.Array) -> jax.Array:
    logits = logits.T / jnp.where(options.temperature > 0, options.temperature, 1)[:, None]
    filtered = jnp.any((options.top_k > 0) | (options.top_p < 1) | (options.min_p > 0))
    logits = jax.lax.cond(filtered, keep, lambda *given: given[0], logits, options)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(options.key, impl="threefry2x32"), index)
    return choose(weights, jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys))


def choose(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """Tokens with probabilities in proportion to their weights.

    A block of tokens is chosen by its sum, then a token of it: no running sum over the whole vocabulary, and the two
    draws together resolve probabilities that one float32 could not.

    Args:
      weights: float32 [B, V], not negative, with a positive one in every row.
      uniform: float32 [B, 2] in [0, 1).

    Returns:
      int32 [B]; never a token of weight 0.
    """
    padded = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % _BLOCK)))
    blocks = padded.reshape(len(weights), -1, _BLOCK)
    block = _first_beyond(jnp.sum(blocks, axis=-1), uniform[:, 0])
    within = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return (block * _BLOCK + _first_beyond(within, uniform[:, 1])).astype(jnp.int32)


def _first_beyond(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """The first place where the running sum exceeds `uniform` of the total; int32 [B]."""
    sums = jnp.cumsum(weights, axis=-1)
    total = sums[:, -1]
    target = jnp.minimum(uniform * total, jnp.nextafter(total, jnp.zeros_like(total)))  # the product may round up to it
    return _first(sums > target[:, None])


def _first(true: jax.Array) -> jax.Array:
    """Where each row of [B, N] is first true; int32 [B]. Faster than an argmax, which no CPU loop of XLA's vectorises."""
    places = jnp.arange(true.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(true, places, true.shape[-1] - 1), axis=-1)


def keep(logits: jax.Array, options: Options) -> jax.Array:
    """-inf for what top-k, then top-p, then min-p take out; logits [B, V] after the temperature.

    As in transformers: tokens as likely as the last one kept stay too, and top-p looks at what top-k has left.
    """
    place = _sortable(logits)
    size = logits.shape[-1]
    wanted = jnp.where(options.top_k > 0, jnp.minimum(options.top_k, size), size)
    # The highest threshold that as many tokens reach.
    bottom = _highest(lambda bound: jnp.sum(place >= bound[:, None], axis=-1) >= wanted, len(logits))
    kept = place >= bottom[:, None]
    weights = jnp.where(kept, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)), 0)
    total = jnp.sum(weights, axis=-1)
    # The highest threshold below which no more than 1 - p lies.
    spare = (1 - options.top_p) * total
    bottom = _highest(
        lambda bound: jnp.sum(jnp.where(place < bound[:, None], weights, 0), axis=-1) <= spare, len(logits)
    )
    bottom = jnp.minimum(bottom, jnp.max(place, axis=-1))
    kept &= (place >= bottom[:, None]) | (options.top_p >= 1)[:, None]
    kept &= (weights >= options.min_p[:, None]) | (options.min_p <= 0)[:, None]  # the likeliest has weight 1
    return jnp.where(kept, logits, -jnp.inf)


def _sortable(values: jax.Array) -> jax.Array:
    """int32 in the order of float32 values; -0.0 and 0.0 give the same."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, jnp.int32(-(2**31)) - bits, bits)


def _highest(holds: Callable[[jax.Array], jax.Array], rows: int) -> jax.Array:
    """For each row the highest int32 for which a condition holds that, once false, stays false going up."""

    def halve(_, bounds):
        low, high = bounds  # holds at low, not above high
        middle = (low >> 1) + (high >> 1) + (((low & 1) + (high & 1) + 1) >> 1)  # rounded up, without overflow
        good = holds(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle - 1)

    bounds = jnp.full(rows, -(2**31), jnp.int32), jnp.full(rows, 2**31 - 1, jnp.int32)
    return jax.lax.fori_loop(0, _BITS, halve, bounds)[0]


def log_probs(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """log p of the tokens, float32 [...], from logits [..., V]."""
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def top_log_probs(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` likeliest tokens [..., count] and their log-probabilities, from logits [..., V]."""
    values, tokens = jax.lax.top_k(logits, min(count, logits.shape[-1]))
    return tokens, values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
