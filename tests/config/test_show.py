"""What `aya config` and `aya VERB --help` print."""

from aya_jax.config import resolve
from aya_jax.config.show import describe_class, field_docs, show, show_differences
from aya_jax.config.snapshot import differences, to_plain
from tests.config.examples import KitchenExample, OvenExample

BASE = [
    "KitchenExample.run_dir=x",
    "ChefExample.hands=1",
    "ChefExample.bowls=2",
    "KitchenExample.plan=((0, {'a': 1}),)",
]


def test_show_says_where_each_value_was_written():
    resolved = resolve(KitchenExample, bindings=BASE)
    lines = [line.split(maxsplit=2) for line in show(to_plain(resolved.config), resolved.origins).splitlines()]
    shown = {line[0]: line[1:] for line in lines}
    assert shown["run_dir"] == ["'x'", "# --gin.KitchenExample.run_dir=x"]
    assert shown["plan.0.1.a"] == ["1.0", "# --gin.KitchenExample.plan=((0, {'a': 1}),)"]
    assert shown["oven.celsius"] == ["220.0", "# default"]
    assert shown["_class"] == ["'KitchenExample'"]


def test_differences_are_shown_with_both_values():
    old, new = (to_plain(resolve(KitchenExample, bindings=[*BASE, f"KitchenExample.seed={n}"]).config) for n in (1, 2))
    assert show_differences(differences(old, new), "a", "b") == "--- a\n+++ b\nseed\n  - 1\n  + 2\n1 field differs\n"
    assert show_differences([], "a", "b") == "a and b: no difference\n"


def test_help_lists_types_defaults_and_documentation():
    text = describe_class(KitchenExample)
    assert (
        "KitchenExample\n  The root of the tests' configurations.\n  run_dir: str  (required)\n      where it stands.\n"
        in text
    )
    assert "  chef: @ChefExample()\n" in text
    assert "  guest: @ChefExample() or None = None\n" in text
    assert "  title: one of 'chef', 'souschef' = 'chef'\n" in text
    assert "  celsius: float = 180.0\n      the temperature.\n" in text


def test_documentation_of_several_lines():
    assert field_docs(OvenExample) == {
        "celsius": "the temperature.",
        "fan": "whether the fan runs, which it need not.",
    }
