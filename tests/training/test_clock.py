import time

import pytest

from aya_jax.training.clock import Clock


def test_parts_add_up_and_a_lap_starts_anew(monkeypatch):
    now = 10.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock()
    for seconds in (1.0, 2.5):
        with clock.timing("data"):
            now += seconds
        now += 0.25
    lap = clock.lap()
    assert (lap["data"], lap["total"], lap["checkpoint"]) == (3.5, 4.0, 0.0)
    now += 2.0
    assert clock.lap() == {"total": 2.0}


def test_a_part_that_fails_is_timed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = Clock()

    def save(clock):
        nonlocal now
        with clock.timing("checkpoint"):
            now += 3.0
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        save(clock)
    assert clock.lap()["checkpoint"] == 3.0
