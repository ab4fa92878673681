"""Functions as scorers, the rewards that ship, and how texts are put into batches for models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data.chat import Message
from aya_jax.synthesis.config import OnlineConfig, PromptsConfig, RewardFunctionConfig, RewardModelConfig
from aya_jax.synthesis.reward_functions import language_and_length, language_share
from aya_jax.synthesis.scorers import Answer, open_scorer
from aya_jax.synthesis.token_batches import token_batches

SENTENCES = {
    "de": "Guten Morgen, heute scheint die Sonne über der Stadt.",
    "es": "La casa de mi abuela está cerca del río.",
    "ar": "ذهبت إلى السوق صباح اليوم لشراء الخبز.",
    "zh": "今天早上我去市场买了面包。",
    "ja": "今日は朝からとても良い天気です。",
    "tr": "Bugün hava çok güzel, parka gidiyoruz.",
}


def answer(text, language="en"):
    return Answer((Message("user", "?"),), text, {"lang": language})


def scorer(name, **options):
    return open_scorer(
        RewardFunctionConfig(function=f"tests.synthesis.rewards:{name}", options=options), None, None, print
    )


def test_a_function_is_given_the_prompt_the_answer_and_the_row():
    assert scorer("digits", weight=2.0).score([answer("a1b2"), answer("77"), answer("")]) == [1.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fails", r"fails on 'x': ZeroDivisionError\('by zero'\)"),
        ("gives_text", "gives 'good' for 'x', and no finite number"),
        ("absent", "no attribute 'absent'"),
    ],
)
def test_a_function_that_is_none_is_named(name, said):
    with pytest.raises(UserError, match=said):
        scorer(name).score([answer("x")])


@pytest.mark.parametrize("language", SENTENCES)
def test_a_language_is_told_apart_from_the_others(language):
    assert language_share(SENTENCES[language], language) == 1
    assert all(language_share(SENTENCES[language], other) == 0 for other in SENTENCES if other != language)


def test_a_share_is_of_characters_in_lines():
    text = f"{SENTENCES['de']}\n\n  {SENTENCES['es']}  "
    of_german = len(SENTENCES["de"]) / (len(SENTENCES["de"]) + len(SENTENCES["es"]))
    assert language_share(text, "de") == pytest.approx(of_german)
    assert language_share(" \n", "de") == 0
    with pytest.raises(UserError, match="language 'xx': known are ar, cs, de"):
        language_share("a", "xx")


@pytest.mark.parametrize(("copies", "expected"), [(1, 0.53), (2, 1.0), (4, 2 - 4 * 53 / 150), (6, 0.0)])
def test_the_reward_falls_outside_its_bounds(copies, expected):
    sentence = SENTENCES["de"]
    assert len(sentence) == 53
    found = language_and_length((), sentence * copies, {"lang": "de"}, least=100, most=150)
    assert found == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=90), max_size=12), st.integers(1, 4))
def test_every_sequence_is_in_one_row_of_a_batch(sequences, rows):
    seen = {}
    for chosen, tokens in token_batches(sequences, rows):
        assert tokens.shape[0] == rows
        assert tokens.shape[1] in (32, 64, 128)
        for row, number in enumerate(chosen):
            size = len(sequences[number])
            seen[number] = tokens[row, :size].tolist()
            assert not tokens[row, size:].any()
        assert not tokens[len(chosen) :].any()
    assert seen == dict(enumerate(sequences))
    assert np.all([tokens.dtype == np.int32 for _, tokens in token_batches(sequences, rows)])


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda: PromptsConfig(file=""), "file"),
        (lambda: PromptsConfig(file="f", held_out=1), "held_out"),
        (lambda: PromptsConfig(file="f", per_round=0), "per_round"),
        (lambda: RewardFunctionConfig(function="module.function"), "function"),
        (lambda: RewardModelConfig(model_dir=""), "model_dir"),
        (lambda: RewardModelConfig(model_dir="m", rows=0), "rows"),
    ],
)
def test_contradictions_are_named(made, problem):
    assert [found.field for found in made().validate()] == [problem]


def test_no_part_of_a_run_s_place_is_in_its_fingerprint():
    assert {"run_dir", "train.mesh", "train.run_dir"} <= set(OnlineConfig.NOT_IN_FINGERPRINT)
