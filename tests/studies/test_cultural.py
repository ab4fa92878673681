"""`aya compare` of three models and more: ranks on Global-MMLU's sensitive and agnostic questions, planted answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from aya_jax.cli import main
from aya_jax.evaluation.results import Sample, write
from aya_jax.studies import cultural

LANGUAGES = ("en", "ko", "yo")  # of high, mid and low resources
QUESTIONS = 60
LABELS = np.array(["CS"] * 20 + ["CA"] * 30 + ["-"] * 10)


def samples(right, *, skip=(), labels=LABELS):
    """A model's answers, right where `right` [questions, languages] says so."""
    return [
        Sample(
            id=f"global_mmlu_full_{language}_law/{n}", task=f"global_mmlu_full_{language}_law", family="global_mmlu_full_law",
            item=f"global_mmlu_full_law/law/test/{n}", language=language, metrics={"acc": float(right[n, k])},
            prediction=int(not right[n, k]), target=0, prompt="?", choices=("A", "B"),
            log_probs=(-0.1, -2.0) if right[n, k] else (-2.0, -0.1),
            doc={
                "sample_id": f"law/test/{n}", "subject": "law", "subject_category": "Humanities",
                "is_annotated": str(labels[n]) != "-", "cultural_sensitivity_label": str(labels[n]),
            },
        )
        for k, language in enumerate(LANGUAGES)
        for n in range(QUESTIONS)
        if (n, language) not in skip
    ]  # fmt: skip


@pytest.fixture
def answers():
    rng = np.random.default_rng(3)
    return {f"m{k}": rng.random((QUESTIONS, 3)) < 0.4 + 0.1 * k for k in range(4)}


def ranks_by_scipy(answers, languages, mask):
    return {
        language: dict(
            zip(
                answers,
                stats.rankdata([-right[mask, k].sum() for right in answers.values()], method="min").tolist(),
                strict=True,
            )
        )
        for k, language in enumerate(LANGUAGES)
        if language in languages
    }


def test_ranks_and_changes_are_those_of_the_counts(answers):
    found, notes = cultural.find({model: samples(right) for model, right in answers.items()}, 200)
    assert notes == []
    assert (found.languages, found.questions) == (LANGUAGES, {"MA": 50, "CS": 20, "CA": 30})
    masks = {"MA": LABELS != "-", "CS": LABELS == "CS", "CA": LABELS == "CA"}
    expected = {subset: ranks_by_scipy(answers, LANGUAGES, mask) for subset, mask in masks.items()}
    assert found.ranks == expected
    for subset in ("CS", "CA"):
        moves = np.array([[expected["MA"][g][m] - expected[subset][g][m] for m in answers] for g in LANGUAGES])
        of_all = found.changes[subset]["all"]
        assert of_all.rank_changes.value == pytest.approx((moves != 0).sum(axis=1).mean())
        assert of_all.position_changes.value == pytest.approx(np.abs(moves).sum(axis=1).mean())
        for group, k in (("high", 0), ("mid", 1), ("low", 2)):
            assert found.changes[subset][group].position_changes.value == np.abs(moves[k]).sum()
    assert np.abs(moves).sum() > 0  # something is to be seen


def test_models_are_ranked_on_what_all_of_them_answered(answers):
    """m0 lacks a sensitive question in Korean, so in no language; m1 has no Yoruba; m3 no Global-MMLU at all."""
    given = {model: samples(right) for model, right in answers.items()}
    given["m0"] = samples(answers["m0"], skip={(0, "ko")})
    given["m1"] = samples(answers["m1"], skip={(n, "yo") for n in range(QUESTIONS)})
    given["m3"] = []
    found, (note,) = cultural.find(given, 100)
    assert (found.models, found.questions) == (("m0", "m1", "m2"), {"MA": 49, "CS": 19, "CA": 30})
    assert set(found.languages) == {"en", "ko"}
    mask = LABELS == "CS"
    mask[0] = False
    three = {model: answers[model] for model in found.models}
    assert found.ranks["CS"] == ranks_by_scipy(three, ("en", "ko"), mask)
    # of annotated answers: m0 has 1 + 50 that do not count, m1 2, m2 2 + 50
    assert "105 annotated answers are not ranked" in note


def test_two_models_have_no_ranking(answers):
    given = {model: samples(right) for model, right in list(answers.items())[:2]}
    assert cultural.find(given, 100) == (None, [])


def test_why_there_is_none_is_said(answers):
    given = {model: samples(right) for model, right in answers.items()}
    given["m1"] = samples(answers["m1"], labels=np.where(LABELS == "CA", "CS", LABELS))
    found, (note,) = cultural.find(given, 100)
    assert found is None
    assert "label the same questions differently" in note
    agnostic = np.where(LABELS == "CS", "CA", LABELS)
    found, (note,) = cultural.find({m: samples(right, labels=agnostic) for m, right in answers.items()}, 100)
    assert found is None
    assert "no questions of both kinds" in note


def test_compare_prints_and_draws_it(tmp_path, answers, capsys):
    facts = {"kind": "benchmarks", "weights_digest": "0" * 64, "fingerprint": "f", "harness": "0.4.13", "limit": None}
    folders = []
    for model, right in answers.items():
        write(tmp_path / model / "evaluations" / "benchmarks.json", facts, samples(right))
        folders.append(str(tmp_path / model))
    assert main(["compare", *folders, f"--gin.CompareConfig.output_dir={tmp_path}"]) == 0
    out, page = capsys.readouterr().out, (tmp_path / "benchmarks.html").read_text(encoding="utf-8")
    for text in ("20 culturally sensitive questions in place of 50", "30 agnostic questions in place of 50"):
        assert text in out
        assert text in page
    assert "Rank changes by resource level" in out
    assert 'id="language-ranks"' in page
    assert main(["compare", *folders[:2], f"--gin.CompareConfig.output_dir={tmp_path / 'two'}"]) == 0
    assert "culturally" not in capsys.readouterr().out
    assert "cultural-section" not in (tmp_path / "two" / "benchmarks.html").read_text(encoding="utf-8")


def test_contaminated_rows_are_left_out_of_everything(tmp_path, answers, capsys):
    """Of the 60 questions 1 is flagged, in English: every model's answer to it goes, from ranks with its translations."""
    facts = {"kind": "benchmarks", "weights_digest": "0" * 64, "fingerprint": "f", "harness": "0.4.13", "limit": None}
    for model, right in answers.items():
        write(tmp_path / model / "evaluations" / "benchmarks.json", facts, samples(right))
    flagged = tmp_path / "evaluations" / "contamination.json"
    flagged.parent.mkdir()
    flagged.write_text(json.dumps({"kind": "contamination"}), encoding="utf-8")
    rows = [{"id": f"global_mmlu_full_en_law/{n}", "contaminated": n == 3} for n in range(QUESTIONS)]
    flagged.with_suffix(".samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folders = [str(tmp_path / model) for model in answers]
    assert main(["compare", *folders, f"--gin.CompareConfig.without={flagged}"]) == 0
    out = capsys.readouterr().out
    assert f"m2: left out as contaminated ({flagged}): 1." in out
    assert "19 culturally sensitive questions in place of 49" in out
