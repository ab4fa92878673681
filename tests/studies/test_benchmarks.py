"""`aya compare`: what is said of models whose answers were planted."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.evaluation.results import Sample, write
from aya_jax.studies import benchmarks
from aya_jax.studies.config import CompareConfig

LANGUAGES = ("ar", "de", "he")
QUESTIONS = 120


def evaluation(folder, right, *, skip=(), **heading):
    """A run whose answers are right where `right` [questions, languages] says so."""
    samples = [
        Sample(
            id=f"quiz_{language}/{n}",
            task=f"quiz_{language}",
            family="quiz",
            item=f"quiz/{n}",
            language=language,
            metrics={"acc": float(right[n, k]), "acc_norm": 0.0},
            prediction=int(not right[n, k]),
            target=0,
            prompt={"he": "מה נכון?", "ar": "ما الصحيح؟"}.get(language, "Was <stimmt>?"),
            choices=("yes & no", "no"),
        )
        for k, language in enumerate(LANGUAGES)
        for n in range(QUESTIONS)
        if (n, language) not in skip
    ]
    facts = {"kind": "benchmarks", "weights_digest": "0" * 64, "fingerprint": "f", "harness": "0.4.13", "limit": None}
    write(folder / "evaluations" / "benchmarks.json", facts | heading, samples)
    return folder


@pytest.fixture
def answers():
    """Right in about half; a second model that is right in all languages where the first is, and in German in more."""
    rng = np.random.default_rng(0)
    first = rng.random((QUESTIONS, 3)) < 0.5
    second = first.copy()
    second[:, 1] |= rng.random(QUESTIONS) < 0.5
    return first, second


def compared(*folders, **more):
    config = CompareConfig(run_dirs=tuple(map(str, folders)), **more)
    models = benchmarks.read_models(config)
    return models, benchmarks.compare(models, config)


def test_a_planted_difference_is_found_where_it_is(tmp_path, answers):
    models, (quiz,) = compared(evaluation(tmp_path / "a", answers[0]), evaluation(tmp_path / "b", answers[1]))
    (against,) = quiz.against
    found = dict(zip(against.languages, against.by_language, strict=True))
    gain = float((answers[1][:, 1] & ~answers[0][:, 1]).mean())
    assert found["de"].interval.estimate == pytest.approx(gain)
    assert found["de"].interval.low > 0.1
    assert found["ar"].interval.estimate == 0
    assert against.macro.interval.estimate == pytest.approx(gain / 3)
    (sentence,) = benchmarks.sentences(models, [quiz])
    assert re.fullmatch(
        r"b is better than a: \+\d+\.\d \(\+\d+\.\d to \+\d+\.\d\) on quiz, p 0\.\d+ among all benchmarks\.", sentence
    )
    (turned,) = benchmarks.sentences(*compared(tmp_path / "b", tmp_path / "a"))
    assert turned.startswith("a is worse than b: -")


def test_two_alike_are_not_told_apart(tmp_path, answers):
    folders = evaluation(tmp_path / "a", answers[0]), evaluation(tmp_path / "b", answers[0])
    (sentence,) = benchmarks.sentences(*compared(*folders))
    assert sentence.startswith("b and a are not told apart: +0.0 (")
    assert "would have been found in 4 of 5 cases" in sentence


def test_the_page_shows_answers_in_every_script_and_escapes_them(tmp_path, answers, capsys):
    folders = evaluation(tmp_path / "a", answers[0]), evaluation(tmp_path / "b", answers[1])
    assert main(["compare", *map(str, folders), f"--gin.CompareConfig.output_dir={tmp_path}"]) == 0
    assert "b is better than a" in capsys.readouterr().out
    page = (tmp_path / "benchmarks.html").read_text(encoding="utf-8")
    assert '<p lang="he" dir="auto">מה נכון?</p>' in page
    assert '<p lang="de" dir="auto">Was &lt;stimmt&gt;?</p>' in page
    assert "yes &amp; no" in page
    assert main(["compare", str(folders[0]), f"--gin.CompareConfig.output_dir={tmp_path / 'one'}"]) == 0
    alone = (tmp_path / "one" / "benchmarks.html").read_text(encoding="utf-8")
    assert '<p lang="ar" dir="auto">ما الصحيح؟</p>' in alone
    assert "differences-section" not in alone


def test_what_only_one_was_asked_is_counted_and_left_out(tmp_path, answers):
    skip = {(n, "de") for n in range(20)}
    folders = evaluation(tmp_path / "a", answers[0], skip=skip), evaluation(tmp_path / "b", answers[1], limit=5)
    models, found = compared(*folders)
    (quiz,) = found
    assert quiz.missing == (20, 0)
    assert [d.shared for d in quiz.against[0].by_language] == [120, 100, 120]
    gaps = (answers[1].astype(float) - answers[0])[20:, 1]
    assert quiz.against[0].by_language[1].interval.estimate == pytest.approx(gaps.mean())
    warned = " ".join(benchmarks.warnings(models, found))
    assert "a was not asked 20 questions that others were" in warned
    assert "b: only the first 5 rows of each task were asked" in warned


def test_other_settings_are_said(tmp_path, answers):
    folders = (
        evaluation(tmp_path / "a", answers[0]),
        evaluation(tmp_path / "b", answers[0], fingerprint="g", harness="0.5"),
    )
    assert [w for w in benchmarks.warnings(*compared(*folders)) if "different" in w] == [
        "The models were measured with different settings.",
        "The models were measured with different releases of the harness.",
    ]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, answers):
    folders = evaluation(tmp_path / "x" / "run", answers[0]), evaluation(tmp_path / "y" / "run", answers[0])
    assert [model.name for model in compared(*folders)[0]] == [str(folder) for folder in folders]


def test_mistakes_are_named(tmp_path, answers):
    evaluation(tmp_path / "a", answers[0], kind="other")
    with pytest.raises(UserError, match=r"no evaluation of benchmarks is there; run aya evaluate"):
        compared(tmp_path / "a")
    with pytest.raises(UserError, match="every run once"):
        resolve(CompareConfig, bindings=["CompareConfig.run_dirs=('a', 'a')"])
    folder = evaluation(tmp_path / "b", answers[0])
    file = folder / "evaluations" / "benchmarks.samples.jsonl"
    file.write_text(file.read_text().replace('"family"', '"famly"', 1))
    with pytest.raises(UserError, match=r"samples\.jsonl, line 1: not a record of a benchmark"):
        compared(folder)
