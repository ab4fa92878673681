"""The report's table of held-out pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from aya_jax.studies.judged import pairs_table
from aya_jax.studies.runs import TrainingRun


def measured(step, accuracy, margin, pairs, names=("rewards/accuracies", "rewards/margins"), languages=()):
    record = {"step": step, "kind": "validation"}
    for prefix in ("", *(f"language/{language}/" for language in languages)):
        record |= {
            f"{prefix}{names[0]}": accuracy,
            f"{prefix}{names[0]}/low": accuracy - 0.1,
            f"{prefix}{names[0]}/high": accuracy + 0.1,
            f"{prefix}{names[1]}": margin,
            f"{prefix}pairs": pairs,
        }
    return record


def run(name, *validation):
    return TrainingRun(name, Path(name), {}, {}, {}, [], list(validation), [])


def test_the_first_and_the_last_measurement_and_the_last_by_language():
    runs = [
        run(
            "dpo",
            measured(10, 0.5, 0.0, 8),
            measured(20, 0.6, 0.1, 8),
            measured(30, 0.75, 0.25, 8, languages=("ar", "de")),
        ),
        run("reward", measured(10, 0.625, -0.5, 1200, names=("accuracy", "margin"), languages=("en",))),
        run("text", {"step": 10, "loss": 2.0}),
        run("nothing"),
    ]
    table = pairs_table(runs)
    assert [[cell.plain for cell in row] for row in table.rows] == [
        ["dpo", "step 10", "50.0% 40.0% to 60.0%", "0.0000", "8"],
        ["dpo", "step 30", "75.0% 65.0% to 85.0%", "0.2500", "8"],
        ["", "ar", "75.0% 65.0% to 85.0%", "0.2500", "8"],
        ["", "de", "75.0% 65.0% to 85.0%", "0.2500", "8"],
        ["reward", "step 10", "62.5% 52.5% to 72.5%", "-0.5000", "1,200"],
    ]


@pytest.mark.parametrize("runs", [[], [run("text", {"step": 10, "loss": 2.0})]])
def test_without_pairs_there_is_no_table(runs):
    assert pairs_table(runs) is None
