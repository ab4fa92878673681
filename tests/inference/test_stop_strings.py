"""Stop strings against a search in the whole text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aya_jax.inference.stop_strings import StopStrings

TEXT = st.text("ab.", max_size=12)


@given(st.lists(TEXT, max_size=10), st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_however_it_comes(pieces, stop):
    found, passed = StopStrings(stop), ""
    for piece in pieces:
        passed += found.push(piece)
        assert not any(text in passed for text in stop)
    passed += found.flush()
    whole = "".join(pieces)
    # A stop string is found when its last character comes; the earliest to be complete in a piece wins by where it begins.
    ends = [whole.find(text) for text in stop if text in whole]
    if ends:
        assert found.found is not None
        assert whole.startswith(passed + found.found)
        assert not any(text in passed for text in stop)
    else:
        assert passed == whole
        assert found.found is None


def test_nothing_is_held_back_longer_than_it_could_begin_a_stop_string():
    found = StopStrings(("STOP",))
    assert found.push("abcST") == "abc"
    assert found.push("x") == "STx"
    assert found.push("yS") == "y"
    assert found.push("TOP and more") == ""
    assert found.found == "STOP"
    assert found.flush() == ""
