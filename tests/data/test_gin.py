"""The shipped mixtures resolve, and say what they are meant to."""

import pathlib

import pytest

from aya_jax.config import resolve
from aya_jax.data.config import InspectConfig
from aya_jax.data.prepare_config import PrepareConfig
from aya_jax.data.tasks import LANGUAGES

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "rates"), [("text", {"text_*": 1.0}), ("text_and_code", {"text_*": 0.75, "code_*": 0.25})]
)
def test_mixtures(name, rates):
    files = [str(ROOT / "gin/data/inspect.gin"), str(ROOT / f"gin/mixtures/{name}.gin")]
    config = resolve(
        InspectConfig, files=files, bindings=["STORE_DIR='stores'"], search_paths=[str(ROOT / "gin")]
    ).config
    assert config.data.mixture.rates == rates
    assert (config.data.store_dir, config.data.sequence_length, config.data.seed) == ("stores", 256, 0)
    assert config.data.data_dir is None


def test_conversations_are_described_as_such():
    config = resolve(
        PrepareConfig,
        files=[str(ROOT / "gin/prepare/conversations.gin")],
        bindings=["FILES=('a.jsonl',)", "TASK='sums'", "LANGUAGE='en'", "STORE_DIR='stores'", "VOCABULARY='t'"],
        search_paths=[str(ROOT)],
    ).config
    (task,) = config.extra_tasks
    assert (task.form, task.domain, task.files, config.tasks) == ("chat", "instructions", ("a.jsonl",), ())


@pytest.mark.parametrize(
    ("more", "field", "persian"), [((), "lang", "fa"), (("gin/prepare/iso_639_3.gin",), "language_code", "pes")]
)
def test_a_task_for_each_of_the_project_s_languages(more, field, persian):
    names = ("gin/prepare/conversations.gin", "gin/prepare/by_language.gin", *more)
    config = resolve(
        PrepareConfig,
        files=[str(ROOT / name) for name in names],
        bindings=["FILES=('a.jsonl',)", "TASK='instruct'", "STORE_DIR='stores'", "VOCABULARY='t'"],
        search_paths=[str(ROOT)],
    ).config
    assert [task.name for task in config.described] == [f"instruct_{language}" for language in LANGUAGES]
    assert {task.language_field for task in config.described} == {field}
    assert config.extra_tasks[0].languages["fa"] == persian
    assert len(set(config.extra_tasks[0].languages.values())) == len(LANGUAGES)
