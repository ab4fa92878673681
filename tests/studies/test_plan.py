"""Plans: which jobs, where, after what, and every configuration checked before anything starts."""

from __future__ import annotations

import dataclasses
import shlex

import pytest

from aya_jax import cli
from aya_jax.cli import parse_arguments
from aya_jax.config import ConfigError, resolve
from aya_jax.studies.plan import make_plan, resolve_jobs
from tests.studies.conftest import STUDY
from tests.studies.fake_verb import FakeConfig


def test_each_variant_goes_with_the_one_that_agrees_with_it(make, tmp_path):
    jobs = {job.key: job for job in make_plan(make().config)}
    assert next(iter(jobs)) == "first"
    assert len(jobs) == 1 + 4 + 4
    last = jobs["last/code_25-seed_2"]
    assert last.needs == ("second/code_25-seed_2",)
    assert last.bindings["FakeConfig.source"] == str(tmp_path / "out/second/code_25-seed_2")
    assert last.bindings["FakeConfig.run_dir"] == str(tmp_path / "out/last/code_25-seed_2")
    assert {job.needs for key, job in jobs.items() if key.startswith("second/")} == {("first",)}


def test_a_stage_with_fewer_axes_gathers_all_that_agree(make):
    text = STUDY.replace("'FakeConfig.source': '{second}'}\n  sweep = @grid/Product()", "}\n  sweep = @code/Choices()")
    jobs = {job.key: job for job in make_plan(make(text=text).config)}
    assert jobs["last/code_00"].needs == ("second/code_00-seed_1", "second/code_00-seed_2")


def test_a_variant_takes_the_directory_of_the_partner_that_varies_less(make, tmp_path):
    head, _, tail = STUDY.partition("  sweep = @grid/Product()\n")
    jobs = {job.key: job for job in make_plan(make(text=head + "  sweep = @code/Choices()\n" + tail).config)}
    assert jobs["last/code_25-seed_2"].bindings["FakeConfig.source"] == str(tmp_path / "out/second/code_25")


def test_a_variant_names_others_by_their_place_on_an_axis_and_needs_those_alone(make, tmp_path):
    source = "{second:code=25} and {second:seed=2,code=00}"
    text = STUDY.replace(
        "'FakeConfig.source': '{second}'}\n  sweep = @grid/Product()", f"'FakeConfig.source': '{source}'}}"
    )
    text = (
        text.replace("@grid/Product()", "@grid/ListOf()")
        + """
grid/ListOf.of = (@grid/Product(), @third/Choices())
third/Choices.name = 'code'
third/Choices.choices = {'50': {}}
"""
    )
    text = text.replace("{second:code=25}", "{second:code=25,seed=1}")
    last = make_plan(make(text=text).config)[-1]
    assert (
        last.bindings["FakeConfig.source"]
        == f"{tmp_path}/out/second/code_25-seed_1 and {tmp_path}/out/second/code_00-seed_2"
    )
    assert last.needs == ("second/code_00-seed_2", "second/code_25-seed_1")


def test_a_verb_s_own_gin_file_is_read_before_the_stage_s(make, monkeypatch, tmp_path):
    (tmp_path / "base.gin").write_text("VALUE = 7\nFakeConfig.value = %VALUE\n")
    monkeypatch.setitem(cli.VERBS, "fake", dataclasses.replace(cli.VERBS["fake"], base=(str(tmp_path / "base.gin"),)))
    text = STUDY.replace(
        "'FakeConfig.order': '{study}/order'}\n", "'FakeConfig.order': '{study}/order', 'VALUE': 9}\n", 1
    )
    jobs = [job for job in make_plan(make(text=text).config) if job.stage == "first"]
    assert resolve_jobs(jobs)["first"].config.value == 9


FOLLOWING = """
judge/StageConfig:
  name = 'judge'
  verb = 'fake'
  output = 'FakeConfig.run_dir'
  bindings = {'FakeConfig.order': '{study}/order', 'FakeConfig.source': '{last}'}
  each_of = 'last'
  sweep = @by/Values()
by/Values.name = 'by'
by/Values.binding = 'FakeConfig.seconds'
by/Values.values = (0.5, 1.0)
"""


def test_a_stage_that_follows_another_takes_its_labels_without_its_bindings(make, tmp_path):
    text = STUDY.replace("@last/StageConfig())", "@last/StageConfig(), @judge/StageConfig())") + FOLLOWING
    jobs = [job for job in make_plan(make(text=text).config) if job.stage == "judge"]
    assert [job.variant.label for job in jobs[:2]] == ["code_00-seed_1-by_0.5", "code_00-seed_1-by_1.0"]
    assert len(jobs) == 8
    assert jobs[-1].needs == ("last/code_25-seed_2",)
    assert jobs[-1].bindings == {
        "FakeConfig.order": str(tmp_path / "out/order"),
        "FakeConfig.source": str(tmp_path / "out/last/code_25-seed_2"),
        "FakeConfig.seconds": 1.0,
        "FakeConfig.run_dir": str(tmp_path / "out/judge/code_25-seed_2-by_1.0"),
    }
    with pytest.raises(ConfigError, match="'seed' is one"):
        make(text=text.replace("by/Values.name = 'by'", "by/Values.name = 'seed'"))
    with pytest.raises(ConfigError, match="did you mean last"):
        make(text=text.replace("each_of = 'last'", "each_of = 'lst'"))


def test_the_shown_command_gives_the_same_configuration_through_a_shell(make):
    text = STUDY.replace("'FakeConfig.source': '{first}'", "'FakeConfig.source': '7 \\'$HOME\\' `x`'")
    jobs = make_plan(make("code/Choices.choices={'a': {'FakeConfig.marker': '12'}}", text=text).config)
    configurations = resolve_jobs(jobs)
    assert configurations["second/code_a-seed_1"].config.marker == "12"
    for job in jobs:
        words = shlex.split(job.shown_command)
        assert words[:2] == ["aya", "fake"]
        arguments = parse_arguments(words[2:])
        assert resolve(FakeConfig, bindings=arguments.bindings).config == configurations[job.key].config


def test_a_mistake_in_the_last_stage_is_reported_once_before_the_first_starts(make, run, tmp_path):
    text = STUDY.replace("'FakeConfig.source': '{second}'", "'FakeConfig.sorce': '{second}'")
    with pytest.raises(ConfigError) as caught:
        run(text=text)
    assert len(caught.value.problems) == 4  # one for each variant: its path is part of the value
    assert all("did you mean source" in problem for problem in caught.value.problems)
    text = STUDY.replace("'FakeConfig.source': '{second}'", "'FakeConfig.seconds': 'long'")
    with pytest.raises(ConfigError, match="last/code_00-seed_1 and 3 more like it"):
        run(text=text)
    assert not (tmp_path / "out").exists()
