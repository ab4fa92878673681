"""The stand-in for a value that is not known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.config.unknown import MARK, UNKNOWN, NotKnown, assuming


def said(value: object, known: int, truth: bool) -> list[str]:
    """A check as configuration classes write them, on a value and a number."""

    def check():
        if value < 1:
            yield "value is positive"
        if known % 2:
            yield "known is even"
        if known < 0 or value > known:
            yield f"at most {known}"
        if known > 10 and known > 5:
            yield "known is small"
        elif (value + 1) * 2 == known and value:
            yield f"not {value}"

    with assuming(truth):
        return list(check())


@given(st.integers(-20, 20), st.integers(-20, 20))
def test_what_is_said_either_way_is_said_of_every_value(value, known):
    certain = [line for line in said(UNKNOWN, known, False) if line in said(UNKNOWN, known, True) and MARK not in line]
    assert set(certain) <= set(said(value, known, True))
    assert ("known is even" in certain) == bool(known % 2)
    assert "value is positive" not in certain


def test_whatever_comes_of_it_is_unknown_too():
    derived = [UNKNOWN.layers[3].size(), -UNKNOWN, 2 * UNKNOWN, UNKNOWN // 2, UNKNOWN == 3, UNKNOWN % 2 != 1]
    assert all(value is UNKNOWN for value in derived)
    assert f"{UNKNOWN}" == MARK


def test_branches_follow_the_assumption_and_there_is_none_outside():
    with assuming(True):
        assert UNKNOWN > 3
        assert list(UNKNOWN) == [UNKNOWN]
        assert 3 in UNKNOWN
    with assuming(False):
        assert not UNKNOWN > 3
        assert list(UNKNOWN) == []
        assert 3 not in UNKNOWN
    with pytest.raises(NotKnown):
        bool(UNKNOWN)


@pytest.mark.parametrize("ask", [int, float, range, [1].__getitem__])
def test_what_needs_a_number_cannot_have_one(ask):
    with assuming(True), pytest.raises(NotKnown):
        ask(UNKNOWN)
