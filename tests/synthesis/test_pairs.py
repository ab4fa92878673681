"""From scored answers to pairs, and from pairs to stores."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.data import store
from aya_jax.data.chat import Message
from aya_jax.synthesis.answers import Asked, of_round
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


def test_stores_are_by_language_and_too_few_pairs_are_refused(tmp_path):
    tuning.write_tokenizer(tmp_path / "tokenizer")
    scored = [record((f"good {n}", 1.0 + n), ("bad", 0.0), language="de" if n % 3 else "ar") for n in range(30)]
    questions = [asked(n, each["language"]) for n, each in enumerate(scored)]
    chosen = choose(questions, [*scored[:-1], record(("x", 1.0), ("y", 0.0), language="zh")], 0.0)
    chosen.rows[-1]["language"] = "zh"
    folder = store_rows(chosen, tmp_path, str(tmp_path / "tokenizer"), 100)
    assert store.names(str(folder)) == ("online_ar", "online_de")  # one pair of zh cannot be both learnt and held out
    assert len((tmp_path / "trained.jsonl").read_text().splitlines()) == 30
    for language, count in (("ar", 10), ("de", 19)):
        opened = [
            store.TokenStore.open(store.store_path(str(folder), f"online_{language}", split))
            for split in ("train", "validation")
        ]
        assert sum(each.num_documents for each in opened) == 2 * count
        assert opened[0].manifest.language == language
        values = {float(value) for each in opened for value in each.values()}
        assert values == {
            json.loads(line)["margin"] for line in (tmp_path / "trained.jsonl").open() if f'"{language}"' in line
        }
    few = choose([asked(0), asked(1)], [record(("a", 1.0), ("b", 0.0)), record(("a", 1.0), ("b", 1.0))], 0.0)
    with pytest.raises(UserError, match=r"1 rows, which are too few to train on \(all answers equally good: 1\)"):
        store_rows(few, tmp_path / "few", str(tmp_path / "tokenizer"), 100)
