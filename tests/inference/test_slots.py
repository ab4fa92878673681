"""Slots against a memory that is really written over."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.inference.slots import Placement, Ring, SlotTable

CHUNK = 4
RING = Ring(size=12, window=5)


class Memory:
    """What each place of a slot's ring holds: (position, token)."""

    def __init__(self):
        self.places = [None] * RING.size

    def write(self, position, token):
        self.places[position % RING.size] = position, token

    def sees(self, position, prompt):
        """Whether all that the token at `position` looks at, before itself, is there."""
        first = max(0, position - RING.window + 1)
        return all(self.places[p % RING.size] == (p, prompt[p]) for p in range(first, position))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=24), st.integers(0, 20), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_what_is_kept_is_really_there(requests):
    """Prompts of few tokens, so that many begin alike, are placed, read and gone on from, in two slots."""
    table, memories = SlotTable(2, 1, CHUNK, [RING]), [Memory(), Memory()]
    held = []
    for prompt, output, release in requests:
        prompt = np.asarray(prompt, np.int32)
        placement = table.place(prompt)
        if placement is None:
            table.release(held.pop(0))
            placement = table.place(prompt)
        slot, kept = placement.slot, placement.kept
        assert slot.holder is None
        assert kept % CHUNK == 0
        assert kept < len(prompt)
        if placement.source is not None:
            memories[slot.number].places = list(memories[placement.source.number].places)
        table.occupy(placement, "someone", prompt)
        for position in range(kept, len(prompt)):
            assert memories[slot.number].sees(position, prompt), (kept, position)
            memories[slot.number].write(position, prompt[position])
            slot.prompt, slot.written = prompt[: position + 1], max(slot.written, position + 1)
        for position in range(len(prompt), len(prompt) + output):
            memories[slot.number].write(position, -1)
            slot.written = max(slot.written, position + 1)
        held.append(slot)
        if release:
            table.release(held.pop(0))


def test_the_longest_prefix_is_taken_in_place_where_its_slot_is_free():
    table = SlotTable(3, 1, CHUNK)
    prompt = np.arange(20, dtype=np.int32)
    for number, length in ((0, 4), (1, 16)):
        table[number].prompt, table[number].written = prompt[:length], length
    assert table.place(prompt) == Placement(table[1], 16)
    table[1].holder = "someone"
    found = table.place(prompt)
    assert (found.kept, found.source) == (16, table[1])
    assert found.slot in (table[0], table[2])
    assert table.place(prompt, reuse=False).kept == 0


def test_slots_are_copied_within_their_group_of_devices_only():
    table = SlotTable(4, 2, CHUNK)
    prompt = np.arange(20, dtype=np.int32)
    table[0].prompt, table[0].written, table[0].holder = prompt, 20, "someone"
    assert table.place(prompt) == Placement(table[1], 16, table[0])
    table[1].holder = "another"
    assert table.place(prompt).kept == 0
    for slot in table:
        slot.holder = "all"
    assert table.place(prompt) is None
