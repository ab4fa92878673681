"""Snapshots: plain data, JSON and back, fingerprints and differences."""

import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import FrozenConfigDict

from aya_jax.config import ConfigError, Difference, differences, leaves, resolve
from aya_jax.config.snapshot import ABSENT, fingerprint, freeze, from_json, is_excluded, to_json, to_plain
from tests.config.examples import ChefExample, DishExample, KitchenExample, OvenExample

KITCHEN = KitchenExample(
    run_dir="x",
    chef=ChefExample(hands=1, bowls=2),
    limit=math.inf,
    prices={"a.b": 1.0},
    plan=((0, {"t": 0.5}),),
    menu=(DishExample(name="soup"),),
    best=OvenExample(),
    words=("p", "q"),
)


def test_everything_has_one_dotted_name():
    assert dict(leaves(to_plain(KITCHEN))) == {
        "_class": "KitchenExample",
        "run_dir": "x",
        "chef.hands": 1,
        "chef.bowls": 2,
        "chef.title": "chef",
        "seed": 0,
        "limit": math.inf,
        "anything": None,
        "words": ("p", "q"),
        "prices.a%2Eb": 1.0,
        "plan.0.0": 0,
        "plan.0.1.t": 0.5,
        "guest": None,
        "menu.0.name": "soup",
        "menu.0.minutes": 10,
        "menu.0.oven": None,
        "dishes": {},
        "best._class": "OvenExample",
        "best.celsius": 180.0,
        "best.fan": False,
        "oven.celsius": 220.0,
        "oven.fan": False,
    }


def test_resolved_snapshot_is_frozen_and_whole():
    resolved = resolve(
        KitchenExample, bindings=["KitchenExample.run_dir=x", "ChefExample.hands=1", "ChefExample.bowls=2"]
    )
    assert isinstance(resolved.snapshot, FrozenConfigDict)
    assert resolved.snapshot.to_dict() == to_plain(resolved.config)
    assert resolved.snapshot.chef.bowls == 2
    with pytest.raises(AttributeError):
        resolved.snapshot.seed = 3


def test_json_is_strict_and_reads_back():
    text = to_json(to_plain(KITCHEN))
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert from_json(text) == to_plain(KITCHEN)
    assert freeze(from_json(text)) == freeze(to_plain(KITCHEN))


keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), max_size=4)
values = st.integers() | st.floats(allow_nan=False) | st.none() | keys
tuples = st.recursive(values, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
trees = st.dictionaries(
    keys, st.recursive(tuples, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=6), max_size=4
)


@given(trees)
def test_any_snapshot_reads_back_and_the_order_of_keys_does_not_count(tree):
    assert repr(from_json(to_json(tree))) == repr(tree)
    turned = dict(reversed(tree.items()))
    assert fingerprint(turned) == fingerprint(tree)


def test_a_path_that_is_not_utf8_can_be_written():
    assert from_json(to_json({"run_dir": "\udce9"}).encode().decode()) == {"run_dir": "\udce9"}


def test_the_fingerprint_is_that_of_canonical_json():
    expected = hashlib.sha256(b'{"a":{"c":[1,2.0,"\\u00e9"]},"z":{"_float":"inf"}}').hexdigest()
    assert fingerprint({"z": math.inf, "a": {"c": (1, 2.0, "é"), "b": 1}}, ["a.b"]) == expected


def test_excluded_fields_do_not_change_the_fingerprint_and_others_do():
    def of(*bindings):
        base = ["KitchenExample.run_dir=x", "ChefExample.hands=1", "ChefExample.bowls=2"]
        return resolve(KitchenExample, bindings=[*base, *bindings]).fingerprint

    assert of("KitchenExample.run_dir=y", "OvenExample.fan=True") == of()
    assert of("OvenExample.celsius=221") != of()
    assert of("KitchenExample.anything=1") != of("KitchenExample.anything=1.0") != of("KitchenExample.anything=True")
    assert of("KitchenExample.limit=1") == of("KitchenExample.limit=1.0")
    assert is_excluded("oven.fan.x", ["oven.fan"])
    assert not is_excluded("oven.fancy", ["oven.fan"])


def test_differences():
    old = {"a": 1, "b": {"c": (1, 2), "gone": None}, "same": {}}
    new = {"a": 1.0, "b": {"c": (1, 3)}, "same": {}, "new": "x"}
    assert differences(old, new) == [
        Difference("a", 1, 1.0),
        Difference("b.c", (1, 2), (1, 3)),
        Difference("new", ABSENT, "x"),
        Difference("b.gone", None, ABSENT),
    ]
    assert str(Difference("new", ABSENT, "x")) == "new: (absent) -> 'x'"
    assert differences(new, new) == []
    assert differences({"d": {}}, {"d": {"x": 1}}) == [Difference("d.x", ABSENT, 1)]


def test_problems_are_errors_before_any_snapshot():
    with pytest.raises(ConfigError):
        resolve(KitchenExample)
