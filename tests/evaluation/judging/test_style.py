"""Length and Markdown of answers in any language."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.judging.style import FEATURES, Style, difference, style_of


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("", Style(0)),
        ("# A\n## B\n####### no\n#no\n", Style(25, headers=2)),
        ("- a\n* b\n+ c\n  1. d\n2) e\n-no\n", Style(31, lists=5)),
        ("١. أولا\n٢. ثانيا", Style(27, lists=2)),
        ("**a** __b__ **not\nover lines** *c*", Style(34, bold=2)),
        ("# A\n```py\n# no\n- no **no**\n```\n- b", Style(35, headers=1, lists=1)),
        ("~~~\n# no\n```\n# no\n~~~\n# A", Style(25, headers=1)),
        ("````\n```\n# no\n```\n# no\n````\n# A", Style(31, headers=1)),
        ("# A\n```\n# no: never closed\n- no", Style(31, headers=1)),
        ("so: ```# no\n- no``` and **b**", Style(30, bold=1)),
    ],
)
def test_counts(text, style):
    assert style_of(text) == Style(len(text.encode()), style.headers, style.lists, style.bold)


def test_length_is_in_the_caller_s_units():
    assert style_of("один два", lambda text: len(text.split())).length == 2
    assert style_of("один").length == 8


def test_differences_by_hand():
    a, b = Style(30, headers=2, lists=0, bold=5), Style(10, headers=0, lists=3, bold=5)
    assert difference("length", a, b) == 20 / 40
    assert difference("headers", a, b) == pytest.approx((2 / 31) / (2 / 31 + 1))
    assert difference("lists", a, b) == pytest.approx((-3 / 11) / (3 / 11 + 1))
    assert difference("bold", a, b) == pytest.approx((5 / 31 - 5 / 11) / (5 / 31 + 5 / 11 + 1))
    assert difference("length", Style(0), Style(0)) == 0.0


@settings(deadline=None)
@given(a=st.text(), b=st.text())
def test_differences_change_sign_with_the_order(a, b):
    for feature in FEATURES:
        there, back = difference(feature, style_of(a), style_of(b)), difference(feature, style_of(b), style_of(a))
        assert there == -back
        assert -1.0 <= there <= 1.0
