"""Which values fit which annotations."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.config.types import Mismatch, convert, describe, reachable
from tests.config.examples import ChefExample, DishExample, KitchenExample, OvenExample


@pytest.mark.parametrize(
    ("value", "hint", "converted"),
    [
        (1, int, 1),
        (1, float, 1.0),
        (True, bool, True),
        ("x", str, "x"),
        (None, None, None),
        (None, int | None, None),
        (1, float | int, 1),
        (1, float | str, 1.0),
        (True, int | bool, True),
        ("b", Literal["a", "b"], "b"),
        (1, Literal[1, True], 1),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[int, float], (1, 2.0)),
        ((), tuple[int, ...], ()),
        ([[1]], tuple, ([1],)),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
        ({"a": [1]}, dict[str, tuple[int, ...]], {"a": (1,)}),
        ({1: "x"}, dict, {1: "x"}),
        ("any", Any, "any"),
        ({"t": 1}, dict[str, float] | str, {"t": 1.0}),
    ],
)
def test_what_fits(value, hint, converted):
    assert repr(convert(value, hint)) == repr(converted)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (True, int, "expected int"),
        (1, bool, "expected bool"),
        (0, None | str, "expected None or str"),
        (1.5, int, "expected int"),
        (True, float, "expected float"),
        (10**400, float, "expected a float, and this is too large for one"),
        (True, Literal[1], "expected one of 1"),
        ((1,), tuple[int, int], "expected tuple (int, int), 2 items and not 1"),
        ({"a": {"b": "x"}}, dict[str, dict[str, int]], "in 'a', in 'b', expected int"),
        ({"a": "x"}, dict[str, float] | str, "in 'a', expected float"),
        ([1], dict[str, float] | str, "expected dict of str to float or str"),
    ],
)
def test_what_does_not(value, hint, expected):
    with pytest.raises(Mismatch) as mismatch:
        convert(value, hint)
    assert mismatch.value.expected == expected


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.text() | st.none())
def test_a_union_of_all_keeps_what_it_is_given(value):
    for hint in (int | float | str | bool | None, None | bool | str | float | int):
        assert repr(convert(value, hint)) == repr(value)


def test_describe_and_reachable():
    assert describe(tuple[tuple[int, dict[str, float]], ...]) == "tuple of tuple (int, dict of str to float)"
    assert describe(DishExample | None) == "@DishExample() or None"
    assert reachable(KitchenExample) == [KitchenExample, ChefExample, DishExample, OvenExample]
