"""Mixing beside merging as a judge saw it: records of `aya judge` with planted verdicts against hand counts."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from aya_jax.config import ConfigError, UserError, resolve
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.studies import judged_mixing, report
from aya_jax.studies.config import AnalysisConfig, MixingConfig, StudyConfig
from aya_jax.studies.judged_mixing import Judged
from aya_jax.studies.runs import StudyRecord
from tests.evaluation.judging.test_run import answers, judge

CONFIG = MixingConfig(
    base="measure_base",
    models={"SFT": ("measure_sft", "measure_merge")},
    against={"SFT": "measure_sft/mix_015"},
    general=("general_*",),
    judged={"harm": "harm_", "win": "win_"},
)
ANALYSIS = AnalysisConfig(mixing=CONFIG, resamples=400)
# Of eight prompts, in two languages each, those whose answer is harmful; and those whose answer is better than the base's.
BASE = (0, 1, 2, 3)
MODELS = {
    "sft/mix_015": ((0, 1), (0, 1, 2, 3)),
    "merge/merge_slerp": ((0,), (0, 1, 2, 3, 4, 5)),
    "merge/merge_ties": ((0, 1, 2), ()),
}


def harm_says(prompt, _):
    return "no idea" if "odd" in prompt else "[[UNSAFE]]" if "rude" in prompt else "[[SAFE]]"


def win_says(prompt, _):
    better, worse = prompt.find("good!"), prompt.find("bad")
    return "[[A]]" if better < worse else "[[B]]"


def texts(marked, one, other):
    return [one if n in marked else other for n in range(8)]


@pytest.fixture
def record(tmp_path, monkeypatch) -> StudyRecord:
    """A study whose judging has ended, by `aya judge` itself."""
    jobs = []
    base = answers(tmp_path / "base.jsonl", texts(BASE, "rude", "kind"), global_or_local="global")
    for model, (harmful, better) in MODELS.items():
        mine = answers(tmp_path / "mine.jsonl", texts(harmful, "rude", "kind"), global_or_local="global")
        judge(monkeypatch, tmp_path / f"harm_{model}", harm_says, "harm.gin", f"ANSWERS={mine}", f"BASELINE={base}")
        mine = answers(tmp_path / "mine.jsonl", texts(better, "good!", "bad"))
        theirs = answers(tmp_path / "theirs.jsonl", texts(better, "bad", "good!"))
        judge(
            monkeypatch,
            tmp_path / f"win_{model}",
            win_says,
            "win_tie_loss.gin",
            f"ANSWERS={mine}",
            f"BASELINE={theirs}",
        )
        for prefix in ("measure_", "harm_", "win_"):
            key = prefix + model
            stage, _, label = key.partition("/")
            coordinates = dict([label.split("_", 1)])
            jobs.append(
                {
                    "key": key,
                    "stage": stage,
                    "coordinates": coordinates,
                    "directory": key,
                    "verb": "judge",
                    "command": [],
                }
            )
    return StudyRecord(tmp_path, {"jobs": jobs}, {}, [], [])


def test_rows_are_hand_counts(record):
    rows, unread = judged_mixing.find(record, ANALYSIS)
    assert [row.title for row in rows] == ["mix 015", "slerp", "ties"]
    assert unread == 0
    # Harmful prompts: the base 4, the mix 2, SLERP 1, TIES 3.
    assert [row.measures["harm"].value.estimate for row in rows] == pytest.approx([-50, -75, -25])
    assert [row.measures["harm"].difference.estimate for row in rows[1:]] == pytest.approx([-25, 25])
    assert [row.measures["win"].value.estimate for row in rows] == pytest.approx([50, 75, 0])
    assert [row.measures["win"].difference.estimate for row in rows[1:]] == pytest.approx([25, -50])
    assert rows[0].measures["harm"].difference is None
    for row in rows[1:]:
        for found in (row.measures["harm"].value, *(each.difference for each in row.measures.values())):
            assert found.low <= found.estimate <= found.high
    table = judged_mixing.table(rows, unread, 0.95)
    shown = [[cell.text for cell in row] for row in table.rows]
    assert shown == [
        ["SFT", "mix 015", "−50.0", "", "50.0", ""],
        ["", "slerp", "−75.0", "−25.0", "75.0", "+25.0"],
        ["", "ties", "−25.0", "+25.0", "0.0", "−50.0"],
    ]
    assert (table.rows[1][3].tone, table.rows[1][5].tone) == (-1.0, -0.5)  # better in both, whatever the sign


def test_the_report_has_the_table(record, monkeypatch):
    monkeypatch.setattr(report.runs, "read", lambda directory: record)
    monkeypatch.setattr(report, "_sections", lambda *_: [])  # of training runs
    monkeypatch.setattr(report, "_facts", lambda *_: [])
    page = report.write(record.directory, ANALYSIS).html.read_text(encoding="utf-8")
    assert "Mixing and merging, judged" in page
    assert "−75.0" in page


def test_a_win_rate_s_interval_is_that_of_a_share():
    rng = np.random.default_rng(0)
    scores = {(f"p{n}", "de"): float(rng.random() < 0.6) for n in range(300)}
    found = judged_mixing.win_rate("k", Judged(scores, {}, 0), None, Bootstrap(4000)).value
    share = np.mean(list(scores.values()))
    assert found.estimate == pytest.approx(100 * share)
    assert (found.high - found.low) / 2 == pytest.approx(196 * math.sqrt(share * (1 - share) / 300), rel=0.06)


def test_a_prompt_is_drawn_in_all_of_its_languages():
    """Ten languages that say the same of a prompt are no ten times as many prompts."""
    rng = np.random.default_rng(0)
    of_prompt = {f"p{n}": float(rng.random() < 0.6) for n in range(200)}
    many = {(prompt, str(language)): score for prompt, score in of_prompt.items() for language in range(10)}
    one, ten = (
        judged_mixing.win_rate("k", Judged(scores, {}, 0), None, Bootstrap(2000)).value
        for scores in ({(prompt, "0"): score for prompt, score in of_prompt.items()}, many)
    )
    assert ten == one
    base = dict.fromkeys(many, 1.0)
    harm = judged_mixing.harm("k", Judged(many, base, 0), None, Bootstrap(2000)).value
    assert harm.estimate == pytest.approx(one.estimate - 100)
    assert harm.high - harm.low == pytest.approx(one.high - one.low)


def test_what_could_not_be_read_is_left_out_and_counted(record, tmp_path, monkeypatch):
    mine = answers(tmp_path / "mine.jsonl", texts((0,), "odd", "kind"), global_or_local="global")
    folder = tmp_path / "harm_merge" / "merge_slerp"
    judge(monkeypatch, folder, harm_says, "harm.gin", f"ANSWERS={mine}", f"BASELINE={tmp_path / 'base.jsonl'}")
    rows, unread = judged_mixing.find(record, ANALYSIS)
    assert unread == 2  # in two languages
    assert rows[1].measures["harm"].value.estimate == pytest.approx(-100)  # none of the base's other three
    assert rows[1].measures["harm"].difference.estimate == pytest.approx(-100 / 3)  # the mix has one of these


def test_models_that_were_not_judged_are_no_rows(record, tmp_path):
    for kind in ("harm", "win"):
        (tmp_path / f"{kind}_merge" / "merge_ties" / "evaluations" / "judged.json").unlink()
    (tmp_path / "win_merge" / "merge_slerp" / "evaluations" / "judged.json").unlink()
    rows, _ = judged_mixing.find(record, ANALYSIS)
    assert [list(row.measures) for row in rows] == [["harm", "win"], ["harm"]]
    assert [cell.text for cell in judged_mixing.table(rows, 0, 0.95).rows[1][4:]] == ["", ""]
    for name in ("harm", "win"):
        (tmp_path / f"{name}_sft" / "mix_015" / "evaluations" / "judged.json").unlink()
    assert judged_mixing.find(record, ANALYSIS) is None
    assert judged_mixing.find(record, dataclasses.replace(ANALYSIS, mixing=None)) is None


def test_a_model_that_shares_no_prompt_is_refused(record, tmp_path, monkeypatch):
    other = tmp_path / "other.jsonl"
    answers(other, ["kind"], global_or_local="global")
    other.write_text(other.read_text().replace('"p0"', '"q0"'))
    folder = tmp_path / "harm_merge" / "merge_ties"
    judge(monkeypatch, folder, harm_says, "harm.gin", f"ANSWERS={other}", f"BASELINE={other}")
    with pytest.raises(UserError, match="measure_merge/merge_ties: no prompt was judged"):
        judged_mixing.find(record, ANALYSIS)


def test_only_harm_and_wins_are_judged():
    bindings = ["MixingConfig.base='a'", "MixingConfig.models={'x': ('a',)}", "MixingConfig.against={'x': 'a'}"]
    bindings += ["MixingConfig.general=('g',)", "MixingConfig.judged={'style': 's_'}"]
    bindings += ["StudyConfig.run_dir='r'", "AnalysisConfig.mixing=@MixingConfig()", "StudyConfig.stages=()"]
    with pytest.raises(ConfigError, match="'harm' and 'win', or one of them"):
        resolve(StudyConfig, bindings=bindings)
