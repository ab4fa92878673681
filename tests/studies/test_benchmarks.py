"""`aya compare`: what is said of models whose answers were planted."""

from __future__ import annotations

import re

import numpy as np
import pytest
import sacrebleu

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.evaluation.results import Sample, write
from aya_jax.studies import benchmarks, benchmarks_page
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


def test_translations_are_compared_as_corpora(tmp_path):
    """Scores and differences are sacrebleu's of the corpus; the mean of sentences' scores is another number."""
    right = ["Das alte Haus steht schon lange am Fluss, und keiner wohnt darin.", "Ja.", "Er geht nach Hause."] * 20
    said = {"a": ["Das Haus ist am Wasser.", "Ja.", "Er ging heim."] * 20, "b": [text[:-5] for text in right]}
    for name, texts in said.items():
        samples = [
            Sample(
                id=f"flores_en_de/{n}", task="flores_en_de", family="flores_en_x", item=f"flores_en_x/{n}", language="de",
                metrics={"chrf++": 50.0}, prediction=f" {text}\n", target=None, prompt="",
                doc={"source": "?", "reference": right[n]},
            )
            for n, text in enumerate(texts)
        ]  # fmt: skip
        facts = {
            "kind": "benchmarks",
            "weights_digest": "0" * 64,
            "fingerprint": "f",
            "harness": "0.4.13",
            "limit": None,
        }
        write(tmp_path / name / "evaluations" / "benchmarks.json", facts, samples)
    scores = [sacrebleu.corpus_chrf([t.strip() for t in said[name]], [right], word_order=2).score for name in "ab"]
    models, (flores,) = compared(tmp_path / "a", tmp_path / "b", resamples=200)
    assert [means.macro.estimate for means in flores.means] == pytest.approx(scores)
    assert flores.against[0].macro.interval.estimate == pytest.approx(scores[1] - scores[0])
    (sentence,) = benchmarks.sentences(models, [flores])
    assert sentence.startswith(f"b is better than a: {scores[1] - scores[0]:+.1f} (")
    cell = benchmarks_page.heat_map(models, [flores], 1).rows[0][1]
    assert cell.text == f"{scores[1]:.1f}"


def test_what_is_no_share_of_right_answers_is_compared_in_its_own_unit(tmp_path):
    """Each metric by itself: words as they are, shares in percent, an index with more digits; none is better."""
    added = {"words": 12.0, "cut_short": 0.25, "rix": 0.125}
    for name, times in (("a", 0), ("b", 1)):
        samples = [
            Sample(
                id=f"profile_de/{n}", task="profile_de", family="profile", item=str(n), language="de", prediction="x",
                metrics={"words": 1000.0 + n + 12 * times, "rix": 2.0 + n % 2 + times / 8, "cut_short": 0.5 + times / 4},
                target=None, prompt="?",
            )
            for n in range(30)
        ]  # fmt: skip
        facts = {"kind": "benchmarks", "weights_digest": "", "fingerprint": "f", "harness": None, "limit": None}
        units = {"words": "words", "cut_short": "%", "rix": ""}
        write(tmp_path / name / "evaluations" / "benchmarks.json", facts | {"units": units}, samples)
    models, found = compared(tmp_path / "a", tmp_path / "b", resamples=200)
    assert {b.metric: b.against[0].macro.interval.estimate for b in found} == pytest.approx(added)
    said = benchmarks.sentences(models, found)
    assert [sentence.partition(" (")[0] for sentence in said] == [
        "b is higher than a: +12.0",
        "b is higher than a: +25.0",
        "b is higher than a: +0.12",
    ]
    row = [cell.text for cell in benchmarks_page.heat_map(models, found, 1).rows[0]]
    assert row == ["de", "1026.5", "75.0", "2.62"]
    _, (one,) = compared(tmp_path / "a", tmp_path / "b", metric="rix", resamples=200)
    assert one.metric == "rix"
    page = benchmarks_page.render(models, found, CompareConfig(run_dirs=("a", "b")), said, [])
    assert page.count("profile: answers") == 1
