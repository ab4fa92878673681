"""Toxicity of answers by scorers whose scores are known; the "bad" words are invented."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from aya_jax.config.errors import UserError
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.profile.answered import Answered
from aya_jax.evaluation.profile.toxicity import find_scorer, lexicon_scorer, score_answers, toxicity_metrics


def answered(item, texts, language="en"):
    return Answered(item, language, "?", tuple(texts), (None,) * len(texts))


ANSWERS = [
    answered("p1", ["good good", "bad good", "bad bad bad good"]),
    answered("p2", ["good", "good good bad", "GOOD"]),
    answered("p3", ["bad", "good", "good"], "tr"),
]


class Lexicon:
    """The share of words that are "bad", and as "LOUD" whether the text shouts; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, texts, languages):
        self.asked += list(zip(texts, languages, strict=True))
        return {
            "TOXICITY": [text.split().count("bad") / len(text.split()) for text in texts],
            "LOUD": [float(text.isupper()) for text in texts],
        }


def scored(scorer, tmp_path, answers=ANSWERS, name="a:b"):
    with Answers(tmp_path / "scores.jsonl") as known:
        return score_answers(answers, scorer, name, known)


def test_by_hand(tmp_path):
    """Expected maximum (3/4 + 1/3 + 1) / 3, probability 2/3 and mean (5/4 + 1/3 + 1) / 9."""
    scores = scored(Lexicon(), tmp_path)
    np.testing.assert_allclose([s["TOXICITY"] for s in scores], [[0, 0.5, 0.75], [0, 1 / 3, 0], [1, 0, 0]])
    means = [toxicity_metrics(each) for each in scores]
    assert np.mean([m["TOXICITY_maximum"] for m in means]) == pytest.approx((0.75 + 1 / 3 + 1) / 3)
    assert np.mean([m["TOXICITY_probability"] for m in means]) == pytest.approx(2 / 3)
    assert np.mean([m["TOXICITY"] for m in means]) == pytest.approx((1.25 + 1 / 3 + 1) / 9)
    assert means[1]["LOUD_maximum"] == 1.0
    assert toxicity_metrics(scores[1], threshold=1 / 3)["TOXICITY_probability"] == 1.0  # at the threshold counts
    assert toxicity_metrics({"t": np.array([0.5])})["t_probability"] == 1.0


def test_expected_maximum_of_uniform_scores():
    """The largest of 25 uniform numbers is 25/26 on average, and above 0.9 with probability 1 - 0.9^25."""
    rng = np.random.default_rng(0)
    found = [toxicity_metrics({"t": row}, threshold=0.9) for row in rng.random((4000, 25))]
    assert np.mean([m["t_maximum"] for m in found]) == pytest.approx(25 / 26, abs=0.003)
    assert np.mean([m["t_probability"] for m in found]) == pytest.approx(1 - 0.9**25, abs=0.02)


def test_no_text_is_scored_twice(tmp_path):
    scorer = Lexicon()
    before = scored(scorer, tmp_path)
    assert len(scorer.asked) == len(set(scorer.asked)) == 8  # "good" twice in Turkish is one question
    again = Lexicon()
    after = scored(again, tmp_path)
    assert again.asked == []
    assert [{k: v.tolist() for k, v in s.items()} for s in before] == [
        {k: v.tolist() for k, v in s.items()} for s in after
    ]
    other = Lexicon()
    scored(other, tmp_path, name="another:scorer")
    assert len(other.asked) == 8


def test_what_was_scored_before_a_failure_is_kept(tmp_path):
    many = [answered(str(n), [f"word{n}"]) for n in range(150)]
    calls = []

    def failing(texts, languages):
        calls.append(len(texts))
        if len(calls) == 2:
            raise ConnectionError("quota")
        return [0.0] * len(texts)

    with pytest.raises(UserError, match=r"'word64' \(en\): ConnectionError\('quota'\).*start again"):
        scored(failing, tmp_path, many)
    scored(failing, tmp_path, many)
    assert calls == [64, 64, 64, 22]


def test_the_same_text_in_two_languages_is_two_questions(tmp_path):
    both = [answered("p", ["gift"], "en"), answered("p", ["gift"], "de")]
    found = scored(lambda texts, languages: [float(language == "de") for language in languages], tmp_path, both)
    assert [each["toxicity"].tolist() for each in found] == [[0.0], [1.0]]


def test_a_number_for_each_text_will_do(tmp_path):
    (found,) = scored(lambda texts, languages: [0.25] * len(texts), tmp_path, ANSWERS[:1])
    assert {name: values.tolist() for name, values in found.items()} == {"toxicity": [0.25] * 3}


@pytest.mark.parametrize(
    ("answers", "scorer", "message"),
    [
        ([*ANSWERS, answered("p4", ["x"])], Lexicon(), r"prompt 'p4' \(en\) has 1 answers and 'p1' \(en\) has 3"),
        (ANSWERS, lambda texts, languages: {"T": [0.1]}, "gave 1 scores of 'T' for 8 answers"),
        (ANSWERS, lambda texts, languages: [0.1] * 5 + [1.2] + [0] * 2, r"gave 'GOOD' \(en\) the 'toxicity' 1.2"),
        (ANSWERS, lambda texts, languages: [0.1] * 7 + [None], r"gave 'good' \(tr\) the 'toxicity' None"),
        (ANSWERS, lambda texts, languages: [float("nan")] * 8, "the 'toxicity' nan; it is from 0 to 1"),
        (ANSWERS, lambda texts, languages: {}, "gave no scores"),
    ],
)
def test_what_cannot_be_scored(tmp_path, answers, scorer, message):
    with pytest.raises(UserError, match=message):
        scored(scorer, tmp_path, answers)


def test_an_attribute_has_to_be_given_to_all(tmp_path):
    many = [answered(str(n), [f"word{n}"]) for n in range(70)]
    whole = Lexicon()

    def forgetful(texts, languages):
        found = whole(texts, languages)
        return found if len(texts) == 64 else {"TOXICITY": found["TOXICITY"]}

    with pytest.raises(UserError, match=r"gave 'LOUD' to some answers only; 'word64' \(en\) has none"):
        scored(forgetful, tmp_path, many)


def test_a_function_is_found_by_its_name(monkeypatch):
    module = types.ModuleType("invented_scorer")
    module.score = Lexicon()
    monkeypatch.setitem(sys.modules, "invented_scorer", module)
    assert find_scorer("invented_scorer:score") is module.score
    for name in ("invented_scorer:nothing", "no_such_module:score"):
        with pytest.raises(UserError, match=f"ProfileConfig.toxicity = '{name}'.*PYTHONPATH"):
            find_scorer(name)


def test_a_lexicon_knows_whole_words_and_phrases_in_any_case(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("Blarg\n\nfizzle the wump\nブラーグ\n", encoding="utf-8")
    texts = ["BLARG!", "blarging is no word of it", "They fizzle the Wump.", "fizzle a wump", "彼はブラーグだ", ""]
    assert lexicon_scorer(str(file))(texts, ["en"] * 6) == [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    file.write_text("...\n", encoding="utf-8")
    with pytest.raises(UserError, match="no words"):
        lexicon_scorer(str(file))
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read"):
        lexicon_scorer(str(tmp_path / "nowhere.txt"))
