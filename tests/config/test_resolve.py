"""Resolving: what is built from bindings, and what is reported when it cannot be."""

import math
from pathlib import Path

import pytest

import gin
from aya_jax.config import ConfigError, resolve
from tests.config.examples import VALID, ChefExample, DishExample, KitchenExample, OvenExample


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(text: str, *bindings: str, **options):
    Path("run.gin").write_text(text, encoding="utf-8")
    return resolve(KitchenExample, ["run.gin"], bindings, **options)


def problems(text: str, *bindings: str, **options) -> list[str]:
    with pytest.raises(ConfigError) as error:
        build(text, *bindings, **options)
    return list(error.value.problems)


class TestBuilding:
    def test_minimal(self, folder):
        config = build(VALID).config
        assert config == KitchenExample(run_dir="somewhere", chef=ChefExample(hands=2, bowls=4))

    def test_flags_win_over_files_and_later_flags_over_earlier(self, folder):
        config = build(VALID + "KitchenExample.seed = 1", "KitchenExample.seed=2", "--gin.KitchenExample.seed=3").config
        assert config.seed == 3

    def test_a_file_wins_over_its_include_without_a_word(self, folder):
        Path("base.gin").write_text("KitchenExample.seed = 1\nRUN_DIR = 'base'")
        config = build("include 'base.gin'\n" + VALID + "KitchenExample.seed = 2").config
        assert (config.seed, config.run_dir) == (2, "somewhere")

    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("runs/first", "runs/first"),
            ("1e-5", 1e-5),
            ("-3", -3),
            ("None", None),
            ("True", True),
            ("'quoted'", "quoted"),
            ("2024-01-02", "2024-01-02"),
            ("a=b", "a=b"),
            ("", ""),
            ("%RUN_DIR", "somewhere"),
        ],
    )
    def test_flag_values_that_are_no_literal_are_text(self, folder, written, value):
        config = build(VALID, f"KitchenExample.anything={written}").config
        assert config.anything == value
        assert type(config.anything) is type(value)

    def test_int_for_float_and_list_for_tuple(self, folder):
        config = build(VALID + "KitchenExample.limit = 3\nKitchenExample.words = ['a', 'b']").config
        assert (type(config.limit), config.words) == (float, ("a", "b"))

    def test_a_default_object_is_the_base_of_what_is_bound(self, folder):
        assert build(VALID).config.oven == OvenExample(celsius=220.0)
        assert build(VALID + "OvenExample.fan = True").config.oven == OvenExample(celsius=220.0, fan=True)

    def test_optional_object_stays_none_unless_bound(self, folder):
        assert build(VALID).config.guest is None
        assert build(VALID + "KitchenExample.guest = @ChefExample()").config.guest == ChefExample(hands=2, bowls=4)

    def test_a_macro_whose_use_is_overridden_may_stay(self, folder):
        assert build(VALID + "KitchenExample.run_dir = 'here'").config.run_dir == "here"
        assert problems(VALID, "KitchenExample.run_dir=here", "RUN_DIR=there") == [
            "--gin.RUN_DIR=there: RUN_DIR = 'there': nothing uses this macro; "
            "remove it, or write %RUN_DIR where it belongs"
        ]

    def test_scopes_inherit_from_the_unscoped_and_reach_what_they_hold(self, folder):
        config = build(
            VALID
            + "KitchenExample.guest = @visitor/ChefExample()\n"
            + "visitor/ChefExample.bowls = 6\n"
            + "KitchenExample.menu = (@soup/DishExample(), @cake/DishExample())\n"
            + "soup/DishExample.name = 'soup'\n"
            + "cake/DishExample.name = 'cake'\n"
            + "DishExample.oven = @OvenExample()\n"
            + "cake/OvenExample.celsius = 200\n"
            + "DishExample.minutes = 5\n"
        ).config
        assert config.guest == ChefExample(hands=2, bowls=6)
        assert config.menu == (
            DishExample(name="soup", minutes=5, oven=OvenExample()),
            DishExample(name="cake", minutes=5, oven=OvenExample(celsius=200.0)),
        )

    def test_macros_of_macros_and_inside_containers(self, folder):
        config = build(
            VALID + "A = %B\nB = 2.5\nKitchenExample.prices = {'x': %A}\nKitchenExample.words = (%RUN_DIR,)"
        ).config
        assert config.prices == {"x": 2.5}
        assert config.words == ("somewhere",)

    def test_a_macro_may_stand_for_an_object(self, folder):
        config = build(VALID + "GUEST = @ChefExample()\nKitchenExample.guest = %GUEST").config
        assert config.guest == config.chef

    def test_offered_macros_may_stay_unused_and_lose_to_a_binding(self, folder):
        assert build(VALID, defaults={"DATA_DIR": "/data", "RUN_DIR": "/other"}).config.run_dir == "somewhere"
        text = VALID.replace("RUN_DIR = 'somewhere'\n", "")
        assert build(text, defaults={"RUN_DIR": "/offered"}).config.run_dir == "/offered"

    def test_blocks_and_long_names(self, folder):
        config = build(
            "KitchenExample:\n  run_dir = 'x'\n  seed = 4\nexamples.ChefExample:\n  hands = 1\n  bowls = 3\n"
        ).config
        assert (config.seed, config.chef.bowls) == (4, 3)

    def test_a_longer_name_of_the_same_class_overrides(self, folder):
        assert build(VALID, "examples.ChefExample.bowls=8").config.chef.bowls == 8

    def test_infinity(self, folder):
        assert build(VALID, "KitchenExample.limit=1e999").config.limit == math.inf

    def test_a_module_of_the_current_directory_is_imported(self, folder):
        Path("my_kitchen_tasks.py").write_text("LOADED = True")
        resolved = build("import my_kitchen_tasks\n" + VALID)
        assert "import my_kitchen_tasks\n" in resolved.text

    def test_search_paths_then_here_then_beside_the_file(self, folder, tmp_path):
        for name in ("first", "sub"):
            (tmp_path / name).mkdir()
        Path("first/a.gin").write_text("KitchenExample.seed = 1")
        Path("a.gin").write_text("KitchenExample.seed = 2")
        Path("sub/run.gin").write_text("include 'a.gin'\ninclude 'beside.gin'\n" + VALID)
        Path("sub/beside.gin").write_text("KitchenExample.limit = 9")
        assert resolve(KitchenExample, ["sub/run.gin"]).config.seed == 2
        config = resolve(KitchenExample, ["sub/run.gin"], search_paths=["first"]).config
        assert (config.seed, config.limit) == (1, 9.0)

    def test_gin_itself_is_left_alone(self, folder):
        before = gin.config_str()
        build(VALID)
        with pytest.raises(ConfigError):
            build("KitchenExample.sed = 1")
        assert gin.config_str() == before
        assert build(VALID).fingerprint == build(VALID).fingerprint


class TestProblems:
    def test_all_at_once_each_with_its_line(self, folder):
        found = problems(
            "KitchenExample.run_dir = %RUNDIR\n"  # 1
            "RUN_DIR = 'somewhere'\n"  # 2
            "KitchenExample.sed = 1\n"  # 3
            "KitchenExampel.seed = 1\n"  # 4
            "KitchenExample.limit = 'fast'\n"  # 5
            "ChefExample.hands = 4\n"  # 6
            "ChefExample.bowls = 6\n"  # 7
            "GarageExample.cars = 2\n"  # 8
            "KitchenExample.words = [1,\n"  # 9
            "OvenExample.celsius = 900\n",  # 10
            "KitchenExample.seed=-1",
        )
        assert found == [
            "run.gin:2: RUN_DIR = 'somewhere': nothing uses this macro; did you mean RUNDIR?",
            "run.gin:3: KitchenExample.sed = 1: unknown field; did you mean seed?",
            "run.gin:4: KitchenExampel.seed: unknown configuration class KitchenExampel "
            "(or one that KitchenExample does not use); did you mean KitchenExample?",
            "run.gin:5: KitchenExample.limit = 'fast': expected float or None",
            "run.gin:7: ChefExample.bowls = 6: expected a multiple of hands = 4",
            "run.gin:8: GarageExample.cars = 2: nothing uses it: KitchenExample holds no GarageExample",
            "run.gin:9: a bracket is not closed before line 10",
            "run.gin:10: OvenExample.celsius = 900: expected a temperature between 0 and 500",
            "--gin.KitchenExample.seed=-1: KitchenExample.seed = -1: expected at least 0",
            "RUNDIR is required: add --gin.RUNDIR=... (run.gin:1: KitchenExample.run_dir = %RUNDIR); "
            "did you mean RUN_DIR?",
        ]

    def test_the_message_counts_and_says_that_nothing_was_started(self, folder):
        with pytest.raises(ConfigError) as error:
            build("KitchenExample.run_dir = 3\nChefExample.hands = 1")
        assert str(error.value).splitlines() == [
            "run.gin:1: KitchenExample.run_dir = 3: expected str: write '3' in quotes",
            "ChefExample.bowls is required (int): bind it, or add --gin.ChefExample.bowls=...",
            "2 problems; nothing was started.",
        ]
        assert error.value.exit_code == 2

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("KitchenExample.seed = True", "KitchenExample.seed = True: expected int"),
            ("KitchenExample.seed = 1.5", "KitchenExample.seed = 1.5: expected int"),
            ("KitchenExample.seed = 1e3", "KitchenExample.seed = 1000.0: expected int: write 1000"),
            ("KitchenExample.limit = 'inf'", "KitchenExample.limit = 'inf': expected float or None"),
            ("OvenExample.celsius = 'inf'", "OvenExample.celsius = 'inf': expected a float; infinity is written 1e999"),
            ("OvenExample.fan = 1", "OvenExample.fan = 1: expected bool"),
            ("ChefExample.title = 'souchef'", "expected one of 'chef', 'souschef'; did you mean souschef?"),
            ("KitchenExample.words = 'abc'", "expected tuple of str: write ('abc',) for one str"),
            (
                "KitchenExample.words = ('a', 2)",
                "KitchenExample.words = ('a', 2): in item 1, expected str: write '2' in quotes",
            ),
            ("KitchenExample.prices = {'a': 'b'}", "KitchenExample.prices = {'a': 'b'}: in 'a', expected float"),
            ("KitchenExample.prices = {1: 2}", "in key 1, expected str: write '1' in quotes"),
            ("KitchenExample.plan = ((1, 2),)", "in item 0, in item 1, expected dict of str to float"),
            (
                "KitchenExample.plan = ((1,),)",
                "in item 0, expected tuple (int, dict of str to float), 2 items and not 1",
            ),
            ("KitchenExample.chef = 'x'", "KitchenExample.chef = 'x': expected @ChefExample()"),
            ("KitchenExample.chef = @ChefExample", "expected @ChefExample(): write @ChefExample() with parentheses"),
            ("KitchenExample.chef = @OvenExample()", "expected @ChefExample(), not a OvenExample"),
            ("KitchenExample.chef = @ChefExampel()", "unknown configuration class; did you mean ChefExample?"),
            (
                "KitchenExample.seed = %gin.REQUIRED",
                "KitchenExample.seed is required: add --gin.KitchenExample.seed=...",
            ),
            (
                "KitchenExample.seed = %SEDE",
                "SEDE is required: add --gin.SEDE=... (run.gin:5: KitchenExample.seed = %SEDE)",
            ),
            ("nowhere/ChefExample.bowls = 2", "nothing is built in the scope nowhere"),
            ("A = %B\nB = %A\nKitchenExample.seed = %A", "macros go in a circle: A > B > A"),
            ("A = [%A]\nKitchenExample.words = %A", "A holds itself"),
            (
                "DishExample.minutes = 3",
                "nothing uses it; bind KitchenExample.menu = @DishExample() to build a DishExample",
            ),
            ("KitchenExample.words = {[1]: 2}", "cannot be parsed"),
            ("import no_such_module_anywhere", "import no_such_module_anywhere failed: ModuleNotFoundError"),
            ("from __gin__ import dynamic_registration", "dynamic registration is not supported"),
            ("include 'bas.gin'", "no file bas.gin (searched in "),
            ("include 'run.gin'", "run.gin includes itself: run.gin > run.gin"),
            ("include '.'", ". is a folder and no gin file"),
            ("KitchenExample.words = ('a'", "a bracket or a quote is not closed"),
            ("what is this", "run.gin:5: "),
        ],
    )
    def test_one(self, folder, line, said):
        found = problems(VALID + line)
        assert len(found) == 1
        assert said in found[0]
        assert "run.gin:" in found[0]

    def test_a_macro_at_fault_is_named_where_it_is_bound(self, folder):
        text = VALID + "SEED = 1\nKitchenExample.seed = %SEED"
        assert problems(text, "SEED=one") == [
            "--gin.SEED=one: SEED = 'one' (it is KitchenExample.seed, run.gin:6): "
            "expected int, and this is no gin literal but text"
        ]
        assert problems(text, "SEED=-2") == [
            "--gin.SEED=-2: SEED = -2 (it is KitchenExample.seed, run.gin:6): expected at least 0"
        ]

    def test_gin_required_as_a_macro_is_met_by_a_flag(self, folder):
        text = VALID + "SEED = %gin.REQUIRED\nKitchenExample.seed = %SEED"
        assert problems(text) == ["SEED is required: add --gin.SEED=... (run.gin:5)"]
        assert build(text, "SEED=3").config.seed == 3

    def test_a_missing_include_does_not_make_what_it_would_have_bound_missing(self, folder):
        found = problems("include 'models/big.gin'\nKitchenExample.seed = 'x'\nUNUSED = 1\nOvenExample.celsius = -1")
        assert [line.split(": ")[0] for line in found] == ["run.gin:1", "run.gin:2"]

    def test_a_missing_file_names_near_ones(self, folder):
        Path("kitchen.gin").write_text(VALID)
        with pytest.raises(ConfigError, match=r"no file kitchn.gin \(searched in \., .*did you mean kitchen.gin\?"):
            resolve(KitchenExample, ["kitchn.gin"])

    def test_problems_inside_a_tuple_are_found_at_the_binding(self, folder):
        found = problems(
            VALID
            + "KitchenExample.menu = (@b/DishExample(), @a/DishExample())\na/DishExample.name = 'x'\n"
            + "b/DishExample.name = 'y'\n"
            + "b/DishExample.minutes = 70\na/DishExample.minutes = 'long'"
        )
        assert found == [
            "run.gin:8: DishExample.minutes = 70: expected at most 60",
            "run.gin:9: DishExample.minutes = 'long': expected int",
        ]

    def test_a_check_of_the_parent_is_placed_at_the_child(self, folder):
        assert problems(VALID, "ChefExample.bowls=102") == [
            "--gin.ChefExample.bowls=102: ChefExample.bowls = 102: expected at most 100 in one kitchen"
        ]

    def test_checks_go_on_around_a_wrong_value_and_do_not_guess_it(self, folder):
        found = problems(VALID, "KitchenExample.run_dir=3", "ChefExample.hands=x", "KitchenExample.seed=-1")
        assert [line.rpartition(": ")[2] for line in found] == [
            "write '3' in quotes",
            "expected int, and this is no gin literal but text",
            "expected at least 0",
        ]

    def test_a_check_whose_words_need_the_wrong_value_waits(self, folder):
        assert len(problems(VALID, "ChefExample.hands=x", "ChefExample.bowls=-2")) == 1
        assert "for each of 2 hands" in problems(VALID, "ChefExample.bowls=-2")[0]

    def test_a_check_that_stumbles_over_a_reported_mistake_is_silent_and_a_bug_is_not(self, folder):
        found = problems(VALID, "KitchenExample.seed=x", "ChefExample.hands=0")
        assert found == [
            "--gin.KitchenExample.seed=x: KitchenExample.seed = 'x': expected int, and this is no gin literal but text"
        ]
        with pytest.raises(ZeroDivisionError):
            build(VALID, "ChefExample.hands=0")

    def test_what_a_wrong_value_hides_is_not_called_unused(self, folder):
        text = "KitchenExample.chef = 'x'\nKitchenExample.run_dir = 'x'\nHANDS = 2\nChefExample.hands = %HANDS\n"
        assert problems(text) == ["run.gin:1: KitchenExample.chef = 'x': expected @ChefExample()"]

    def test_a_macro_that_only_an_unused_binding_uses_is_not_reported_too(self, folder):
        found = problems(VALID + "CARS = 3\nGarageExample.cars = %CARS")
        assert found == [
            "run.gin:6: GarageExample.cars = %CARS: nothing uses it: KitchenExample holds no GarageExample"
        ]

    def test_not_utf8(self, folder):
        Path("latin.gin").write_bytes(b"KitchenExample.run_dir = '\xe9'")
        with pytest.raises(ConfigError, match=r"latin\.gin is not UTF-8 text"):
            resolve(KitchenExample, ["latin.gin"])

    @pytest.mark.parametrize("flag", ["SEED", "--gin.SEED", "=3", "a-b=3"])
    def test_malformed_flags(self, folder, flag):
        assert "expected --gin.NAME=VALUE" in problems(VALID, flag)[0]
