"""Studies whose stages do not fit together are refused, with what is wrong and where."""

from __future__ import annotations

import pytest

from aya_jax.config import ConfigError
from aya_jax.studies.needs import find_cycle, placeholders, substitute
from aya_jax.studies.plan import make_plan
from tests.studies.conftest import STUDY


def problems(make, *changes: tuple[str, str]) -> list[str]:
    text = STUDY
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(ConfigError) as caught:
        make(text=text)
    return list(caught.value.problems)


def test_the_study_itself_is_right(make):
    assert [stage.name for stage in make().config.stages] == ["first", "second", "last"]


def test_an_unknown_stage_is_named_with_its_line_and_a_near_name(make):
    (told,) = problems(make, ("needs = ('second',)", "needs = ('secnd',)"))
    assert "study.gin:" in told
    assert "'secnd'" in told
    assert "did you mean second" in told


def test_a_circle_is_shown(make):
    stage = "first/StageConfig:\n  name = 'first'"
    (told,) = problems(make, (stage, f"{stage}\n  needs = ('last',)"))
    assert "first → last → second → first" in told


def test_two_stages_of_one_name(make):
    told = problems(make, ("name = 'last'", "name = 'first'"))
    assert any("'first' appears more than once" in line for line in told)


def test_a_placeholder_that_is_no_needed_stage(make):
    (told,) = problems(make, ("'FakeConfig.source': '{first}'", "'FakeConfig.source': '{last}'"))
    assert "{last} is neither" in told


def test_a_placeholder_may_name_what_is_needed_through_another_stage(make, tmp_path):
    text = STUDY.replace("'FakeConfig.source': '{second}'", "'FakeConfig.source': '{first}'")
    last = make_plan(make(text=text).config)[-1]
    assert last.bindings["FakeConfig.source"] == str(tmp_path / "out/first")
    assert last.needs == ("second/code_25-seed_2",)


def test_a_placeholder_that_could_be_several_directories(make):
    parts = STUDY.rpartition("  sweep = @grid/Product()\n")
    with pytest.raises(ConfigError, match="'second' has 4 variants to choose from"):
        make(text=parts[0] + parts[2])


def test_a_placeholder_that_names_no_variant_or_several(make):
    def told(placeholder):
        head, _, tail = STUDY.rpartition("  sweep = @grid/Product()\n")
        with pytest.raises(ConfigError) as caught:
            make(text=(head + tail).replace("'{second}'", f"'{placeholder}'"))
        return str(caught.value)

    assert (
        "one directory for {second:code=75}; stage 'second' has no variants to choose from (there are code_00-"
        in told("{second:code=75}")
    )
    assert "stage 'second' has 2 variants to choose from" in told("{second:code=25}")
    assert "{secnd:code=25} is neither; did you mean second?" in told("{secnd:code=25}")


def test_a_variant_without_its_partner(make):
    parts = STUDY.rpartition("@grid/Product()")
    more = "\nmore/Choices.name = 'code'\nmore/Choices.choices = {'75': {}}\n"
    with pytest.raises(ConfigError, match=r"a variant of 'second' that agrees with last's 'code_75'"):
        make(text=parts[0] + "@more/Choices()" + parts[2] + more)


def test_an_unknown_verb_and_the_study_itself(make):
    (told,) = problems(make, ("name = 'first'\n  verb = 'fake'", "name = 'first'\n  verb = 'trian'"))
    assert "did you mean train" in told
    assert problems(make, ("name = 'first'\n  verb = 'fake'", "name = 'first'\n  verb = 'study'"))


def test_what_the_sweep_varies_cannot_be_bound_as_well(make):
    told = problems(
        make,
        ("{'FakeConfig.order': '{study}/order', 'FakeConfig.source'", "{'FakeConfig.value': 3, 'FakeConfig.source'"),
    )
    assert all("FakeConfig.value is also varied by the sweep" in line for line in told)


def test_a_circle_is_found_wherever_it_is():
    assert find_cycle({"a": ("b",), "b": ("c",), "c": ("b",)}) == ["b", "c", "b"]
    assert find_cycle({"a": ("b", "c"), "b": ("c",), "c": ()}) == []


def test_placeholders_are_found_and_replaced_however_deep():
    value = {"a": ("{x}/1", ["{y}"]), "{x}": 2.5, "b": None}
    assert placeholders(value) == {"x", "y"}
    assert substitute(value, {"x": "/one", "y": "/two"}) == {"a": ("/one/1", ["/two"]), "/one": 2.5, "b": None}
