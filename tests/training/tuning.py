"""What tests of tuning share: a tokenizer with a chat template, prepared tasks, a model to start from, and its run files."""

from __future__ import annotations

import json
from pathlib import Path

from aya_jax.data import prepare
from aya_jax.data.manifest import Manifest
from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from tests.training import small_run
from tools.make_golden_chat import GOLDEN

ROOT = Path(__file__).parents[2]
SEARCH_PATHS = [str(ROOT), str(ROOT / "gin")]
SEARCH = f"--gin_search_paths={','.join(SEARCH_PATHS)}"
RUN = """
include '{root}/gin/train/{recipe}.gin'
include '{root}/gin/models/test.gin'
TransformerConfig.vocab_size = {vocab_size}
{shape}MIXTURE = {mixture}
STORE_DIR = '{folder}/stores'
STEPS = {steps}
SEQUENCE_LENGTH = {length}
LEARNING_RATE = 0.01
TrackingConfig.every = 1
TrackingConfig.tensorboard = False
TrackingConfig.compilation_cache = '{compiled}'
CheckpointConfig.every = 2
"""


def write_tokenizer(folder: Path) -> Path:
    """A small tokenizer with Cohere's turn tokens and template."""
    folder.mkdir()
    for name, content in json.loads(GOLDEN.read_text(encoding="utf-8"))["files"].items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def write_rows(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def task(folder: Path, name: str, form: str, rows: list[dict], language: str = "en") -> TaskConfig:
    """A task of rows, which are written to `folder`."""
    file = write_rows(folder / f"{name}.jsonl", rows)
    return TaskConfig(name=name, language=language, form=form, files=(str(file),))


def prepare_tasks(folder: Path, *described: TaskConfig, shards: int = 1) -> list[Manifest]:
    """Stores of tasks in `folder / "stores"`, by the tokenizer in `folder / "tokenizer"`."""
    config = PrepareConfig(
        store_dir=str(folder / "stores"),
        data_dir="sample",
        vocabulary=str(folder / "tokenizer"),
        tasks=(),
        extra_tasks=described,
        num_shards=shards,
    )
    return prepare.prepare(config)


def write_run(folder: Path, recipe: str, *, mixture: dict, vocab_size: int, steps: int, length: int = 96) -> Path:
    """`folder / "<recipe>.gin"`: a run of gin/train/<recipe>.gin with a tiny model."""
    file = folder / f"{recipe}.gin"
    values = {
        "root": ROOT,
        "recipe": recipe,
        "mixture": mixture,
        "vocab_size": vocab_size,
        "steps": steps,
        "length": length,
    }
    # One for all tests of a session: most of their programs are the same.
    compiled = folder.parents[1] / "compiled"
    file.write_text(RUN.format(folder=folder, shape=small_run.SHAPE, compiled=compiled, **values))
    return file
