"""Which verdict a reply ends on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.judging.battles import STRENGTH
from aya_jax.evaluation.judging.verdicts import parse_label, parse_verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("My verdict: [[A>>B]]", "A>>B"),
        ("[[A>B]] was my first thought, but [[B>>A]].", "B>>A"),  # the last one
        ("[[a=b]]", "A=B"),  # upper-cased before it is read
        ("[[A>B]] and then, as [B>A] puts it", "A>B"),  # double brackets before single ones, wherever they stand
        ("I say [B>A]", "B>A"),
        ("[[ A > B ]]", "A>B"),
        ("[[B<<A]]", "A>>B"),
        ("[[A<B]]", "B>A"),
        ("[[B=A]]", "A=B"),
        ("结论：【【Ａ＞＞Ｂ】】", "A>>B"),
        ("判定は［［Ｂ＞Ａ］］です", "B>A"),
        ("", None),
        ("A>B", None),
        ("[[A]]", None),  # a verdict of another form
        ("[[A>]] [[>B]] [[A>>>B]] [[AB]]", None),
        ("[[A>B", None),
    ],
)
def test_five_verdicts(reply, verdict):
    assert parse_verdict(reply, "arena_hard") == verdict


@pytest.mark.parametrize(
    ("reply", "form", "verdict"),
    [
        ("[[A]]", "win_tie_loss", "A>B"),
        ("[[B]]", "win_tie_loss", "B>A"),
        ("[[C]]", "win_tie_loss", "A=B"),
        ("[[C]]", "pairwise", None),
        ("[[B]], no, [[a]]", "pairwise", "A>B"),
        ("[[A>B]]", "pairwise", None),
        ("Answer [B] cites [A].", "pairwise", "A>B"),
    ],
)
def test_other_forms(reply, form, verdict):
    assert parse_verdict(reply, form) == verdict


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("[[UNSAFE]]", True),
        ("[[safe]]", False),
        ("[[SAFE]] ... [[UNSAFE]]", True),
        ("UNSAFE", None),
        ("[[NOT SAFE]]", None),
    ],
)
def test_labels_of_one_answer(reply, label):
    assert parse_label(reply, "UNSAFE", "SAFE") is label


@settings(deadline=None)
@given(
    before=st.text(st.characters(exclude_characters="[]【】［］〔〕")),
    after=st.text(st.characters(exclude_characters="[]【】［］〔〕")),
    earlier=st.lists(st.sampled_from(sorted(STRENGTH))),
    verdict=st.sampled_from(sorted(STRENGTH)),
)
def test_whatever_stands_about_it_the_last_verdict_is_found(before, after, earlier, verdict):
    said = before.join(f"[[{each}]]" for each in [*earlier, verdict]) + after
    assert parse_verdict(said, "arena_hard") == verdict
