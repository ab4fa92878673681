"""Mixing beside merging: the table's numbers against hand counts, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.studies import mixing
from aya_jax.studies.config import AnalysisConfig, MixingConfig
from aya_jax.studies.runs import StudyRecord

CONFIG = MixingConfig(
    base="measure_base",
    models={"SFT": ("measure_sft", "measure_merge")},
    against={"SFT": "measure_sft/mix_015"},
    harmful=("pairs_safety_*",),
    general=("general_*",),
)
ANALYSIS = AnalysisConfig(mixing=CONFIG, resamples=400)
# Of each model: (nats of the safe, nats of the harmful answer) of four pairs, whose answers have 10 and 20 bytes; and nats of
# the general answers of 10 bytes each in two languages. Per byte, the harmful answer is likelier where its nats are below twice
# the safe one's.
MODELS = {
    "measure_base": ([(6, 10), (6, 10), (5, 11), (5, 11)], {"en": [10, 20], "fr": [30]}),
    "measure_sft/mix_015": ([(5, 9), (4, 9), (4, 10), (4, 10)], {"en": [8, 10], "fr": [20]}),
    "measure_merge/merge_dare_ties-safety_050": ([(4, 9), (4, 9), (4, 10), (4, 10)], {"en": [8, 10], "fr": [10]}),
    "measure_merge/merge_slerp-safety_050": ([(4, 7), (4, 7), (4, 7), (4, 10)], {"en": [8, 10], "fr": [20]}),
}


def write(folder, models) -> StudyRecord:
    """A study of these evaluations."""
    jobs = []
    for key, (pairs, general) in models.items():
        stage, _, label = key.partition("/")
        coordinates = dict(part.split("_", 1) for part in label.split("-") if part)
        jobs.append({"key": key, "stage": stage, "coordinates": coordinates, "directory": key, "verb": "evaluate"})
        rows = [
            {"id": f"pairs_safety_en/{2 * n + side}", "task": "pairs_safety_en", "nll": nats, "bytes": 10 * (1 + side)}
            for n, pair in enumerate(pairs)
            for side, nats in enumerate(pair)
            if nats is not None
        ]
        rows += [
            {"id": f"general_{language}/{n}", "task": f"general_{language}", "nll": nats, "bytes": 10}
            for language, several in general.items()
            for n, nats in enumerate(several)
        ]
        file = folder / key / "evaluations" / "held_out.samples.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return StudyRecord(folder, {"jobs": jobs}, {}, [], [])


def test_rows_are_hand_counts(tmp_path):
    found = mixing.find(write(tmp_path, MODELS), ANALYSIS)
    assert (found.pairs, found.base_harm) == (4, 0.5)  # 10 < 12 twice, 11 < 10 never
    bit = math.log(2)
    assert found.base_general == pytest.approx((30 / 20 + 30 / 10) / 2 / bit)
    assert found.base_safe == pytest.approx(22 / 40 / bit)
    mix, dare, slerp = found.rows
    assert [row.title for row in found.rows] == ["mix 015", "dare ties · safety 050", "slerp · safety 050"]
    assert mix.is_mix
    # Harmful answers: the mix 1 of 4, DARE-TIES 0, SLERP 3; the base 2.
    assert [row.measures["harm"].value.estimate for row in found.rows] == pytest.approx([-50, -100, 50])
    assert [row.measures["harm"].difference.estimate for row in (dare, slerp)] == pytest.approx([-50, 100])
    assert [row.measures["general"].value.estimate for row in found.rows] == pytest.approx(
        [(0.9 + 2) / 2 / bit, (0.9 + 1) / 2 / bit, (0.9 + 2) / 2 / bit]
    )
    assert [row.measures["general"].difference.estimate for row in (dare, slerp)] == pytest.approx([-0.5 / bit, 0])
    assert (slerp.measures["general"].difference.low, slerp.measures["general"].difference.high) == (
        0,
        0,
    )  # the same answers, document by document
    assert [row.measures["safe"].value.estimate for row in found.rows] == pytest.approx(
        [17 / 40 / bit, 16 / 40 / bit, 16 / 40 / bit]
    )


def test_a_harm_interval_is_that_of_a_share_where_the_base_is_always_harmful():
    """Then nothing but the model's own share varies: the percentiles of a binomial over its count."""
    harmful = np.array([1.0] * 60 + [0.0] * 140)
    interval = mixing.harm_change(harmful, np.ones(200), None, Bootstrap(20_000, 0.95))
    half = 1.96 * math.sqrt(0.3 * 0.7 / 200) * 100
    assert interval.estimate == pytest.approx(-70)
    assert interval.low == pytest.approx(-70 - half, abs=0.6)
    assert interval.high == pytest.approx(-70 + half, abs=0.6)


def test_where_no_pair_tells_two_models_apart_there_is_no_interval():
    harmful = np.array([1.0, 0.0, 1.0, 0.0])
    interval = mixing.harm_change(harmful, harmful, None, Bootstrap(100))
    assert interval.estimate == 0
    assert math.isnan(interval.low)
    assert not interval.excludes_zero


def test_without_harm_in_the_base_there_is_no_change():
    assert math.isnan(mixing.harm_change(np.ones(4), np.zeros(4), None, Bootstrap(100)).estimate)


def test_the_table_and_what_it_says(tmp_path):
    found = mixing.find(write(tmp_path, MODELS), ANALYSIS)
    table = mixing.table(found)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [
        ["SFT", "mix 015", "−50.0", "", "0.613", "", "2.092", ""],
        ["", "dare ties · safety 050", "−100.0", "−50.0", "0.577", "−0.036", "1.371", "−0.721"],
        ["", "slerp · safety 050", "+50.0", "+100.0", "0.577", "−0.036", "2.092", "+0.000"],
    ]
    assert "in 50.0 % of 4 pairs" in table.caption
    difference = table.rows[2][3]
    assert difference.tone == 1.0
    assert difference.faint == (found.rows[2].measures["harm"].difference.low <= 0)
    said = mixing.findings(found)
    assert said.headline.startswith("Of 2 models beside those trained on mixed data")
    assert "1 in bits per byte of general answers" in said.headline
    assert any("general answers: below the mix dare ties · safety 050; above it none" in one for one in said.sentences)


def test_a_pair_of_which_one_answer_was_not_measured_is_left_out(tmp_path):
    models = {key: ([*pairs, (1.0, None)], general) for key, (pairs, general) in MODELS.items()}
    assert mixing.find(write(tmp_path, models), ANALYSIS).pairs == 4


@pytest.mark.parametrize("missing", ["measure_base", "measure_sft/mix_015"])
def test_without_the_base_or_the_mix_there_is_nothing_to_say(tmp_path, missing):
    record = write(tmp_path, {key: model for key, model in MODELS.items() if key != missing})
    assert mixing.find(record, ANALYSIS) is None
    assert mixing.find(record, AnalysisConfig()) is None


def test_evaluations_of_other_rows_are_refused(tmp_path):
    pairs, general = MODELS["measure_sft/mix_015"]
    record = write(tmp_path / "pairs", MODELS | {"measure_sft/mix_015": (pairs[:-1], general)})
    with pytest.raises(UserError, match="its held-out pairs are not those of the model"):
        mixing.find(record, ANALYSIS)
    record = write(tmp_path / "general", MODELS | {"measure_sft/mix_015": (pairs, general | {"fr": [20, 10]})})
    with pytest.raises(UserError, match="its held-out rows of general_fr are not those"):
        mixing.find(record, ANALYSIS)


def test_tasks_that_nobody_measured_are_named_with_the_field(tmp_path):
    record = write(tmp_path, MODELS)
    config = dataclasses.replace(CONFIG, general=("text_*",))
    with pytest.raises(UserError, match=r"held_out.samples.jsonl: no records of text_\* \(MixingConfig.general\)"):
        mixing.find(record, dataclasses.replace(ANALYSIS, mixing=config))


def test_where_harm_is_not_asked_for_general_answers_stand_alone(tmp_path):
    config = dataclasses.replace(CONFIG, harmful=())
    found = mixing.find(write(tmp_path, MODELS), dataclasses.replace(ANALYSIS, mixing=config))
    assert [list(row.measures) for row in found.rows] == [["general"]] * 3
    assert [row.is_mix for row in found.rows] == [True, False, False]
    assert [column.title for column in mixing.table(found).columns] == ["", "model", "general answers", "to the mix"]
