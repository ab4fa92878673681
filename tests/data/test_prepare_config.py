"""What `aya prepare` refuses before it starts, and that its configuration is cheap to import."""

import subprocess
import sys

import pytest

from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from aya_jax.data.sources import FileSource, HuggingFaceSource, TfdsSource

TASK = {"name": "text_sv", "language": "sv"}
PREPARE = {"store_dir": "s", "data_dir": "sample", "vocabulary": "bytes"}


def problems(config) -> set[str]:
    return {problem.field for problem in config.validate()}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"files": ("a.jsonl",)}, set()),
        ({}, set()),
        ({"files": ("a",), "tfds": "b"}, {"files"}),
        ({"huggingface": "a/b", "validation_files": ("c",)}, {"validation_files"}),
        ({"name": "a/b", "files": ("a",)}, {"name"}),
        ({"tfds": "c4", "splits": (("test", "test"),)}, {"splits"}),
        ({"tfds": "c4", "splits": (("validation", "test"),)}, {"splits"}),
    ],
)
def test_tasks_that_contradict_themselves(changes, fields):
    assert problems(TaskConfig(**{**TASK, **changes})) == fields


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, set()),
        ({"store_dir": "", "vocabulary": ""}, {"store_dir", "vocabulary"}),
        ({"tasks": ()}, {"tasks"}),
        ({"tasks": (), "extra_tasks": (TaskConfig(**TASK),)}, set()),
        ({"extra_tasks": (TaskConfig(**TASK), TaskConfig(**TASK))}, {"extra_tasks"}),
        ({"validation_permille": 0}, {"validation_permille"}),
        ({"validation_permille": 200, "validation_fold": 4}, set()),
        ({"validation_permille": 200, "validation_fold": 5}, {"validation_fold"}),
        ({"validation_fold": 0}, {"validation_fold"}),
        ({"num_shards": 0, "num_workers": -1}, {"num_shards", "num_workers"}),
        ({"beam_options": ("--runner=x",)}, {"beam_options"}),
        ({"beam_options": ("--runner=x",), "runner": "beam"}, set()),
    ],
)
def test_settings_out_of_range(changes, fields):
    assert problems(PrepareConfig(**{**PREPARE, **changes})) == fields


def test_a_task_says_where_it_reads():
    files = TaskConfig(**TASK, files=("a/*.gz",), text_field="body", on_bad_record="skip")
    assert files.source("train") == FileSource(("a/*.gz",), text_field="body", on_bad_record="skip")
    assert files.source("validation") is None
    splits = (("train", "train[:99%]"), ("validation", "test"))
    hub = TaskConfig(**TASK, huggingface="o/d", huggingface_config="sv", huggingface_revision="abc", splits=splits)
    assert hub.source("validation") == HuggingFaceSource("o/d", "sv", splits, "text", "abc", "validation")
    catalogue = TaskConfig(**TASK, tfds="d/c:1.0.0", tfds_data_dir="/t")
    assert catalogue.source("train") == TfdsSource("d/c:1.0.0", (("train", "train"),), "text", "/t", "train")
    assert catalogue.source("validation") is None
    assert TaskConfig(**TASK).source("train") is None


def test_the_configuration_imports_nothing_heavy():
    code = (
        "import sys, aya_jax.data.prepare_config;"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'seqio', 'jax', 'numpy', 'tensorstore')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
