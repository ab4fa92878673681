"""The quickstart for real, shortened: text to report through every verb, then nothing left to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def aya(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "aya_jax", *arguments], capture_output=True, text=True, timeout=1200)


@pytest.mark.slow
def test_quickstart_from_text_to_report(tmp_path):
    study = ["study", "gin/studies/to_code/quickstart.gin", f"--gin.RUN_DIR={tmp_path}"]
    study += ["--gin.SEEDS=(1,)", "--gin.STEPS_200B=30", "--gin.WARMUP_STEPS=5", "--gin.VALIDATE_EVERY=15"]
    first = aya(*study)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "% code" in (tmp_path / "report.html").read_text()
    code = [bits_on_code(tmp_path / "evaluate" / f"code_{share}-seed_1") for share in ("000", "025", "050")]
    assert code[1] < code[0]  # a domain answers to its own share; nothing more is claimed of so small a model
    assert code[2] < code[0]
    states = sorted((tmp_path / "state").glob("*/*.json"))
    before = [path.read_text() for path in states]
    assert aya(*study).returncode == 0
    assert [path.read_text() for path in states] == before


def bits_on_code(directory: Path) -> float:
    tasks = json.loads((directory / "evaluations/held_out.json").read_text())["tasks"]
    return sum(tasks[name]["bits_per_byte"] for name in tasks if name.startswith("code_"))
