"""Records on disk: whatever a model said comes back as it was."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.evaluation.results import Sample, plain, read_samples, read_summary, samples_file, write

SAMPLE = Sample(
    id="quiz_de/0", task="quiz_de", family="quiz", item="quiz/0", language="de", metrics={"acc": 1.0}, prediction="",
    target=0, prompt="",
)  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(said=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tmp_path_factory, said):
    """Also one with U+2028, U+0085 or a form feed, which end lines for some readers."""
    file = tmp_path_factory.mktemp("results") / "quiz.json"
    samples = [dataclasses.replace(SAMPLE, prediction=said + end) for end in ("", "\u2028x", "\x85", "\x0c\r\n")]
    write(file, {}, samples)
    assert [sample.prediction for sample in read_samples(file)] == [sample.prediction for sample in samples]


def test_a_summary_that_was_cut_short_is_none(tmp_path):
    write(tmp_path / "quiz.json", {"kind": "benchmarks"}, [SAMPLE])
    assert read_summary(tmp_path / "quiz.json")["families"]["quiz"]["acc"]["macro"]["mean"] == 1.0
    (tmp_path / "quiz.json").write_text('{"kind"')
    assert read_summary(tmp_path / "quiz.json") is None
    assert samples_file(tmp_path / "quiz.json").exists()


@dataclasses.dataclass
class _Thing:
    value: float
    parts: dict


def test_plain_is_what_json_has_a_form_for():
    found = plain(_Thing(math.nan, {1: (1.5, math.inf), "f": len, "n": None, "b": True}))
    assert found == {"value": None, "parts": {"1": [1.5, None], "f": str(len), "n": None, "b": True}}
    assert found["parts"]["b"] is True
    assert plain(pytest.approx) == str(pytest.approx)
