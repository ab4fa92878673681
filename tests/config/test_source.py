"""Reading gin text: nothing in it may stop the reading."""

import contextlib

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aya_jax.config import ConfigError, resolve
from aya_jax.config.source import Key, Macro, Reference, Source, make_key, parse_value
from tests.config.examples import KitchenExample

PIECES = [
    *(
        "KitchenExample.seed",
        "ChefExample",
        "RUN_DIR",
        "%RUN_DIR",
        "@ChefExample()",
        "@a/DishExample",
        "include ",
        "import ",
    ),
    *(
        " = ",
        "=",
        ":",
        "\n",
        "\n  ",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "1",
        "'x'",
        "'",
        '"""',
        "#",
        "\\",
        "$",
        "?",
        "\t",
        "-",
        "é",
    ),
]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=30))
@example("KitchenExample.seed = {[1]: 2}")
@example("A = '''\nnever closed")
@example("A = " + "(" * 300)
def test_any_text_is_resolved_or_refused_in_an_orderly_way(tmp_path, text):
    file = tmp_path / "run.gin"
    file.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(ConfigError):
        resolve(KitchenExample, [file])


def test_every_good_statement_is_read_however_many_bad_ones_there_are(tmp_path):
    lines = ["A = 1", "what is this", "B = [1,", "C = 3", "D = $", "E:", "  x = oops", "  y = 2", "F = 'open", "G = 7"]
    (tmp_path / "run.gin").write_text("\n".join(lines))
    source = Source()
    source.read_file(tmp_path / "run.gin")
    read = {str(key): binding.value for key, binding in source.bindings.items()}
    assert (read["A"], read["C"], read["G"]) == (1, 3, 7)
    assert {"B", "D", "E.x", "E.y", "F"} <= set(read)
    assert [where.line for where, _ in source.problems] == [2, 3, 5, 6, 9]


def test_windows_files_and_byte_order_marks(tmp_path):
    (tmp_path / "run.gin").write_bytes(b"\xef\xbb\xbfA = 1\r\nB = (1,\r\n  2)\r\n")
    source = Source()
    source.read_file(tmp_path / "run.gin")
    assert [(str(k), b.value, b.where.line) for k, b in source.bindings.items()] == [("A", 1, 1), ("B", (1, 2), 2)]
    assert not source.problems


def test_values_and_keys():
    assert parse_value("(@a/b/Oven(), %x/M, -1.5)") == (Reference("a/b", "Oven", True), Macro("x/M"), -1.5)
    assert make_key("a/b/Oven.celsius") == Key("a/b", "Oven", "celsius")
    assert make_key("a/NAME/macro.value") == make_key("a/NAME") == Key("a", "NAME", "")
