"""COMET in a process of its own, by a package that stands in for unbabel-comet."""

from __future__ import annotations

import contextlib
import sys

import pytest

from aya_jax.config import UserError, resolve
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.comet import Comet, Segment
from aya_jax.evaluation.config import EvaluateConfig, TranslationConfig

STAND_IN = '''
"""Scores a translation by the share of the reference's letters at the same place; writes down what it was asked."""
import pathlib, types
print("a library that talks")

class Model:
    def __init__(self, checkpoint):
        self.log = pathlib.Path(checkpoint).with_name("asked.txt")

    def predict(self, samples, batch_size, gpus, progress_bar):
        if any(s["mt"] == "crash" for s in samples):
            raise RuntimeError("CUDA out of memory")
        with self.log.open("a") as log:
            log.write(f"{len(samples)} {batch_size} {gpus} {progress_bar}\\n")
        scores = [sum(a == b for a, b in zip(s["mt"], s["ref"])) / max(1, len(s["ref"])) for s in samples]
        return types.SimpleNamespace(scores=scores, system_score=sum(scores) / len(scores))

def load_from_checkpoint(path):
    return Model(path)
'''


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A folder as a copy of a COMET model has it, and the stand-in where Python finds it."""
    package = tmp_path / "packages" / "comet"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    model = tmp_path / "XCOMET-XL"
    (model / "checkpoints").mkdir(parents=True)
    (model / "hparams.yaml").write_text("class_identifier: xcomet_metric\n")
    file = model / "checkpoints" / "model.ckpt"
    file.write_bytes(b"weights")
    return file


@contextlib.contextmanager
def track(label, total):
    yield lambda count: None


def score(config, segments, folder):
    with Answers(folder / "answers.jsonl") as answers:
        return Comet(config).scores(segments, answers, track)


def test_scores_come_back_in_order_and_once(checkpoint, tmp_path):
    segments = [
        Segment("a", "abcd", "abcd"),
        Segment("b", "äx", "äöü\u2028"),
        Segment("a", "abcd", "abcd"),
        Segment("c", "", "x"),
    ]
    config = TranslationConfig(comet=str(checkpoint), comet_batch=3)
    assert score(config, segments, tmp_path) == [1.0, 0.25, 1.0, 0.0]
    asked = checkpoint.with_name("asked.txt")
    assert asked.read_text() == "3 3 0 False\n"  # one of them is there twice
    more = [*segments, Segment("d", "xy", "xz")]
    assert score(config, more, tmp_path) == [1.0, 0.25, 1.0, 0.0, 0.5]
    assert asked.read_text().splitlines()[1:] == ["1 3 0 False"]
    checkpoint.write_bytes(b"other weights")
    score(config, segments, tmp_path)
    assert asked.read_text().splitlines()[2:] == ["3 3 0 False"]


def test_many_segments_come_in_parts_that_are_kept(checkpoint, tmp_path):
    segments = [Segment("s", str(number), str(number)) for number in range(1500)]
    assert score(TranslationConfig(comet=str(checkpoint)), segments, tmp_path) == [1.0] * 1500
    assert checkpoint.with_name("asked.txt").read_text() == "1024 16 0 False\n476 16 0 False\n"
    crash = [*segments[:500], Segment("s", "crash", "x")]
    with pytest.raises(UserError, match=r"COMET \(.*\) failed: RuntimeError: CUDA out of memory"):
        score(TranslationConfig(comet=str(checkpoint)), crash, tmp_path)


def test_the_checkpoint_is_named(checkpoint):
    assert Comet(TranslationConfig(comet=str(checkpoint))).signature.startswith("model:XCOMET-XL|sha256:")


def test_what_is_missing_is_said_before_anything_runs(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"none\.ckpt is no checkpoint of COMET"):
        Comet(TranslationConfig(comet=str(tmp_path / "none.ckpt")))
    with pytest.raises(UserError, match=r"comet_python: .*/no/python: No such file"):
        Comet(TranslationConfig(comet=str(checkpoint), comet_python="/no/python"))
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(UserError, match=r"COMET needs unbabel-comet, and .*python.* has none: python -m venv comet"):
        Comet(TranslationConfig(comet=str(checkpoint), comet_python=sys.executable))
    (checkpoint.parents[1] / "hparams.yaml").unlink()
    with pytest.raises(UserError, match="is no checkpoint of COMET"):
        Comet(TranslationConfig(comet=str(checkpoint)))


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("TranslationConfig.comet_batch = 0", "at least 1"),
        ("TranslationConfig.comet_python = 'python'", "None without a checkpoint"),
    ],
)
def test_mistakes_are_named(binding, expected):
    bindings = [
        "EvaluateConfig.model_dir = 'm'", "EvaluateConfig.measure = @HarnessConfig()", "HarnessConfig.tasks = ('a',)",
        "HarnessConfig.translation = @TranslationConfig()", binding,
    ]  # fmt: skip
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=bindings)
