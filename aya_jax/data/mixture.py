"""Which sequence of which task is the i-th of a run: a pure function of (mixture, seed, i), in bounded memory.

Shares become whole numbers of `PERIOD` slots, and slots are handed out so that after any number k of sequences every task
has had more than k * share - 1 and less than k * share + 1 of them. Such an order exists for any shares (Tijdeman 1980,
"The chairman assignment problem"), and taking the open copy with the earliest deadline finds it (Baruah, Cohen, Plaxton
and Varvel 1996, "Proportionate progress", sections 2 and 3). It repeats after a period, so no table grows with the run.

The n-th sequence of a task is then the n-th of a permutation of its store, another in each epoch (Grain's index shuffle,
a pseudo-random permutation that needs no memory).
"""

from __future__ import annotations

import bisect
import difflib
import fnmatch
import functools
import hashlib
import heapq
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from grain.experimental import index_shuffle

from aya_jax.config import UserError
from aya_jax.data.config import MixtureConfig

ORDER_VERSION = 1  # raised by any change that gives some run other batches; kept in its checkpoints
PERIOD = 1 << 20  # slots that an order repeats after; shares are multiples of its inverse
_GROWTH = 1 << 13  # slots that are worked out at a time
_SMALL = 1 << 14  # sequences of which a whole permutation is kept: 32 kB
_ROUNDS = 4  # of the permutation's Feistel network, as Grain's own shuffle uses


# Rates ----------------------------------------------------------------------------------------------------------------


def expand(rates: Mapping[str, float], tokens: Mapping[str, int], temperature: float) -> dict[str, float]:
    """The share of each task, by name in order; they sum to 1.

    Args:
      rates: name or pattern → rate.
      tokens: every task there is → tokens in its training store.
      temperature: divides a pattern's rate over its tasks by tokens^(1/temperature).

    Raises:
      UserError: a key matches no task, or two patterns the same one; a share below one sequence in `PERIOD`.
    """
    owner: dict[str, str] = {name: name for name in rates if name in tokens}
    for pattern in (key for key in rates if key not in owner):
        matched = [name for name in fnmatch.filter(sorted(tokens), pattern) if owner.get(name) != name]
        if not matched:
            raise UserError(_no_match(pattern, tokens))
        for name in matched:
            if name in owner:
                raise UserError(
                    f"mixture: {owner[name]!r} and {pattern!r} both match {name}; name it alone, or drop one"
                )
            owner[name] = pattern
    total, shares = math.fsum(rates.values()), {}
    for key, rate in rates.items():
        names = sorted(name for name, of in owner.items() if of == key)
        logs = [math.log(max(tokens[name], 1)) / temperature for name in names]
        weights = [math.exp(log - max(logs)) for log in logs]
        shares |= {
            name: rate / total * weight / math.fsum(weights) for name, weight in zip(names, weights, strict=True)
        }
    for name, share in shares.items():
        if share * PERIOD < 0.5:
            raise UserError(
                f"mixture: {name} would have a share of {share:.1e}, less than one sequence in two million; "
                "leave it out, or raise the temperature"
            )
    return dict(sorted(shares.items()))


def _no_match(pattern: str, tokens: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(pattern, tokens, n=3)
    there = ", ".join(sorted(tokens)) or "none"
    hint = f"did you mean {', '.join(near)}?" if near else f"token stores: {there}"
    return f"mixture: no task matches {pattern!r}; {hint}"


def registered_rates(name: str) -> dict[str, float]:
    """Rates of the tasks of a registered SeqIO mixture, by its own rate functions; imports SeqIO.

    Raises:
      UserError: a rate is not a number above 0, or there is no such mixture.
    """
    from aya_jax.data.seqio_source import seqio

    if name not in seqio.MixtureRegistry.names():
        near = difflib.get_close_matches(name, seqio.MixtureRegistry.names(), n=3)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise UserError(f"mixture: there is no task or mixture {name!r}; {hint}Import the module that registers it")
    mixture = seqio.MixtureRegistry.get(name)
    rates = {task.name: float(mixture.get_rate(task)) for task in mixture.tasks}
    for task, rate in rates.items():
        if not 0 < rate < math.inf:
            raise UserError(f"mixture {name}: its rate for {task} is {rate}; it must be a number above 0")
    return rates


# Order ----------------------------------------------------------------------------------------------------------------


def slots(shares: Sequence[float]) -> list[int]:
    """Whole slots of a period for each share, at least one each: largest remainders. They sum to `PERIOD`."""
    exact = [share * PERIOD for share in shares]
    counts = [max(1, math.floor(value)) for value in exact]
    missing = PERIOD - sum(counts)
    if missing < 0:  # tiny shares were given a slot: the largest has many, and gives them up
        counts[counts.index(max(counts))] += missing
    for k in sorted(range(len(shares)), key=lambda k: (counts[k] - exact[k], k))[: max(0, missing)]:
        counts[k] += 1
    return counts


class Interleave:
    """An endless order of tasks by fixed shares. What has been worked out is kept: at most 6 MB."""

    def __init__(self, shares: Sequence[float]):
        self.slots = slots(shares)
        self._task = np.empty(0, np.uint16)
        self._rank = np.empty(0, np.uint32)  # how many slots its task had before it
        self._done = [0] * len(self.slots)
        self._ready: list[tuple[int, int]] = []  # (deadline, task) of copies that may run
        self._waiting = [(0, task) for task in range(len(self.slots))]  # (release, task) of those that may not yet
        self._lock = threading.Lock()

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Task, and number among that task's sequences, of each; int64 [N] → two int64 [N]."""
        cycle, slot = np.divmod(indices, PERIOD)
        self._grow(int(slot.max(initial=-1)) + 1)
        task = self._task[slot].astype(np.int64)
        return task, cycle * np.array(self.slots)[task] + self._rank[slot]

    def counts(self, stop: int) -> np.ndarray:
        """How many of the first `stop` sequences each task has; int64 [tasks]."""
        cycle, slot = divmod(stop, PERIOD)
        self._grow(slot)
        return cycle * np.array(self.slots) + np.bincount(self._task[:slot], minlength=len(self.slots))

    def _grow(self, stop: int) -> None:
        """Works out the first `stop` slots, in whole steps of `_GROWTH`."""
        if stop <= len(self._task):
            return
        with self._lock:
            begin, end = len(self._task), -(-stop // _GROWTH) * _GROWTH
            if end <= begin:
                return
            tasks, ranks = np.empty(end - begin, np.uint16), np.empty(end - begin, np.uint32)
            for slot in range(begin, end):
                task = self._next(slot)
                tasks[slot - begin], ranks[slot - begin] = task, self._done[task] - 1
            # The ranks first: a thread that sees the longer table of tasks finds its ranks.
            self._rank = np.concatenate([self._rank, ranks])
            self._task = np.concatenate([self._task, tasks])

    def _next(self, slot: int) -> int:
        """The task of one slot. Copy j of a task with m slots may run from slot floor(j P / m) on, and must have by
        ceil((j + 1) P / m): the windows in which its count stays within one of the exact one."""
        while self._waiting and self._waiting[0][0] <= slot:
            task = heapq.heappop(self._waiting)[1]
            heapq.heappush(self._ready, (-(-(self._done[task] + 1) * PERIOD // self.slots[task]), task))
        task = heapq.heappop(self._ready)[1]
        self._done[task] += 1
        heapq.heappush(self._waiting, (self._done[task] * PERIOD // self.slots[task], task))
        return task


@dataclass(frozen=True)
class Stage:
    """Rates that hold from one sequence on.

    Attributes:
      start: first sequence.
      tasks: int64 [k], which tasks of the run have a share here.
      interleave: their order.
      before: int64 [tasks of the run], sequences that each has had in the stages before.
    """

    start: int
    tasks: np.ndarray
    interleave: Interleave
    before: np.ndarray


class Order:
    """Task, and number within it, of every sequence of a run whose rates change by step."""

    def __init__(self, schedule: Sequence[tuple[int, Mapping[str, float]]]):
        """Args: schedule: (first sequence, task → share) of each stage, in order; the first begins at 0."""
        self.tasks = tuple(sorted({name for _, shares in schedule for name in shares}))
        self.stages: list[Stage] = []
        before = np.zeros(len(self.tasks), np.int64)
        for start, shares in schedule:
            if self.stages:
                before = self.counts(start)
            names = sorted(shares)
            indices = np.array([self.tasks.index(name) for name in names])
            self.stages.append(Stage(start, indices, Interleave([shares[name] for name in names]), before))

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index into `tasks`, and number among that task's sequences; int64 [N] → two int64 [N]."""
        indices = np.asarray(indices, np.int64)
        task, ordinal = np.empty_like(indices), np.empty_like(indices)
        which = np.searchsorted([stage.start for stage in self.stages], indices, side="right") - 1
        for number in np.unique(which):
            stage, here = self.stages[number], which == number
            local, rank = stage.interleave.locate(indices[here] - stage.start)
            task[here] = stage.tasks[local]
            ordinal[here] = rank + stage.before[task[here]]
        return task, ordinal

    def counts(self, stop: int) -> np.ndarray:
        """How many of the first `stop` sequences each of `tasks` has; int64 [tasks]."""
        stage = self.stages[max(0, bisect.bisect_right([stage.start for stage in self.stages], stop) - 1)]
        counts = stage.before.copy()
        counts[stage.tasks] += stage.interleave.counts(stop - stage.start)
        return counts


def make_order(config: MixtureConfig, tokens: Mapping[str, int], global_batch: int) -> Order:
    """The order of a mixture; `tokens` is every task there is → tokens in its training store. Raises as `expand`."""
    rates = config.rates
    if isinstance(rates, str):
        known = rates in tokens or any(character in rates for character in "*?[")
        rates = {rates: 1.0} if known else registered_rates(rates)
    stages = [(0, rates), *((step * global_batch, later) for step, later in config.schedule)]
    return Order([(start, expand(rates, tokens, config.temperature)) for start, rates in stages])


# Permutations ---------------------------------------------------------------------------------------------------------


class Permutation:
    """Endless permutations of [0, size), one for each epoch.

    A store of few sequences has its permutations made whole, because Grain's shuffle walks through at least 2^16 places to
    stay among them: a thousand times as slow for twenty.
    """

    def __init__(self, seed: int, name: str, size: int):
        if size > 2**32:
            raise UserError(f"{name}: {size} sequences; an order of more than 2^32 is not made, lengthen the sequences")
        self._size, self._key = size, f"{ORDER_VERSION}:{seed}:{name}"

    def locate(self, ordinals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Epoch, and index in [0, size), of the n-th draw; int64 [N] → two int64 [N]."""
        epochs, places = np.divmod(ordinals, self._size)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here, key = epochs == epoch, f"{self._key}:{epoch}"
            if self._size <= _SMALL:
                indices[here] = _kept_permutation(key, self._size)[places[here]]
            else:
                seed, top = draw(key, 1 << 32), self._size - 1
                indices[here] = [
                    index_shuffle(k, max_index=top, seed=seed, rounds=_ROUNDS) for k in places[here].tolist()
                ]
        return epochs, indices


def permutation(key: str, size: int) -> np.ndarray:
    """A permutation of [0, size) that a key decides, int64 [size]: the order of pseudo-random 64-bit numbers."""
    numbers = np.frombuffer(hashlib.shake_128(key.encode()).digest(8 * size), "<u8")
    return np.argsort(numbers, kind="stable")


@functools.lru_cache(maxsize=256)
def _kept_permutation(key: str, size: int) -> np.ndarray:
    return permutation(key, size).astype(np.uint16)


def draw(key: str, below: int) -> int:
    """A number in [0, below) that a key decides, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % below
