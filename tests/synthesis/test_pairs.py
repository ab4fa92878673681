"""From scored answers to pairs, and from pairs to stores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data import store
from aya_jax.data.chat import Message
from aya_jax.objectives.config import PolicyGradientConfig
from aya_jax.synthesis.answers import Asked, of_round, read_records
from aya_jax.synthesis.config import PromptsConfig
from aya_jax.synthesis.pairs import choose, store_rows
from tests.training import tuning


def asked(number=0, language="en"):
    return Asked(number, language, (Message("user", f"{number}?"),), {})


def record(*scored, language="en"):
    return {"language": language, "answers": [{"text": text, "reward": reward} for text, reward in scored]}


def test_the_best_and_the_worst_are_a_pair():
    found = choose([asked(7, "de")], [record(("a", 0.5), ("b", 2.0), ("c", -1.0), ("d", 1.0), language="de")], 0.0)
    (pair,) = found.rows
    assert pair == {
        "prompt": [{"role": "user", "content": "7?"}],
        "chosen": [{"role": "assistant", "content": "b"}],
        "rejected": [{"role": "assistant", "content": "c"}],
        "margin": 3.0,
        "language": "de",
        "row": 7,
    }
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("scored", "reason"),
    [
        ([("a", 1.0), ("", None), ("c", None)], "too few answers that can be judged"),
        ([("a", 1.0), ("b", 1.0)], "all answers equally good"),
        ([("a", 1.0), ("a", 1.5)], "all answers equally good"),
        ([("a", 1.0), ("b", 1.2)], "margin below min_margin"),
    ],
)
def test_prompts_without_a_pair_are_counted_by_reason(scored, reason):
    found = choose([asked()], [record(*scored)], 0.5)
    assert (found.rows, found.left_out) == ([], {reason: 1})


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=2), st.none() | st.floats(-3, 3)), min_size=2, max_size=6)
)
def test_no_answer_is_better_than_the_chosen_or_worse_than_the_rejected(scored):
    for pair in choose([asked()], [record(*scored)], 0.0).rows:
        rewards = [reward for _, reward in scored if reward is not None]
        sides = [pair[side][0]["content"] for side in ("chosen", "rejected")]
        assert (sides[0], max(rewards)) in scored
        assert (sides[1], min(rewards)) in scored
        assert pair["margin"] == max(rewards) - min(rewards) > 0


def test_rounds_go_on_through_the_prompts_and_begin_again():
    prompts = [asked(number) for number in range(10)]
    config = PromptsConfig(file="f", held_out=3, per_round=5)
    rounds = [[each.number for each in of_round(prompts, config, number)] for number in (1, 2, 3)]
    assert rounds == [[3, 4, 5, 6, 7], [8, 9, 3, 4, 5], [6, 7, 8, 9, 3]]
    few = PromptsConfig(file="f", held_out=8, per_round=5)
    assert [each.number for each in of_round(prompts, few, 2)] == [8, 9]


def test_stores_are_by_language_with_whole_prompts_held_out(tmp_path):
    """Of each language a tenth of the prompts, one at least; a prompt alone cannot be both learnt and held out."""
    tuning.write_tokenizer(tmp_path / "tokenizer")
    languages = ["ar", "ar", *["de"] * 30, "zh"]
    scored = [
        record((f"good\u2028{n}", 1.0 + n), ("bad", 0.0), language=language) for n, language in enumerate(languages)
    ]
    chosen = choose([asked(n, language) for n, language in enumerate(languages)], scored, 0.0)
    folder = store_rows(chosen, tmp_path, str(tmp_path / "tokenizer"), 100)
    assert store.names(str(folder)) == ("online_ar", "online_de")
    rows = {name: read_records(tmp_path / f"{name}.jsonl") for name in ("trained", "validation")}
    assert [row["row"] for row in rows["validation"]] == [0, 2, 3, 4]
    assert [row["row"] for row in rows["trained"]] == [1, *range(5, 32)]
    for language, sizes in (("ar", (1, 1)), ("de", (27, 3))):
        for split, name, size in zip(("train", "validation"), rows, sizes, strict=True):
            opened = store.TokenStore.open(store.store_path(str(folder), f"online_{language}", split))
            assert opened.num_documents == 2 * size
            assert opened.manifest.language == language
            assert set(opened.values()) == {row["margin"] for row in rows[name] if row["language"] == language}


def test_advantages_of_one_prompt_stay_together(tmp_path):
    tuning.write_tokenizer(tmp_path / "tokenizer")
    scored = [record(("a", 1.0), ("b", 0.0), ("c", 0.5)) for _ in range(6)]
    for each in scored:
        for answer in each["answers"]:
            answer["log_prob"] = -1.0
    chosen = choose([asked(n) for n in range(6)], scored, 0.0, PolicyGradientConfig(beta=0.0), [-1.0] * 18)
    folder = store_rows(chosen, tmp_path, str(tmp_path / "tokenizer"), 100)
    opened = [
        store.TokenStore.open(store.store_path(str(folder), "online_en", split)) for split in ("train", "validation")
    ]
    assert [each.num_documents for each in opened] == [15, 3]
    np.testing.assert_allclose(opened[1].values(), [0.75, -0.75, 0.0])


def test_too_few_prompts_are_refused_with_the_reasons(tmp_path):
    few = choose([asked(0), asked(1)], [record(("a", 1.0), ("b", 0.0)), record(("a", 1.0), ("b", 1.0))], 0.0)
    with pytest.raises(UserError, match=r"1 rows, which are too few to train on \(all answers equally good: 1\)"):
        store_rows(few, tmp_path / "few", "unused", 100)
