"""What the engine runs on the devices: reading prompts, decoding some tokens for every slot, copying a slot.

All of it has fixed shapes, so a handful of programs serves every mix of requests, and a row's numbers never depend on
how many others there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from aya_jax.inference.config import MAX_TOP_LOG_PROBS
from aya_jax.inference.decoder import Cache, Decoder, Tokens
from aya_jax.inference.sampler import Options, log_probs, sample, top_log_probs
from aya_jax.kernels.attention.cached import CACHE_DIMS
from aya_jax.parallel.config import as_tuple
from aya_jax.parallel.sharding import constrain, partition_spec

_ROW_DIMS = ("batch", None)


class State(NamedTuple):
    """What the slots hold on the devices.

    Attributes:
      cache: keys and values.
      hidden: [B, D], the final norm's output at the last token, from which the next one follows.
      seen: bool [B, V], tokens that have occurred; kept up for rows with a repetition penalty.
    """

    cache: Cache
    hidden: jax.Array
    seen: jax.Array


class Chunk(NamedTuple):
    """Parts of prompts to read, arrays [R] or [R, Q].

    Attributes:
      ids: int32 [R, Q].
      next_ids: int32 [R, Q], the prompt's token after each; 0 behind the prompt.
      start: int32 [R], the position of the first.
      count: int32 [R], how many there are; 0: the row does nothing.
      rows: int32 [R], their slots, counted within the part of the batch that the row's device has.
    """

    ids: jax.Array
    next_ids: jax.Array
    start: jax.Array
    count: jax.Array
    rows: jax.Array


class Scores(NamedTuple):
    """Log-probabilities of chosen tokens [...], and where asked for the likeliest tokens and theirs [..., N]."""

    chosen: jax.Array
    top_ids: jax.Array
    top: jax.Array


class Slots(NamedTuple):
    """Where each slot stands, arrays [B].

    Attributes:
      lengths: int32, tokens in its cache.
      active: bool, whether it decodes.
      remaining: int32, tokens that it may still give.
      index: int32, tokens that it has given.
      stop_ids: int32 [B, K], tokens that end it; -1 fills up.
      options: how it chooses.
    """

    lengths: jax.Array
    active: jax.Array
    remaining: jax.Array
    index: jax.Array
    stop_ids: jax.Array
    options: Options


class Decoded(NamedTuple):
    """What a block of decoding gave: arrays [T, B], or [T, B, N] in `scores`.

    Attributes:
      ids: int32, the tokens.
      scores: of them.
      valid: bool, whether the slot was active.
    """

    ids: jax.Array
    scores: Scores
    valid: jax.Array


class Programs:
    """The engine's programs for a decoder, under the mesh in context."""

    def __init__(self, decoder: Decoder, slots: int, decode_steps: int):
        self._decoder, self._slots, self._steps = decoder, slots, decode_steps
        self.prefill = jax.jit(self._prefill, donate_argnums=1, static_argnames=("span", "scored"))
        self.decode = jax.jit(self._decode, donate_argnums=1, static_argnames=("span", "top"))
        self.copy = jax.jit(self._copy, donate_argnums=0)
        self.mark_seen = jax.jit(self._mark_seen, donate_argnums=0)

    def empty_state(self, length: int, chunk: int, cache_dtype: str) -> State:
        """The state of slots for sequences of at most `length` tokens that are read at most `chunk` at a time."""
        config = self._decoder.config

        def make() -> tuple[jax.Array, jax.Array]:
            hidden = jnp.zeros((self._slots, config.embed_dim), self._decoder.model.precision.compute)
            return self._pin(hidden), self._pin(jnp.zeros((self._slots, config.vocab_size), bool))

        return State(self._decoder.empty_cache(self._slots, length, chunk, cache_dtype), *jax.jit(make)())

    def _pin(self, array: jax.Array) -> jax.Array:
        return constrain(array, self._decoder.rules, _ROW_DIMS)

    def _everywhere(self, tree: Any) -> Any:
        """What the hosts read, whole on every device: each of several processes then sees all of it."""
        return jax.tree.map(lambda array: constrain(array, self._decoder.rules, (None,) * array.ndim), tree)

    def _prefill(
        self, params: Any, state: State, chunk: Chunk, span: int | None, scored: bool
    ) -> tuple[State, Scores | None]:
        """Reads parts of prompts; with `scored`, also scores `next_ids` [R, Q]."""
        offsets = jnp.arange(chunk.ids.shape[1], dtype=jnp.int32)
        positions, valid = chunk.start[:, None] + offsets, offsets < chunk.count[:, None]
        tokens = Tokens(chunk.ids, positions, valid, chunk.rows)
        hidden, cache = self._decoder.forward(params, state.cache, tokens, span=span, only_last=not scored)
        scores = None
        if scored:
            logits = jnp.moveaxis(self._decoder.logits(params, hidden), 0, -1)
            scores = self._everywhere(self._scores(logits, chunk.next_ids, MAX_TOP_LOG_PROBS))
            hidden = jnp.take_along_axis(hidden, jnp.maximum(chunk.count - 1, 0)[:, None, None], axis=1)
        slots = jnp.where(chunk.count > 0, self._numbers(chunk.rows), self._slots)  # out of bounds: dropped
        hidden = state.hidden.at[slots].set(hidden[:, 0], mode="drop")
        return State(cache, self._pin(hidden), state.seen), scores

    def _numbers(self, rows: jax.Array) -> jax.Array:
        """The slots of `Chunk.rows`, counted over the whole batch."""
        parts = batch_parts(self._decoder)
        part = jnp.arange(len(rows), dtype=jnp.int32) // (len(rows) // parts)
        return rows + part * (self._slots // parts)

    def _decode(
        self,
        params: Any,
        state: State,
        slots: Slots,
        leave_early: jax.Array,
        span: int | None,
        top: int | None,
    ) -> tuple[State, Decoded]:
        """Up to `decode_steps` tokens for each active slot.

        Args:
          params: laid out.
          state: of the slots.
          slots: where they stand.
          leave_early: bool, return as soon as a slot has finished: a request waits for it.
          span: as in `cached.read`.
          top: how many of the likeliest tokens to report; None: nobody asks for probabilities, and none are made.
        """
        shape = (self._steps, self._slots)
        scores = Scores(jnp.zeros(shape), jnp.zeros((*shape, top or 0), jnp.int32), jnp.zeros((*shape, top or 0)))
        given = Decoded(jnp.zeros(shape, jnp.int32), scores, jnp.zeros(shape, bool))

        def goes_on(carry: tuple) -> jax.Array:
            step, _, slots, _, finished = carry
            return (step < self._steps) & jnp.any(slots.active) & ~(leave_early & finished)

        def one(carry: tuple) -> tuple:
            step, state, slots, given, finished = carry
            logits = self._decoder.logits(params, state.hidden)
            ids = sample(logits, state.seen, slots.options, slots.index)
            now = Decoded(ids, self._scores(logits.T, ids, top), slots.active)
            given = jax.tree.map(lambda rows, row: rows.at[step].set(row), given, now)
            place = jnp.where(slots.active, ids, state.seen.shape[1])  # out of bounds: dropped
            seen = state.seen.at[jnp.arange(self._slots), place].set(True, mode="drop")
            ended = jnp.any(ids[:, None] == slots.stop_ids, axis=1) | (slots.remaining <= 1)
            active = slots.active & ~ended
            tokens = Tokens(ids[:, None], slots.lengths[:, None], active[:, None])
            hidden, cache = self._decoder.forward(params, state.cache, tokens, span=span)
            hidden = jnp.where(active[:, None], hidden[:, 0], state.hidden)
            advance = slots.active.astype(jnp.int32)
            slots = slots._replace(
                lengths=slots.lengths + active,
                active=active,
                remaining=slots.remaining - advance,
                index=slots.index + advance,
            )
            finished |= jnp.any(now.valid & ~active)
            return step + 1, State(cache, self._pin(hidden), self._pin(seen)), slots, given, finished

        start = (jnp.int32(0), state, slots, given, jnp.asarray(False))
        _, state, _, given, _ = jax.lax.while_loop(goes_on, one, start)
        return state, self._everywhere(given)

    def _scores(self, logits: jax.Array, ids: jax.Array, top: int | None) -> Scores:
        if not top:
            empty = jnp.zeros((*ids.shape, 0))
            chosen = jnp.zeros(ids.shape) if top is None else log_probs(logits, ids)
            return Scores(chosen, empty.astype(jnp.int32), empty)
        top_ids, values = top_log_probs(logits, top)
        missing = [(0, 0)] * ids.ndim + [(0, top - values.shape[-1])]
        top_ids = jnp.pad(top_ids, missing, constant_values=-1)
        return Scores(log_probs(logits, ids), top_ids, jnp.pad(values, missing, constant_values=-jnp.inf))

    def _copy(self, state: State, source: jax.Array, target: jax.Array) -> State:
        """Puts what one slot holds into another that lies on the same devices; `seen` stays."""
        decoder, parts = self._decoder, batch_parts(self._decoder)
        size = self._slots // parts

        def local(array: jax.Array) -> jax.Array:
            own = 0 if parts == 1 else jax.lax.axis_index(as_tuple(decoder.rules.batch))
            place = jnp.where(source // size == own, target % size, size)  # another device's: out of bounds, dropped
            return array.at[place].set(array[source % size], mode="drop")

        def over_mesh(array: jax.Array, dims: tuple[str | None, ...]) -> jax.Array:
            if parts == 1:
                return local(array)
            spec: PartitionSpec = partition_spec(decoder.rules, dims)
            return jax.shard_map(local, in_specs=spec, out_specs=spec, check_vma=False)(array)

        cache = jax.tree.map(lambda array: over_mesh(array, CACHE_DIMS), state.cache)
        return State(cache, over_mesh(state.hidden, _ROW_DIMS), state.seen)

    def _mark_seen(self, state: State, slot: jax.Array, seen: jax.Array) -> State:
        """Sets a slot's row of `seen`, bool [V]."""
        return state._replace(seen=self._pin(state.seen.at[slot].set(seen)))


def batch_parts(decoder: Decoder) -> int:
    """Over how many groups of devices the mesh in context divides the slots."""
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1
    for axis in () if mesh.empty else as_tuple(decoder.rules.batch):
        parts *= mesh.shape[axis]
    return parts
