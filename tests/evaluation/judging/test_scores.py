"""Win rates from games: by hand, by rows written out, and for judges whose scores are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.evaluation.judging.audit import audit, audit_by_language
from aya_jax.evaluation.judging.battles import STRENGTH, Game
from aya_jax.evaluation.judging.judge import judge_games
from aya_jax.evaluation.judging.scores import arena_hard_scores, prompt_scores, win_tie_loss
from tests.evaluation.judging.judges import StubJudge, battles, longer

MIRRORED = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B", None: None}
# arena-hard-auto's rows of one game, seen from A, with weight 3; written out here and not read from the code.
ROWS = {"A>>B": [1, 1, 1], "A>B": [1], "A=B": [0.5], "B>A": [0], "B>>A": [0, 0, 0]}


def game(prompt, order, verdict, language="en", **more):
    return Game(prompt_id=prompt, language=language, order=order, verdict=verdict, **more)


def pairs(*verdicts, language="en"):
    return [
        game(f"p{k}", order, v, language)
        for k, both in enumerate(verdicts)
        for order, v in zip((1, 2), both, strict=True)
    ]


def upstream(games):
    """The mean of rows as arena-hard-auto makes them: second game as it is, first one inverted, null pairs dropped."""
    by_prompt = {}
    for g in games:
        by_prompt.setdefault(g.prompt_id, {})[g.order] = g.verdict
    rows = []
    for both in by_prompt.values():
        if None not in both.values() and len(both) == 2:
            rows += ROWS[both[2]] + [1 - row for row in ROWS[both[1]]]
    return 100 * np.mean(rows) if rows else math.nan


def test_arena_hard_by_hand():
    """p0: wins strongly as B and plainly as A, 4 of 4; p1: a tie and a strong loss, 0.5 of 4; p2 has a null."""
    games = pairs(("B>>A", "A>B"), ("A=B", "B>>A"), (None, "A>B"))
    found = arena_hard_scores(games)
    line = found.languages["en"]
    assert line.score.value == pytest.approx(100 * 4.5 / 8)
    assert (line.prompts, line.dropped, line.games, line.unparsed) == (2, 1, 6, 1)
    assert [(s.score, s.weight) for s in prompt_scores(games)[:2]] == [(100.0, 4.0), (12.5, 4.0)]
    assert math.isnan(prompt_scores(games)[2].score)
    assert arena_hard_scores(games, unparsed="tie").languages["en"].score.value == pytest.approx(100 * 6 / 10)
    assert arena_hard_scores(games, strong_weight=1).languages["en"].score.value == pytest.approx(100 * 2.5 / 4)
    assert found.macro.value == line.score.value


VERDICTS = st.sampled_from([*STRENGTH, None])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=9))
def test_arena_hard_is_upstream_s_mean_of_rows(verdicts):
    games = pairs(*verdicts)
    found = arena_hard_scores(games, resamples=2).languages["en"].score.value
    assert found == pytest.approx(upstream(games), nan_ok=True)
    assert arena_hard_scores(games, interval="arena_hard").languages["en"].score.value == pytest.approx(
        found, nan_ok=True
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=9))
def test_inverted_verdicts_give_the_complement(verdicts):
    there = arena_hard_scores(pairs(*verdicts), resamples=2).macro.value
    back = arena_hard_scores(pairs(*((MIRRORED[a], MIRRORED[b]) for a, b in verdicts)), resamples=2).macro.value
    assert back == pytest.approx(100.0 - there, nan_ok=True)


def test_languages_count_alike_however_many_prompts_they_have():
    games = pairs(("B>A", "A>B"), language="ar") + pairs(*[("A>B", "B>A")] * 3, language="en")
    found = arena_hard_scores(games)
    assert {name: line.score.value for name, line in found.languages.items()} == {"ar": 100.0, "en": 0.0}
    assert found.macro.value == 50.0


def test_the_interval_draws_prompts_and_upstream_s_is_too_narrow():
    """Both games of a prompt agree, so that rows are twice as many as prompts, and strong ones six times."""
    rng = np.random.default_rng(0)
    verdicts = [[("B>>A", "A>>B"), ("A>>B", "B>>A")][k] for k in rng.integers(0, 2, 200)]
    games = pairs(*verdicts)
    mine, theirs = (arena_hard_scores(games, interval=kind).languages["en"].score for kind in ("prompts", "arena_hard"))
    p = mine.value / 100
    exact = 100 * math.sqrt(p * (1 - p) / 200)  # standard error of a share of 200 prompts
    assert (mine.high - mine.low) / (2 * 1.96) == pytest.approx(exact, rel=0.1)
    assert (theirs.high - theirs.low) / (2 * 1.645) == pytest.approx(exact / math.sqrt(6), rel=0.25)
    assert theirs.value == mine.value


def test_games_that_do_not_belong_together_are_refused():
    with pytest.raises(UserError, match=r"games of 2 contests"):
        arena_hard_scores([game("p", 1, "A>B", model="x"), game("p", 1, "A>B", model="y")])
    with pytest.raises(UserError, match=r"prompt 'p' \(en\) was judged 2 times in order 1"):
        arena_hard_scores([game("p", 1, "A>B"), game("p", 1, "A=B")])


def test_a_battle_judged_in_one_order_is_left_out_and_counted():
    line = arena_hard_scores([*pairs(("B>A", "A>B")), game("p9", 1, "A>B")]).languages["en"]
    assert (line.score.value, line.prompts, line.dropped, line.games) == (100.0, 1, 1, 3)


def test_wins_ties_and_losses():
    games = [game(f"p{k}", 2, v) for k, v in enumerate(["A>>B", "A>B", "A=B", "B>A", None])]
    for ties, rate in (("exclude", 200 / 3), ("half", 250 / 4), ("loss", 50.0)):
        languages, macro = win_tie_loss(games, ties=ties)
        found = languages["en"]
        assert (found.win.value, found.tie.value, found.loss.value) == (50.0, 25.0, 25.0)
        assert found.win_rate.value == pytest.approx(rate)
        assert (found.games, found.unparsed) == (5, 1)
        assert macro.win_rate == found.win_rate
    turned = [game(g.prompt_id, 1, MIRRORED[g.verdict]) for g in games]
    assert win_tie_loss(turned)[1] == win_tie_loss(games)[1]


def test_nothing_but_ties_has_no_win_rate_without_them():
    games = pairs(("A=B", "A=B"))
    assert math.isnan(win_tie_loss(games, ties="exclude")[1].win_rate.value)
    assert win_tie_loss(games, ties="half")[1].win_rate.value == 50.0
    assert win_tie_loss(games, ties="loss")[1].win_rate.value == 0.0


def test_a_judge_that_always_says_a_scores_50_and_is_found_out():
    games = list(judge_games(StubJudge(lambda a, b: "[[A>B]]"), battles()))
    found = arena_hard_scores(games)
    assert [line.score.value for line in found.languages.values()] == [50.0, 50.0]
    assert found.macro.value == 50.0
    seen = audit(games)
    assert (seen.position_gap, seen.flip_rate, seen.consistent_rate, seen.tie_rate) == (100.0, 100.0, 0.0, 0.0)
    assert audit(list(judge_games(StubJudge(lambda a, b: "[[B>>A]]"), battles()))).position_gap == -100.0


def test_a_perfect_judge_and_an_inverted_one():
    perfect = list(judge_games(StubJudge(longer), battles()))
    inverted = list(judge_games(StubJudge(lambda a, b: longer(b, a)), battles()))
    assert arena_hard_scores(perfect).macro.value == 100.0
    assert arena_hard_scores(inverted).macro.value == 0.0
    for games in (perfect, inverted):
        seen = audit(games)
        assert (seen.position_gap, seen.flip_rate, seen.consistent_rate, seen.unparsed_rate) == (0.0, 0.0, 100.0, 0.0)


@pytest.mark.parametrize("reply", ["I cannot choose.", None])
def test_a_judge_that_says_nothing_gives_no_score_and_never_zero(reply):
    games = list(judge_games(StubJudge(lambda a, b: reply), battles()))
    found = arena_hard_scores(games)
    assert all(math.isnan(line.score.value) for line in found.languages.values())
    assert [(line.prompts, line.dropped, line.games, line.unparsed) for line in found.languages.values()] == [
        (0, 6, 12, 12)
    ] * 2
    assert math.isnan(found.macro.value)
    assert math.isnan(arena_hard_scores(games, interval="arena_hard").macro.value)
    languages, macro = win_tie_loss(games)
    assert all(math.isnan(number.value) for number in (macro.win, macro.tie, macro.loss, macro.win_rate))
    assert (macro.games, macro.unparsed, languages["ar"].unparsed) == (24, 24, 12)
    seen = audit_by_language(games)["en"]
    assert (seen.games, seen.unparsed, seen.unparsed_rate, seen.pairs) == (12, 12, 100.0, 0)
    assert all(math.isnan(rate) for rate in (seen.position_gap, seen.flip_rate, seen.consistent_rate, seen.tie_rate))
    assert arena_hard_scores(games, unparsed="tie").macro.value == 50.0


def test_an_audit_by_hand():
    """Pairs (as B, as A): win/win, win/loss, tie/win, and one with a null."""
    games = pairs(("B>A", "A>B"), ("B>>A", "B>A"), ("A=B", "A>B"), (None, "A>B"))
    seen = audit(games)
    assert (seen.games, seen.unparsed, seen.unparsed_rate, seen.pairs) == (8, 1, 12.5, 3)
    assert seen.position_gap == pytest.approx(100 * (0 - 1 + 0.5) / 3)
    assert seen.flip_rate == pytest.approx(100 / 3)
    assert seen.consistent_rate == pytest.approx(100 / 3)
    assert seen.tie_rate == pytest.approx(100 / 7)
    assert list(audit_by_language(games + pairs(("A=B", "A=B"), language="ar"))) == ["ar", "en"]
