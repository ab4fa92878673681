"""The translation cells of M-RewardBench, by outcomes whose shares are known."""

from __future__ import annotations

import json

import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.reward_bench.instances import Outcome, load_instances
from aya_jax.evaluation.reward_bench.subsets import CELLS, M_REWARD_BENCH, REWARD_BENCH, cell_of
from aya_jax.evaluation.reward_bench.translation import translation_scores
from tests.evaluation.judging.test_run import judge


def outcomes(right, number=20, cells=CELLS):
    """Of each cell the first so many of `number` instances are right."""
    return [
        Outcome(id=f"{cell}/{k}", language="x", subset=f"maple-{cell}", credit=float(k < n), preferred="chosen")
        for cell, n in zip(cells, right, strict=True)
        for k in range(number)
    ]


@pytest.mark.parametrize(
    ("subset", "cell"),
    [
        ("maple-easy-de-en", "easy de-en"),
        ("maple-de-en-hard", "hard de-en"),
        ("maple-zh2en-easy", "easy zh-en"),
        ("hard_en_zh", "hard en-zh"),
        ("translation-easy-en-de", "easy en-de"),
        ("MAPLE-Hard-EN-DE", "hard en-de"),
        ("maple-easy-de-zh", None),
        ("maple-easy-en-en", None),
        ("maple-de-en", None),
        ("alpacaeval-hard", None),
        ("mt-bench-easy", None),
        ("llmbar-adver-manual", None),
    ],
)
def test_subsets_are_cells_or_none(subset, cell):
    assert cell_of(subset) == cell


def test_no_other_subset_is_a_cell():
    assert not [name for name in {**M_REWARD_BENCH, **REWARD_BENCH} if cell_of(name)]


def test_the_score_is_the_plain_mean_of_eight_cells():
    """Even where one cell has more instances than the others."""
    right = [20, 18, 16, 14, 12, 10, 8, 6]
    given = outcomes(right)
    given += [
        Outcome(id=f"more{k}", language="x", subset="maple-easy de-en", credit=1.0, preferred="chosen")
        for k in range(40)
    ]
    found = translation_scores(given)
    assert [found.cells[cell].value for cell in CELLS] == pytest.approx([5.0 * n for n in right])
    assert found.score.value == pytest.approx(5.0 * sum(right) / 8)
    assert found.instances["easy de-en"] == 60
    assert found.score.low < found.score.value < found.score.high
    assert found.missing == ()


@pytest.mark.parametrize(("right", "score"), [([20] * 8, 100.0), ([0] * 8, 0.0)])
def test_a_perfect_and_an_inverted_model(right, score):
    assert translation_scores(outcomes(right)).score.value == score


def test_a_missing_cell_leaves_no_score_unless_it_is_asked_for():
    given = outcomes([20] * 7, cells=CELLS[:7])
    found = translation_scores(given)
    assert (found.score, found.missing) == (None, ("hard en-zh",))
    assert translation_scores(given, allow_partial=True).score.value == 100.0
    with pytest.raises(UserError, match="'easy de-en/0' of easy de-en was judged 2 times"):
        translation_scores([*given, given[0]])


def rows(subset, number=6, **more):
    return [
        {"id": n, "prompt": "Übersetze.", "chosen": "good!", "rejected": "bad", "subset": subset, **more}
        for n in range(number)
    ]


def write(file, given):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in given), encoding="utf-8")
    return file


def test_cells_may_count_from_the_same_number_and_need_no_language(tmp_path):
    file = write(tmp_path / "t.jsonl", [*rows("maple-easy-de-en", 1), *rows("maple-hard-en-zh", 1)])
    found = load_instances(file)
    assert [(i.id, i.language) for i in found] == [("easy de-en/0", "de-en"), ("hard en-zh/0", "en-zh")]
    with pytest.raises(UserError, match=r"t\.jsonl:1: field 'subset' is 'maple-easy-de-en'"):
        load_instances(file, subsets=REWARD_BENCH, language="eng_Latn")


def test_from_the_command_line_beside_the_other_sections(monkeypatch, tmp_path, capsys):
    translations = [row for cell in CELLS for row in rows(f"maple-{cell.replace(' ', '-')}")]
    others = [rows("xstest-should-refuse", language=language) for language in ("eng_Latn", "deu_Latn")]
    file = write(tmp_path / "rows.jsonl", [*translations, *others[0], *others[1]])
    first = lambda prompt, _: "[[A]]" if prompt.find("good!") < prompt.find("bad") else "[[B]]"  # noqa: E731
    _, summary, samples = judge(monkeypatch, tmp_path, first, "reward_bench.gin", f"PAIRS=('{file}',)")
    assert summary["translation"]["score"]["value"] == 100.0
    assert list(summary["scores"]["languages"]) == ["deu_Latn", "eng_Latn"]  # translations are no part of it
    assert len(samples) == len({sample.id for sample in samples}) == 60
    assert "mean of 8 cells" in capsys.readouterr().out


def test_agreement_with_english_is_told(monkeypatch, tmp_path, capsys):
    """A judge that always says A agrees with itself as far as the hashed order goes: the same in every language."""
    given = [
        row for language in ("eng_Latn", "deu_Latn", "hin_Deva") for row in rows("donotanswer", 12, language=language)
    ]
    file = write(tmp_path / "rows.jsonl", given)
    _, summary, _ = judge(monkeypatch, tmp_path, lambda *_: "[[A]]", "reward_bench.gin", f"PAIRS=('{file}',)")
    found = summary["agreement_with_english"]
    assert found["mean"]["value"] == found["alpha"]["value"] == 1.0
    assert "Krippendorff's alpha of all 1.00" in capsys.readouterr().out
