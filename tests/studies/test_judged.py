"""The report's table of held-out pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from aya_jax.studies.judged import find, pairs_table, rounds_table
from aya_jax.studies.runs import StudyRecord, TrainingRun


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


def test_folds_are_pooled_over_their_pairs():
    """270 of 475 right: Wilson's interval by hand is 52.4 to 61.2 %."""
    shares = (56, 57, 54, 44, 59)
    names = ("accuracy", "margin")
    runs = [
        run(f"reward/fold_{n}", measured(80, right / 95, n / 10, 95, names=names)) for n, right in enumerate(shares)
    ]
    runs += [run("reward/fold_0-seed_2", measured(80, 0.75, 0.5, 4, names=names))]
    rows = [[cell.plain for cell in row] for row in pairs_table(runs).rows]
    assert rows[-2:] == [
        ["reward/all folds", "", "56.8% 52.4% to 61.2%", "0.2000", "475"],
        ["reward/all folds-seed_2", "", "75.0% 30.1% to 95.4%", "0.5000", "4"],
    ]


@pytest.mark.parametrize("runs", [[], [run("text", {"step": 10, "loss": 2.0})]])
def test_without_pairs_there_is_no_table(runs):
    assert pairs_table(runs) is None


def summary(number, reward, gained=None):
    found = {"round": number, "held_out": {"reward": reward, "tokens": 30.0} | ({"kl": 1.5} if number else {})}
    change = {"mean": gained, "low": gained - 0.1, "high": gained + 0.1} if number else None
    return found | ({"change": change, "rows": 60} if number else {})


def test_rounds_of_several_runs_and_what_they_gained_together(tmp_path):
    gains = {"online/seed_1": [0.2, 0.3], "online/seed_2": [0.25, 0.5], "online/seed_3": [0.3, 0.1]}
    jobs = [{"key": key, "verb": "online", "directory": key} for key in [*gains, "online/seed_4"]]
    for key, values in gains.items():
        (tmp_path / key).mkdir(parents=True)
        rounds = [summary(0, 0.1), *(summary(n, 0.1 + gained, gained) for n, gained in enumerate(values, 1))]
        (tmp_path / key / "rounds.json").write_text(json.dumps(rounds))
    record = StudyRecord(tmp_path, {"jobs": [*jobs, {"key": "sft", "verb": "train", "directory": "sft"}]}, {}, [], [])
    rows = [[cell.plain for cell in row] for row in rounds_table(record).rows]
    assert rows[:3] == [
        ["online/seed_1", "0", "0.1000", "", "", "30.0", ""],
        ["", "1", "0.3000", "+0.2000 +0.1000 to +0.3000", "1.50", "30.0", "60"],
        ["", "2", "0.4000", "+0.3000 +0.2000 to +0.4000", "1.50", "30.0", "60"],
    ]
    low, high = stats.t.interval(0.95, 2, 0.3, np.std([0.3, 0.5, 0.1], ddof=1) / np.sqrt(3))
    assert rows[-2][:2] == ["mean of 3 runs", "1"]
    assert rows[-1] == ["", "2", "", f"+0.3000 {low:+.4f} to {high:+.4f}", "", "", ""]
    assert rounds_table(StudyRecord(tmp_path, {"jobs": jobs[3:]}, {}, [], [])) is None


def test_what_was_found_in_words(tmp_path):
    for number, gained in enumerate((0.2, 0.4, 0.3), 1):
        (tmp_path / f"online_{number}").mkdir()
        rounds = [summary(0, 0.1), summary(1, 0.1 + gained, gained)]
        (tmp_path / f"online_{number}" / "rounds.json").write_text(json.dumps(rounds))
    jobs = [{"key": f"o{n}", "verb": "online", "directory": f"online_{n}"} for n in (1, 2, 3)]
    names = ("accuracy", "margin")
    runs = [run(f"reward/fold_{n}", measured(80, right / 95, 0.1, 95, names=names)) for n, right in enumerate([54] * 5)]
    runs += [run("dpo", measured(10, 0.5, 0.0, 8), measured(20, 0.75, 0.25, 8))]
    low, high = stats.t.interval(0.95, 2, 0.3, 0.1 / np.sqrt(3))
    found = find(StudyRecord(tmp_path, {"jobs": jobs}, {}, [], runs))
    assert found.headline == (
        f"After 1 online round the reward of answers to held-out prompts has changed by +0.300 ({low:+.3f} to {high:+.3f}), "
        "the mean of 3 runs."
    )
    wilson = stats.binomtest(270, 475).proportion_ci(method="wilson")
    assert found.sentences == (
        f"reward/all folds: the chosen answer has the higher reward in 56.8% ({wilson.low:.1%} to {wilson.high:.1%}) of 475 "
        "held-out pairs.",
        "dpo: the chosen answer has the higher reward in 75.0% (65.0% to 85.0%) of 8 held-out pairs.",
    )
    one = find(StudyRecord(tmp_path, {"jobs": jobs[:1]}, {}, [], []))
    assert "by +0.200 (+0.100 to +0.300)." in one.headline
    (tmp_path / "online_1" / "rounds.json").write_text(json.dumps([summary(0, 0.1), summary(1, 0.1, 0.05)]))
    assert find(StudyRecord(tmp_path, {"jobs": jobs[:1]}, {}, [], [])).headline.endswith("which is not told from none.")
    assert find(StudyRecord(tmp_path, {"jobs": []}, {}, [], runs)).headline.startswith("reward/all folds: ")
    assert find(StudyRecord(tmp_path, {"jobs": []}, {}, [], [run("text", {"step": 10, "loss": 2.0})])) is None
