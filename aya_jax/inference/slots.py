"""Which slot a prompt goes into, and what it need not read again because a slot holds it already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

_NOTHING = np.zeros(0, np.int32)


@dataclasses.dataclass(eq=False)
class Slot:
    """One sequence's place in the cache.

    Attributes:
      number: of the slot.
      part: which of the groups of devices that divide the slots has it.
      prompt: tokens of a prompt that it has read, from position 0 on.
      written: positions that have been written since the prompt began, those of its output too.
      holder: who occupies it; None: free.
      released: when it was last freed; grows with time.
    """

    number: int
    part: int
    prompt: np.ndarray = dataclasses.field(default_factory=lambda: _NOTHING)
    written: int = 0
    holder: Any = None
    released: int = 0


@dataclasses.dataclass(frozen=True)
class Ring:
    """A cache shorter than the sequence: `size` places, and a layer that looks `window` keys back."""

    size: int
    window: int


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a prompt goes.

    Attributes:
      slot: that takes it.
      kept: tokens of the prompt that need not be read.
      source: the slot that has them; None: `slot` itself, or nothing is kept.
    """

    slot: Slot
    kept: int
    source: Slot | None = None


class SlotTable:
    """All slots."""

    def __init__(self, count: int, parts: int, chunk: int, rings: Sequence[Ring] = ()):
        """Makes `count` free slots in `parts` equal groups, for prompts that are cut every `chunk` tokens."""
        self._slots = [Slot(number, number // (count // parts)) for number in range(count)]
        self._chunk, self._rings, self._clock = chunk, tuple(rings), 0

    def __iter__(self):
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    @property
    def free(self) -> list[Slot]:
        """Unoccupied slots, the longest unused first."""
        return sorted((slot for slot in self._slots if slot.holder is None), key=lambda slot: slot.released)

    def reusable(self, slot: Slot, prompt: np.ndarray) -> int:
        """How many of a prompt's first tokens a slot holds, as reading this prompt would have written them.

        A whole number of chunks, and never all of the prompt: the last token's output is needed.
        """
        most = min(len(slot.prompt), len(prompt) - 1)
        differs = np.flatnonzero(slot.prompt[:most] != prompt[:most])
        kept = (int(differs[0]) if len(differs) else most) // self._chunk * self._chunk
        # What a ring has overwritten must lie before all that the next token sees.
        intact = all(max(kept - ring.window + 1, 0) >= slot.written - ring.size for ring in self._rings)
        return kept if intact else 0

    def place(self, prompt: np.ndarray, *, reuse: bool = True) -> Placement | None:
        """The best place for a prompt; None where no slot is free. Nothing is changed."""
        free = self.free
        if not free:
            return None
        held = {slot.number: self.reusable(slot, prompt) if reuse else 0 for slot in self._slots}
        for source in sorted(self._slots, key=lambda slot: -held[slot.number]):
            kept = held[source.number]
            if not kept:
                break
            if source.holder is None:
                return Placement(source, kept)
            near = [slot for slot in free if slot.part == source.part]
            if near:
                return Placement(near[0], kept, source)
        room = {part: sum(slot.part == part for slot in free) for part in {slot.part for slot in free}}
        return Placement(max(free, key=lambda slot: room[slot.part]), 0)

    def occupy(self, placement: Placement, holder: Any, prompt: np.ndarray) -> None:
        """Gives a slot to a holder that goes on from what is kept of its prompt."""
        slot = placement.slot
        slot.holder, slot.prompt = holder, prompt[: placement.kept]
        # In place, a ring still lacks what was written over.
        slot.written = max(slot.written, placement.kept) if placement.source is None else placement.source.written
        if not placement.kept:
            slot.written = 0

    def release(self, slot: Slot) -> None:
        """Frees a slot; what it holds stays until it is given away."""
        self._clock += 1
        slot.holder, slot.released = None, self._clock

    def forget(self) -> None:
        """Keeps no prompt for others: the weights have changed."""
        for slot in self._slots:
            slot.prompt = _NOTHING
