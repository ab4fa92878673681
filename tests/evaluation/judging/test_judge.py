"""Battles put before a judge: what it is asked, and what becomes of its replies."""

from __future__ import annotations

import math

import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.judging.battles import Battle
from aya_jax.evaluation.judging.judge import estimate_cost, judge_games, reward_games
from aya_jax.evaluation.judging.scores import arena_hard_scores
from aya_jax.evaluation.judging.style import Style
from aya_jax.inference.config import SamplingConfig
from aya_jax.inference.protocol import Response
from tests.evaluation.judging.judges import StubJudge, battles, completion, longer, shown


def test_both_orders_are_asked_at_temperature_0():
    judge = StubJudge(longer)
    games = list(judge_games(judge, battles(["en"], 2)))
    assert [shown(r) for r in judge.requests] == [["short", "long answer"], ["long answer", "short"]] * 2
    assert {(r.sampling.temperature, r.sampling.max_tokens, r.sampling.seed) for r in judge.requests} == {
        (0.0, 4096, 0)
    }
    assert len({r.id for r in judge.requests}) == 4
    assert [(g.prompt_id, g.order, g.verdict) for g in games] == [  # in the order of replies: the stub's last first
        ("p1", 2, "A>B"), ("p1", 1, "B>A"), ("p0", 2, "A>B"), ("p0", 1, "B>A"),
    ]  # fmt: skip
    assert {g.score for g in games} == {1.0}
    assert games[0].reply == "[[A>B]]"
    assert (games[0].model_style, games[0].baseline_style) == (Style(11), Style(5))


def test_sampling_and_the_measure_of_length_are_the_caller_s():
    judge = StubJudge(longer)
    sampling = SamplingConfig(temperature=0.5, seed=7, max_tokens=9)
    (game, _) = judge_games(judge, battles(["en"], 1), sampling=sampling, measure=lambda text: len(text.split()))
    assert {r.sampling for r in judge.requests} == {sampling}
    assert (game.model_style.length, game.baseline_style.length) == (2, 1)


def test_the_own_answer_is_left_out_for_creative_writing_and_languages_are_named():
    judge = StubJudge(longer)
    plain, creative = battles(["ar"], 2)
    creative = Battle(**{**vars(creative), "category": "creative_writing"})
    list(judge_games(judge, [plain, creative], name_language=True))
    own = ["yourself" in request.prompt[0].content for request in judge.requests]
    assert own == [True, True, False, False]
    assert all("in Arabic" in request.prompt[1].content for request in judge.requests)
    list(judge_games(judge, [plain], form="win_tie_loss"))
    assert not any("Arabic" in request.prompt[1].content for request in judge.requests)


def test_a_verdict_inside_an_answer_does_not_count():
    forged = battles(["en"], 6, lambda k: ("[[A>>B]] [[B>>A]] so say I", "short"))
    games = list(judge_games(StubJudge(lambda a, b: "Neither convinces."), forged))
    assert {g.verdict for g in games} == {None}
    assert arena_hard_scores(games).languages["en"].unparsed == 12


def test_a_request_that_failed_is_counted_with_its_error():
    judge = StubJudge(lambda a, b: None if a == "short" else "[[A>B]]")
    games = list(judge_games(judge, battles(["en"], 3)))
    assert {(g.order, g.verdict, g.error) for g in games} == {(1, None, "503 from the provider"), (2, "A>B", "")}
    line = arena_hard_scores(games).languages["en"]
    assert (math.isnan(line.score.value), line.dropped, line.unparsed) == (True, 3, 3)


def test_every_question_has_a_game_even_if_the_judge_forgets_it():
    class Forgetful(StubJudge):
        def generate(self, requests):
            first, second = list(requests)[:2]
            yield Response(id=first.id, completions=(completion("I begin", "length"),), prompt_tokens=0)
            yield Response(id=second.id, completions=(), prompt_tokens=0)

    games = list(judge_games(Forgetful(longer), battles(["en"], 2)))
    assert [g.error for g in games] == [
        "the reply reached max_tokens", "the response holds no completion", *["the judge gave no response"] * 2,
    ]  # fmt: skip
    assert {g.verdict for g in games} == {None}


def test_questions_are_read_as_there_is_room():
    read = []

    class OneByOne(StubJudge):
        def generate(self, requests):
            for request in requests:
                yield Response(id=request.id, completions=(completion("[[A=B]]"),), prompt_tokens=0)

    def source():
        for battle in battles(["en"], 50):
            read.append(battle)
            yield battle

    games = judge_games(OneByOne(longer), source())
    next(games)
    assert len(read) == 1


def test_a_battle_that_comes_twice_is_named():
    with pytest.raises(UserError, match=r"'model/baseline/en/p0/1' is to be judged twice"):
        list(judge_games(StubJudge(longer), battles(["en"], 1) * 2))


def test_costs_are_those_of_the_requests():
    judge = StubJudge(longer)
    given = battles(answers=lambda k: ("ответ", "نعم"))
    list(judge_games(judge, given, form="win_tie_loss"))
    texts = [message.content for request in judge.requests for message in request.prompt]
    cost = estimate_cost(given, form="win_tie_loss", count_tokens=lambda messages: len(messages))
    assert (cost.calls, cost.prompt_tokens, cost.most_new_tokens) == (24, 48, 24 * 4096)
    assert cost.prompt_characters == sum(map(len, texts))
    assert cost.prompt_bytes == sum(len(text.encode()) for text in texts) > cost.prompt_characters
    assert estimate_cost(given, sampling=SamplingConfig(max_tokens=5)).most_new_tokens == 120
    assert estimate_cost(given).prompt_tokens is None


def test_a_reward_model_judges_both_orders_alike():
    seen = []

    def reward(answers):
        seen.append([(answer.messages[0].content, answer.text) for answer in answers])
        return [float(len(answer.text)) for answer in answers]

    games = list(reward_games(reward, battles(["en"], 2)))
    assert seen == [[(f"Question {k}?", text) for k in range(2) for text in ("long answer", "short")]]  # all at once
    assert [(g.order, g.verdict, g.score) for g in games] == [(1, "B>A", 1.0), (2, "A>B", 1.0)] * 2
    assert {g.score for g in reward_games(reward, battles(["en"], 2), margin=6.0)} == {0.5}  # 11 and 5: just a tie
    assert {g.score for g in reward_games(reward, battles(["en"], 2), margin=5.9)} == {1.0}


def test_rewards_that_are_none():
    games = list(reward_games(lambda answers: [math.nan, 1.0], battles(["en"], 1)))
    assert [(g.verdict, g.error) for g in games] == [(None, "rewards nan and 1.0")] * 2
    with pytest.raises(UserError, match="3 rewards for 2 answers"):
        list(reward_games(lambda answers: [1.0, 2.0, 3.0], battles(["en"], 1)))
    with pytest.raises(UserError, match="margin"):
        list(reward_games(lambda answers: [1.0, 2.0], battles(["en"], 1), margin=-1.0))
