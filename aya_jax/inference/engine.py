"""The decode engine: token requests in, tokens out, many at a time.

A fixed number of slots each hold one sequence: its part of the key-value cache and the logits of its next token. `step`
reads some waiting prompts into free slots, chunk by chunk, then decodes a few tokens for every slot that has its prompt
(continuous batching: Yu et al. 2022, Orca). What a slot keeps of a prompt serves others that begin alike.

A request's tokens are a function of the weights, the prompt, its sampling and its seed alone: a prompt is always cut into the
same chunks, every program has one shape, and rows of it do not mix. One thread at a time calls an engine.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from aya_jax.config import UserError
from aya_jax.inference.config import MAX_TOP_LOG_PROBS, EngineConfig, SamplingConfig
from aya_jax.inference.decoder import Decoder
from aya_jax.inference.programs import Chunk, Decoded, Options, Programs, Scores, Slots, State, batch_parts
from aya_jax.inference.protocol import FinishReason
from aya_jax.inference.slots import Placement, Ring, Slot, SlotTable
from aya_jax.kernels.attention.cached import TILE
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.mesh import platform

MAX_STOP_IDS = 32
_MIN_CHUNK = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """One sample to make.

    Attributes:
      prompt: token ids, at least one.
      sampling: how to choose; its `n`, `stop` and `stop_ids` are the caller's business.
      stop_ids: tokens that end the sample.
      number: of the sample among those of its prompt; part of what its randomness derives from.
    """

    prompt: Sequence[int]
    sampling: SamplingConfig
    stop_ids: frozenset[int] = frozenset()
    number: int = 0


@dataclasses.dataclass(frozen=True)
class Scored:
    """A token, its log-probability where one was asked for, and the likeliest at its place as (id, log-probability)."""

    id: int
    log_prob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a listener is told.

    Attributes:
      tokens: new ones, in order.
      finish_reason: with the last of them.
      prompt: the prompt's tokens, once, before any other, where `sampling.prompt_log_probs` asks.
    """

    tokens: tuple[Scored, ...] = ()
    finish_reason: FinishReason | None = None
    prompt: tuple[Scored, ...] = ()


@dataclasses.dataclass(frozen=True)
class EngineStats:
    """What an engine is doing, and has done.

    Attributes:
      running: samples in slots.
      waiting: samples without one.
      prompt_tokens: tokens of prompts that were read.
      reused_tokens: tokens of prompts that a slot held already.
      generated_tokens: tokens sampled.
      decode_steps: passes over all slots.
    """

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    decode_steps: int = 0


class Sample:
    """A request in work: what `submit` returns and `cancel` takes."""

    def __init__(self, request: TokenRequest, listener: Callable[[Progress], None], limit: int):
        self.request, self.listener, self.limit = request, listener, limit
        self.prompt = np.asarray(request.prompt, np.int32)
        self.read = self.given = 0  # tokens of the prompt in the slot; tokens sampled
        self.slot: Slot | None = None
        self.done = False
        self.scores: list[Scored] = []
        self.key = np.random.SeedSequence([request.sampling.seed, request.number]).generate_state(2, np.uint32)

    @property
    def asked(self) -> int | None:
        """How many of the likeliest tokens to report beside the chosen one; None: no probabilities at all."""
        sampling = self.request.sampling
        return 0 if sampling.log_probs is None and sampling.prompt_log_probs else sampling.log_probs

    @property
    def reading(self) -> bool:
        """Whether its slot lacks some of the prompt."""
        return self.read < len(self.prompt)


def slots_for(samples: int, most: int, parts: int) -> int:
    """As few slots as work on so many samples, all of one length, in as many rounds as the most slots do.

    80 samples take two rounds of 64 slots, and of 40 too; a block of tokens costs the less the fewer slots there are.

    Args:
      samples: at least 1.
      most: slots, a multiple of `parts`.
      parts: groups of devices that slots are divided over.
    """
    rounds = -(-samples // most)
    unit = math.lcm(parts, 8)  # so that other numbers of samples run the same programs
    return min(most, -(-samples // rounds // unit) * unit)


class Engine:
    """Slots on the devices of a mesh; all methods are called under `jax.set_mesh(mesh)`."""

    def __init__(
        self,
        model: Transformer,
        params: Any,
        config: EngineConfig,
        *,
        consume: bool = False,
        samples: int | None = None,
    ):
        """Lays the parameters out and makes the cache.

        Args:
          model: the model.
          params: its parameters, as training has them.
          config: the engine's shape.
          consume: free `params` on the way.
          samples: how many will be asked for, where that is known: fewer slots may serve them as well (`slots_for`).

        Raises:
          UserError: the slots do not divide over the mesh, or the mesh splits sequences.
        """
        self.config = config
        self.max_length = min(config.max_length or model.config.max_sequence_length, model.config.max_sequence_length)
        self._decoder = Decoder.of(model)
        parts = batch_parts(self._decoder)
        if config.slots % parts:
            raise UserError(
                f"EngineConfig.slots = {config.slots} does not divide over the {parts} groups of devices that the mesh divides "
                f"sequences over: choose a multiple of {parts}, or bind MeshConfig.tensor instead of data or fsdp"
            )
        if samples is not None:
            slots = slots_for(samples, config.slots, parts)
            config = dataclasses.replace(config, slots=slots, prefill_rows=min(config.prefill_rows, slots))
            self.config = config
        self._rows = -(-config.prefill_rows // parts)  # prompts that each part reads at a time
        self._chunks = chunk_sizes(config.prefill_chunk)
        rings = [
            Ring(self._decoder.cache_size(kind, self.max_length, self._chunks[0]), kind.window)
            for kind in set(self._decoder.kinds)
            if kind.window is not None
        ]
        self._slots, self._parts = SlotTable(config.slots, parts, self._chunks[0], rings), parts
        self._programs = Programs(self._decoder, config.slots, config.decode_steps)
        self._params = self._decoder.lay_out(params, consume=consume)
        self._cache_dtype = config.cache_dtype or model.precision.compute
        self._state: State | None = self._empty_state()
        self._waiting: deque[Sample] = deque()
        self._reading: list[Sample] = []
        self._stats = EngineStats()

    def _empty_state(self) -> State:
        return self._programs.empty_state(self.max_length, self._chunks[0], self._cache_dtype)

    # Requests --------------------------------------------------------------------------------------------------------

    def submit(self, request: TokenRequest, listener: Callable[[Progress], None]) -> Sample:
        """Queues a request; `step` tells the listener what comes of it.

        Raises:
          UserError: the prompt is empty or too long, has ids out of range, or there are too many stop tokens.
        """
        self.check(request)
        sample = Sample(request, listener, min(request.sampling.max_tokens, self.max_length - len(request.prompt)))
        self._waiting.append(sample)
        return sample

    def check(self, request: TokenRequest) -> None:
        """Raises what `submit` would; safe to call from any thread."""
        size, vocabulary = len(request.prompt), self._decoder.config.vocab_size
        if not size:
            raise UserError("the prompt is empty: at least one token is needed")
        if size >= self.max_length:
            raise UserError(
                f"the prompt is {size} tokens long, and the engine takes {self.max_length} with its output; shorten it, or "
                "raise EngineConfig.max_length where the model allows it"
            )
        if not all(0 <= token < vocabulary for token in request.prompt):
            raise UserError(f"the prompt has token ids outside the model's vocabulary of {vocabulary}")
        if len(request.stop_ids) > MAX_STOP_IDS:
            raise UserError(f"{len(request.stop_ids)} stop tokens, and at most {MAX_STOP_IDS} are possible")

    def cancel(self, sample: Sample) -> None:
        """Ends a sample without telling its listener; its slot is free."""
        if sample.done:
            return
        sample.done = True
        if sample.slot is not None:
            self._release(sample)
        else:
            self._waiting.remove(sample)

    def load(self, params: Any) -> None:
        """Takes other weights of the same model. Samples in work go on with them; no earlier prompt is reused."""
        self._params = None  # freed before the new ones are laid out
        self._params = self._decoder.lay_out(params)
        if self._state is None:
            self._state = self._empty_state()
        self.forget()

    def release(self) -> None:
        """Frees weights and cache, for what else the devices have to do until `load`.

        Raises:
          ValueError: there are samples in work.
        """
        if self._waiting or self._reading or self.stats.running:
            raise ValueError("the engine has samples in work")
        self._params = self._state = None

    def forget(self) -> None:
        """Reuses nothing of the prompts so far."""
        self._slots.forget()

    @property
    def stats(self) -> EngineStats:
        """What it is doing, and has done."""
        running = sum(slot.holder is not None for slot in self._slots)
        return dataclasses.replace(self._stats, running=running, waiting=len(self._waiting))

    # Work ------------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Reads some prompts, decodes some tokens, tells the listeners; False if there was nothing to do."""
        self._admit()
        for _ in range(self.config.prefill_chunks):
            if not self._reading:
                break
            self._read()
            self._admit()
        decoding = [slot.holder for slot in self._slots if slot.holder is not None and not slot.holder.reading]
        if decoding:
            self._decode(decoding)
        return bool(decoding or self._reading or self._waiting)

    def _admit(self) -> None:
        """Gives free slots to waiting samples, in order; one whose prompt is just being read waits to copy it."""
        held_back: list[Sample] = []
        while self._waiting and any(slot.holder is None for slot in self._slots):
            sample = self._waiting.popleft()
            if any(_same_prompt(sample, other) for other in self._reading):
                held_back.append(sample)
                continue
            placement = self._slots.place(sample.prompt, reuse=not sample.request.sampling.prompt_log_probs)
            self._occupy(sample, placement)
            self._reading.append(sample)
        self._waiting.extendleft(reversed(held_back))

    def _occupy(self, sample: Sample, placement: Placement) -> None:
        if placement.source is not None:
            self._state = self._programs.copy(self._state, placement.source.number, placement.slot.number)
        self._slots.occupy(placement, sample, sample.prompt)
        sample.slot, sample.read = placement.slot, placement.kept
        self._count(reused_tokens=placement.kept)
        if sample.request.sampling.repetition_penalty != 1:
            seen = np.zeros(self._decoder.config.vocab_size, bool)
            seen[sample.prompt] = True
            self._state = self._programs.mark_seen(self._state, placement.slot.number, seen)

    def _read(self) -> None:
        """Reads one chunk of as many prompts as are read at a time, the longest waiting first."""
        size = self._next_chunk(self._reading[0])
        scored = self._reading[0].request.sampling.prompt_log_probs
        chosen: dict[int, list[Sample]] = {part: [] for part in range(self._parts)}
        for sample in self._reading:
            rows = chosen[sample.slot.part]
            alike = self._next_chunk(sample) == size and sample.request.sampling.prompt_log_probs == scored
            if alike and len(rows) < self._rows:
                rows.append(sample)
        placed = {part * self._rows + row: sample for part, row_ in chosen.items() for row, sample in enumerate(row_)}
        chunk = self._chunk(placed, size)
        span = self._span(max(sample.read for sample in placed.values()) + size)
        self._state, scores = self._programs.prefill(self._params, self._state, chunk, span=span, scored=scored)
        scores = jax.tree.map(np.asarray, scores)
        for row, sample in placed.items():
            count = int(chunk.count[row])
            if scored:
                sample.scores += _prompt_scores(Scores(*(array[row] for array in scores)), sample, count)
            sample.read += count
            sample.slot.prompt = sample.prompt[: sample.read]
            sample.slot.written = max(sample.slot.written, sample.read)
            self._count(prompt_tokens=count)
            if not sample.reading:
                self._has_read(sample)

    def _next_chunk(self, sample: Sample) -> int:
        """How many places the next part of a prompt takes: a function of the prompt alone."""
        left = len(sample.prompt) - sample.read
        return next((size for size in reversed(self._chunks) if size >= left), self._chunks[0])

    def _chunk(self, placed: dict[int, Sample], size: int) -> Chunk:
        rows, per_part = self._rows * self._parts, self.config.slots // self._parts
        ids, next_ids = np.zeros((2, rows, size), np.int32)
        start, count, slots = np.zeros((3, rows), np.int32)
        for row, sample in placed.items():
            part = sample.prompt[sample.read : sample.read + size]
            after = sample.prompt[sample.read + 1 : sample.read + size + 1]
            ids[row, : len(part)], next_ids[row, : len(after)] = part, after
            start[row], count[row], slots[row] = sample.read, len(part), sample.slot.number % per_part
        return Chunk(ids, next_ids, start, count, slots)

    def _has_read(self, sample: Sample) -> None:
        """Tells of the prompt, and gives free slots to other samples of it."""
        self._reading.remove(sample)
        _tell_prompt(sample, sample.scores)
        for other in [other for other in self._waiting if _same_prompt(other, sample)]:
            slot = next((slot for slot in self._slots.free if slot.part == sample.slot.part), None)
            if slot is None:
                return
            self._waiting.remove(other)
            self._occupy(other, Placement(slot, len(sample.prompt), sample.slot))
            _tell_prompt(other, sample.scores)

    def _decode(self, decoding: Sequence[Sample]) -> None:
        asked = [sample.asked for sample in decoding]
        top = MAX_TOP_LOG_PROBS if any(asked) else None if set(asked) == {None} else 0
        longest = max(len(sample.prompt) + sample.given for sample in decoding)
        self._state, decoded = self._programs.decode(
            self._params,
            self._state,
            self._standing(decoding),
            bool(self._waiting),
            span=self._span(longest + self.config.decode_steps),
            top=top,
        )
        decoded = jax.tree.map(np.asarray, decoded)
        self._count(decode_steps=int(decoded.valid.any(axis=1).sum()))
        for sample in decoding:
            self._tell(sample, list(_tokens(decoded, sample)))

    def _standing(self, decoding: Sequence[Sample]) -> Slots:
        slots = self.config.slots
        lengths, remaining, index = np.zeros((3, slots), np.int32)
        active, stop_ids = np.zeros(slots, bool), np.full((slots, MAX_STOP_IDS), -1, np.int32)
        options = Options(
            temperature=np.zeros(slots, np.float32),
            top_k=np.zeros(slots, np.int32),
            top_p=np.ones(slots, np.float32),
            min_p=np.zeros(slots, np.float32),
            repetition_penalty=np.ones(slots, np.float32),
            key=np.zeros((slots, 2), np.uint32),
        )
        for sample in decoding:
            at, sampling = sample.slot.number, sample.request.sampling
            lengths[at], index[at] = len(sample.prompt) + sample.given, sample.given
            remaining[at], active[at] = sample.limit - sample.given, True
            stop_ids[at, : len(sample.request.stop_ids)] = sorted(sample.request.stop_ids)
            for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty"):
                getattr(options, name)[at] = getattr(sampling, name)
            options.key[at] = sample.key
        return Slots(lengths, active, remaining, index, stop_ids, options)

    def _tell(self, sample: Sample, tokens: Sequence[Scored]) -> None:
        """Counts a sample's new tokens, frees its slot if it has finished, and tells its listener."""
        sample.given += len(tokens)
        sample.slot.written = max(sample.slot.written, len(sample.prompt) + sample.given)
        self._count(generated_tokens=len(tokens))
        reason: FinishReason | None = None
        if tokens[-1].id in sample.request.stop_ids:
            reason = "stop"
        elif sample.given >= sample.limit:
            reason = "length"
        if reason is not None:
            sample.done = True
            self._release(sample)
        sample.listener(Progress(tuple(tokens), reason))

    def _release(self, sample: Sample) -> None:
        if sample in self._reading:
            self._reading.remove(sample)
        self._slots.release(sample.slot)

    def _span(self, length: int) -> int | None:
        """Places of the cache to read. A CPU finds out as it goes; elsewhere one of a few lengths, each a program."""
        if platform() == "cpu":
            return None
        return min(max(TILE, 1 << (length - 1).bit_length()), self.max_length)

    def _count(self, **more: int) -> None:
        self._stats = dataclasses.replace(
            self._stats, **{name: getattr(self._stats, name) + number for name, number in more.items()}
        )


def chunk_sizes(largest: int) -> tuple[int, ...]:
    """Chunks that prompts are read in, the largest first; the end of a prompt takes the smallest that holds it."""
    return (largest, *(size for eighths in (6, 5, 4, 3, 2, 1) if (size := largest * eighths // 8) >= _MIN_CHUNK))


def _same_prompt(one: Sample, other: Sample) -> bool:
    """Whether one sample's prompt serves the other."""
    scored = one.request.sampling.prompt_log_probs, other.request.sampling.prompt_log_probs
    return (not scored[0] or scored[1]) and np.array_equal(one.prompt, other.prompt)


def _tell_prompt(sample: Sample, scores: Sequence[Scored]) -> None:
    """Tells a listener that asked of the prompt's tokens; the first has no probability."""
    if sample.request.sampling.prompt_log_probs:
        sample.listener(Progress(prompt=(Scored(int(sample.prompt[0]), None), *scores)))


def _prompt_scores(scores: Scores, sample: Sample, count: int) -> Iterator[Scored]:
    """The tokens after each of a chunk, with their scores; the prompt's last has none after it."""
    for place, following in enumerate(sample.prompt[sample.read + 1 : sample.read + count + 1]):
        yield _scored(int(following), scores, place, sample.asked)


def _tokens(decoded: Decoded, sample: Sample) -> Iterator[Scored]:
    """The tokens that a block gave to a sample."""
    at = sample.slot.number
    scores = Scores(*(array[:, at] for array in decoded.scores))
    for step in np.flatnonzero(decoded.valid[:, at]):
        yield _scored(int(decoded.ids[step, at]), scores, step, sample.asked)


def _scored(token: int, scores: Scores, place: int, top: int | None) -> Scored:
    if top is None:
        return Scored(token, None)
    likeliest = zip(scores.top_ids[place][:top], scores.top[place][:top], strict=True)
    return Scored(
        token,
        float(scores.chosen[place]),
        tuple((int(other), float(value)) for other, value in likeliest if other >= 0),
    )
