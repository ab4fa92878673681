"""A profile as two real processes: the answers and scores of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aya_jax.evaluation.results import read_samples, read_summary
from tests.training import process_pair, small_run
from tests.training.process_pair import one_at_a_time  # noqa: F401 - a fixture
from tools.random_model import shape, write_random_model

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

ROOT = Path(__file__).parents[3]


def test_two_processes_profile_as_one_does(tmp_path):
    write_random_model(tmp_path / "model", shape(32, 2, 256))
    rows = [{"id": n, "language": "de" if n % 2 else "en", "prompt": f"Frage {n}?"} for n in range(6)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "words.txt").write_text("e\n")  # a letter that random answers have now and then
    command = (
        "evaluate", ROOT / "gin/evaluate/profile.gin", f"--gin.MODEL_DIR={tmp_path / 'model'}",
        f"--gin.INPUT={tmp_path / 'prompts.jsonl'}", f"--gin.ProfileConfig.lexicon={tmp_path / 'words.txt'}",
        "--gin.ProfileConfig.samples=2", "--gin.SamplingConfig.max_tokens=12", "--gin.EngineConfig.slots=4",
        f"--gin.EvaluateConfig.compilation_cache='{tmp_path / 'compiled'}'",
        "--gin.MeshConfig.data=2", "--gin.MeshConfig.tensor=2",
    )  # fmt: skip
    small_run.run(*command, f"--gin.RUN_DIR={tmp_path / 'alone'}", devices=4)
    first, second = process_pair.run(*command, f"--gin.RUN_DIR={tmp_path / 'together'}", devices=2)
    alone, together = (tmp_path / name / "evaluations" / "profile.json" for name in ("alone", "together"))
    assert len(read_samples(alone)) == 6
    assert read_samples(together) == read_samples(alone)
    assert read_summary(together)["families"] == read_summary(alone)["families"]
    assert "Toxicity" in first
    assert second == ""
    assert len(list((tmp_path / "together" / "evaluations" / "answers").glob("toxicity-*"))) == 1
