"""Calibration and Global-MMLU's parts from records of a run, whose right answers were planted."""

from __future__ import annotations

import json
import math

import pytest

from aya_jax.evaluation.harness.analyse import analyse
from aya_jax.evaluation.results import Sample


def sample(number, language, *, right, confidence=0.7, family="quiz", **doc):
    """Four choices, the likeliest with this probability; the right one is that, or the next."""
    log_probs = [math.log((1 - confidence) / 3)] * 4
    log_probs[number % 4] = math.log(confidence)
    return Sample(
        id=f"{family}_{language}/{number}", task=f"{family}_{language}", family=family, item=f"{family}/{number}",
        language=language, metrics={"acc": float(right)}, prediction=number % 4,
        target=(number + (not right)) % 4, prompt="", choices=("A", "B", "C", "D"), log_probs=tuple(log_probs), doc=doc,
    )  # fmt: skip


def test_who_is_right_as_often_as_sure_is_calibrated():
    found = analyse([sample(n, "de", right=n % 10 < 7) for n in range(100)])["calibration"]["quiz"]
    assert found["ece_one_bin"]["value"] == pytest.approx(0, abs=1e-9)
    assert (found["confidence"], found["accuracy"], found["n"]) == (pytest.approx(0.7), pytest.approx(0.7), 100)
    brier = 0.7 * (0.3**2 + 3 * 0.1**2) + 0.3 * (0.7**2 + 2 * 0.1**2 + 0.9**2)
    assert found["brier"]["value"] == pytest.approx(brier)


def test_who_is_never_right_is_not():
    found = analyse([sample(n, "de", right=False) for n in range(40)])["calibration"]["quiz"]
    assert found["ece"]["value"] == pytest.approx(0.7)


def test_culturally_sensitive_questions_are_apart():
    def question(n, language):
        sensitive = n % 2 == 0
        doc = {
            "sample_id": f"law/test/{n}", "subject": "law", "subject_category": "Humanities", "is_annotated": True,
            "cultural_sensitivity_label": "CS" if sensitive else "CA",
        }  # fmt: skip
        right = language == "de" or not sensitive
        return sample(n, language, right=right, family="global_mmlu_full_law", **doc)

    found = analyse([question(n, language) for n in range(40) for language in ("de", "yo")])["global_mmlu"]
    assert found["accuracy"]["CS"]["yo"]["value"] == 0
    assert found["accuracy"]["CA"]["yo"]["value"] == 1
    assert found["accuracy"]["CS"]["de"]["value"] == 1
    assert found["accuracy"]["MA"]["yo"]["value"] == 0.5
    json.dumps(found, allow_nan=False)


def test_answers_without_choices_are_left_alone():
    record = sample(0, "de", right=True)
    text = Sample(**{**vars(record), "log_probs": (), "prediction": "word", "target": "word"})
    assert analyse([text] * 20) == {}
