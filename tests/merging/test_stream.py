"""Tensors made ahead: in order, bounded, and with the errors of their making."""

import threading
import time

import numpy as np
import pytest

from aya_jax.merging.stream import Ahead

NAMES = [f"t{number}" for number in range(6)]


def pieces(name):
    return [np.full(3, 10 * int(name[1:]) + part) for part in range(4)]


def test_pieces_come_in_order_whichever_thread_makes_them():
    def make(name):
        for piece in pieces(name):
            time.sleep(0.002 * (name == "t0"))
            yield piece

    with Ahead(make, NAMES) as ahead:
        for name in NAMES:
            np.testing.assert_array_equal(list(ahead.take(name)), pieces(name))


def test_an_error_arrives_where_its_tensor_is_taken_and_the_threads_end():
    def make(name):
        yield from pieces(name)
        if name == "t1":
            raise ValueError("no such tensor")

    before = threading.active_count()
    with Ahead(make, NAMES) as ahead:
        assert len(list(ahead.take("t0"))) == 4
        with pytest.raises(ValueError, match="no such tensor"):
            list(ahead.take("t1"))
    assert threading.active_count() == before


@pytest.mark.parametrize(("count", "begun"), [(1000, 2), (1, 3)])
def test_what_nobody_takes_stops_being_made(count, begun):
    """Two threads with long tensors; of short ones, three are made."""
    made = []

    def make(name):
        for number in range(count):
            made.append((name, number))
            yield np.zeros(1)

    with Ahead(make, NAMES) as ahead:
        next(ahead.take("t0"))
        time.sleep(0.3)
    assert {name for name, _ in made} == set(NAMES[:begun])
    assert len(made) < 100
