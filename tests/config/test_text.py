"""The operative text: building from it alone gives the same configuration."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aya_jax.config import resolve
from aya_jax.config.source import parse_value
from aya_jax.config.text import literal
from tests.config.examples import VALID, KitchenExample

numbers = st.floats(allow_nan=False) | st.sampled_from([1e-5, math.inf, -math.inf, -0.0, 5e-324])
texts = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    [
        'it\'s "quoted"',
        "two\nlines",
        "%RUN_DIR",
        "@OvenExample()",
        "\\",
        "",
        "१२३ ไทย 🎉",
        "\ud800",
        "\u2028",
        "# no comment",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | numbers | texts
plain = st.recursive(
    scalars,
    lambda inner: st.tuples(inner, inner) | st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=8,
)


@given(plain)
def test_gin_reads_back_what_literal_writes(value):
    back = parse_value(literal(value))
    assert back == value
    assert repr(back) == repr(value)  # 1, 1.0 and True are different, and so are 0.0 and -0.0


@given(st.dictionaries(texts, st.tuples(texts, numbers), min_size=4, max_size=8), st.integers(0, 110))
def test_long_values_over_several_lines_read_back(value, indent):
    assert repr(parse_value(literal(value, " " * indent))) == repr(value)


def test_not_a_number_and_objects_are_refused():
    for value in (math.nan, object(), {1, 2}):
        with pytest.raises(TypeError):
            literal(value)


def bind(scope: str, cls: str, fields: dict) -> list[str]:
    prefix = f"{scope}/{cls}" if scope else cls
    return [f"{prefix}.{name}={literal(value)}" for name, value in fields.items()]


ovens = st.fixed_dictionaries({}, optional={"celsius": st.floats(1, 499), "fan": st.booleans()})
chefs = st.fixed_dictionaries(
    {"hands": st.integers(1, 5), "bowls": st.just(60)}, optional={"title": st.sampled_from(["chef", "souschef"])}
)
dishes = st.tuples(texts, st.integers(0, 60), st.none() | ovens)
kitchens = st.fixed_dictionaries(
    {"run_dir": texts},
    optional={
        "seed": st.integers(0),
        "limit": st.none() | numbers,
        "anything": st.none() | st.booleans() | st.integers() | numbers | texts,
        "words": st.lists(texts, max_size=3).map(tuple),
        "prices": st.dictionaries(texts, numbers, max_size=3),
        "plan": st.lists(st.tuples(st.integers(), st.dictionaries(texts, numbers, max_size=2)), max_size=2).map(tuple),
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kitchens, chefs, st.none() | chefs, st.lists(dishes, max_size=3), ovens, st.booleans())
def test_the_text_alone_repeats_the_configuration(tmp_path, kitchen, chef, guest, menu, oven, through_macro):
    run_dir = kitchen.pop("run_dir")
    bindings = bind("", "KitchenExample", kitchen) + bind("", "ChefExample", chef) + bind("", "OvenExample", oven)
    if through_macro:
        bindings += [f"RUN_DIR={literal(run_dir)}", "KitchenExample.run_dir=%RUN_DIR"]
    else:
        bindings += [f"KitchenExample.run_dir={literal(run_dir)}"]
    if guest is not None:
        bindings += ["KitchenExample.guest=@visitor/ChefExample()", *bind("visitor", "ChefExample", guest)]
    for index, (name, minutes, dish_oven) in enumerate(menu):
        bindings += bind(f"dish{index}", "DishExample", {"name": name, "minutes": minutes})
        if dish_oven is not None:
            bindings += [f"dish{index}/DishExample.oven=@dish{index}/OvenExample()"]
            bindings += bind(f"dish{index}", "OvenExample", dish_oven)
    if menu:
        bindings += [f"KitchenExample.menu=({' '.join(f'@dish{i}/DishExample(),' for i in range(len(menu)))})"]
        bindings += ["KitchenExample.best=@dish0/DishExample()"]
    first = resolve(KitchenExample, bindings=bindings)
    file = tmp_path / "config.gin"
    # As a run directory writes it, but for lone surrogates, which UTF-8 cannot hold: literal() escapes them.
    file.write_text(first.text, encoding="utf-8")
    again = resolve(KitchenExample, [file])
    assert repr(again.config) == repr(first.config)
    assert again.snapshot == first.snapshot
    assert again.fingerprint == first.fingerprint
    assert again.text == first.text


def test_macros_stay_so_that_a_repeated_run_can_be_varied(tmp_path):
    (tmp_path / "run.gin").write_text(VALID + "HANDS = 2\nChefExample.hands = %HANDS\nKitchenExample.seed = %HANDS")
    (tmp_path / "config.gin").write_text(resolve(KitchenExample, [tmp_path / "run.gin"]).text)
    varied = resolve(KitchenExample, [tmp_path / "config.gin"], ["RUN_DIR=elsewhere", "HANDS=4"]).config
    assert (varied.run_dir, varied.chef.hands, varied.seed) == ("elsewhere", 4, 4)


def test_each_object_keeps_what_it_has_where_scope_names_would_collide(tmp_path):
    """Four dishes, two of whose places differ in punctuation only, each with an oven of its own."""
    bindings = ["KitchenExample.run_dir=x", "ChefExample.hands=1", "ChefExample.bowls=1"]
    bindings += ["KitchenExample.dishes={'w': @w/DishExample(), 'x': @x/DishExample(), 'a_b': @y/DishExample(),"
                 " 'a.b': @z/DishExample()}"]  # fmt: skip
    for number, scope in enumerate("wxyz"):
        bindings += [f"{scope}/DishExample.name={scope}", f"{scope}/DishExample.oven=@{scope}/OvenExample()"]
        bindings += [f"{scope}/OvenExample.celsius={100 + number}"]
    first = resolve(KitchenExample, bindings=bindings)
    (tmp_path / "config.gin").write_text(first.text)
    again = resolve(KitchenExample, [tmp_path / "config.gin"]).config
    assert again == first.config
    assert [dish.oven.celsius for dish in again.dishes.values()] == [100, 101, 102, 103]


def test_equal_objects_share_their_bindings():
    bindings = ["KitchenExample.run_dir=x", "ChefExample.hands=1", "ChefExample.bowls=1"]
    text = resolve(KitchenExample, bindings=[*bindings, "KitchenExample.guest=@ChefExample()"]).text
    assert text.count("ChefExample.hands = 1") == 1
