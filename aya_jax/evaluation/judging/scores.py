"""From games to win rates: Arena-Hard's score, and plain wins, ties and losses (papers.md 0.5, conventions B and A).

Everything is in per cent. A prompt whose games cannot be read is left out and counted, never scored 0; a language without
any readable prompt has no score (NaN), and then the mean over languages has none either.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.judging.battles import Game
from aya_jax.evaluation.judging.resampling import Estimate, estimates, sums

Unparsed = Literal["drop", "tie"]
"""A game without a verdict: "drop" leaves its battle out, the other order too (arena-hard-auto); "tie" makes it a tie."""

Ties = Literal["exclude", "half", "loss"]
"""Win rate: wins / (wins + losses); (wins + ties / 2) / all; wins / all."""

Intervals = Literal["prompts", "arena_hard"]
"""What is drawn: prompts with all of their games; or, as arena-hard-auto does, rows of single games (too narrow)."""

_UPSTREAM_RESAMPLES, _UPSTREAM_QUANTILES = 100, (0.05, 0.95)


@dataclass(frozen=True)
class PromptScore:
    """One model's score on one prompt: the record that scores are computed from.

    Attributes:
      prompt_id, language, category: of the prompt.
      score: weighted mean over its games, from 0 to 100; NaN where the battle is left out.
      weight: of its games together; a language's score is the mean of `score` by these.
    """

    prompt_id: str
    language: str
    category: str
    score: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class LanguageScore:
    """One model's score in one language.

    Attributes:
      score: per cent; 50 is as good as the baseline.
      prompts: battles that count.
      dropped: battles left out, because a verdict is missing or an order was never judged.
      games: that were judged.
      unparsed: those of them without a verdict.
    """

    score: Estimate
    prompts: int
    dropped: int
    games: int
    unparsed: int


@dataclass(frozen=True)
class Scores:
    """One model's scores against one baseline.

    Attributes:
      languages: by language.
      macro: the mean over languages; NaN if one of them has no score.
    """

    languages: dict[str, LanguageScore]
    macro: Estimate


@dataclass(frozen=True, kw_only=True)
class WinTieLoss:
    """Plain percentages of one model's games in one language, or their mean over languages.

    Attributes:
      win, tie, loss: per cent of games with a verdict.
      win_rate: per cent, ties as asked for.
      games: that were judged.
      unparsed: those of them without a verdict; left out of every percentage.
    """

    win: Estimate
    tie: Estimate
    loss: Estimate
    win_rate: Estimate
    games: int
    unparsed: int


def one_contest(games: Iterable[Game]) -> list[Game]:
    """The games, which must all be of one model against one baseline, each battle at most once in each order.

    Raises:
      UserError: they are not.
    """
    games = list(games)
    contests = sorted({(game.model, game.baseline) for game in games})
    if len(contests) > 1:
        raise UserError(
            f"games of {len(contests)} contests, {contests[0]} and {contests[1]} among them; score each alone"
        )
    _once(games)
    return games


def battles_of(games: Iterable[Game]) -> dict[tuple[str, str, str, str], dict[int, Game]]:
    """Games by battle and order, sorted by battle.

    Raises:
      UserError: a battle was judged twice in the same order.
    """
    games = list(games)
    _once(games)
    battles: dict[tuple[str, str, str, str], dict[int, Game]] = defaultdict(dict)
    for game in games:
        battles[game.pair][game.order] = game
    return dict(sorted(battles.items()))


def scored_games(battle: dict[int, Game], unparsed: Unparsed, strong_weight: int) -> list[tuple[float, int]] | None:
    """(score, weight) of a battle's two games; None where it is left out.

    arena-hard-auto's rules (peers.md 1.7): win 1, tie 0.5, loss 0; a ">>" verdict counts `strong_weight` times.
    """
    if set(battle) != {1, 2}:
        return None
    if unparsed == "drop" and any(game.strength is None for game in battle.values()):
        return None
    strengths = [battle[order].strength or 0 for order in (1, 2)]
    return [(0.5 + 0.5 * np.sign(s), strong_weight if abs(s) == 2 else 1) for s in strengths]


def prompt_scores(games: Iterable[Game], *, strong_weight: int = 3, unparsed: Unparsed = "drop") -> list[PromptScore]:
    """The score of every prompt, sorted by language and id; arguments and errors as `arena_hard_scores`."""
    scored = []
    for (_, _, language, prompt_id), battle in battles_of(one_contest(games)).items():
        rows = scored_games(battle, unparsed, strong_weight) or []
        weight = sum(weight for _, weight in rows)
        score = 100.0 * sum(score * weight for score, weight in rows) / weight if rows else math.nan
        category = next(iter(battle.values())).category
        scored.append(PromptScore(prompt_id, language, category, score, float(weight)))
    return scored


def arena_hard_scores(
    games: Iterable[Game],
    *,
    strong_weight: int = 3,
    unparsed: Unparsed = "drop",
    interval: Intervals = "prompts",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Arena-Hard's score by language, and its mean over languages.

    A language's score is the mean of all games, each as often as its weight: the same number as arena-hard-auto's table, and
    the mean of the prompts' scores by their weights.

    Args:
      games: of one model against one baseline, both orders of each battle.
      strong_weight: of "much better"; 3 upstream, 1 counts all games alike.
      unparsed: what to do with games that have no verdict.
      interval: what is drawn. "arena_hard" is upstream's interval, for comparison with published ones: 100 draws, 5th to 95th
        percentile, whatever `resamples` and `confidence` say.
      resamples, confidence, seed: of the bootstrap.

    Raises:
      UserError: games of several contests, or a battle twice in the same order.
    """
    games = one_contest(games)
    scored = prompt_scores(games, strong_weight=strong_weight, unparsed=unparsed)
    if interval == "prompts":
        table = sums((s.language, s.prompt_id, s.score * s.weight if s.weight else 0.0, s.weight) for s in scored)
        by_language, macro = estimates(table, resamples=resamples, confidence=confidence, seed=seed)
    else:
        by_language, macro = _upstream(games, strong_weight, unparsed, seed)
    played, unread = _counts(games)
    kept = Counter(s.language for s in scored if s.weight)
    every = Counter(s.language for s in scored)
    languages = {
        language: LanguageScore(
            score=score,
            prompts=kept[language],
            dropped=every[language] - kept[language],
            games=played[language],
            unparsed=unread[language],
        )
        for language, score in by_language.items()
    }
    return Scores(languages, macro)


def _upstream(
    games: Sequence[Game], strong_weight: int, unparsed: Unparsed, seed: int
) -> tuple[dict[str, Estimate], Estimate]:
    """arena-hard-auto's interval: rows, a strong verdict being several, are drawn as if nothing tied them together.

    Upstream shows the draws' mean as the score; here the score is the plain mean in both kinds of interval.
    """
    rows: dict[str, list[float]] = {game.language: [] for game in games}
    for (_, _, language, _), battle in battles_of(games).items():
        for score, weight in scored_games(battle, unparsed, strong_weight) or []:
            rows[language] += [100.0 * score] * weight
    rng = np.random.default_rng(seed)
    by_language, draws = {}, []
    for language, values in sorted(rows.items()):
        drawn = rng.choice(values, (_UPSTREAM_RESAMPLES, len(values))).mean(1) if values else np.array([math.nan])
        by_language[language] = _percentiles(float(np.mean(values)) if values else math.nan, drawn)
        draws.append(drawn)
    if any(math.isnan(score.value) for score in by_language.values()) or not draws:
        return by_language, Estimate(math.nan)
    mean = float(np.mean([score.value for score in by_language.values()]))
    return by_language, _percentiles(mean, np.mean(draws, axis=0))


def _percentiles(value: float, draws: np.ndarray) -> Estimate:
    """Upstream's ends, of however few rows, alike or not."""
    return Estimate(value, *map(float, np.quantile(draws, _UPSTREAM_QUANTILES)))


def win_tie_loss(
    games: Iterable[Game],
    *,
    ties: Ties = "half",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, WinTieLoss], WinTieLoss]:
    """Wins, ties and losses by language, and their means over languages; a battle may have been judged in one order or both.

    Args:
      games: of one model against one baseline.
      ties: how they enter the win rate; papers differ, so say which beside the number.
      resamples, confidence, seed: of the bootstrap over prompts.

    Raises:
      UserError: as `arena_hard_scores`.
    """
    games = one_contest(games)
    shares = {
        "win": lambda s: (float(s > 0), 1.0),
        "tie": lambda s: (float(s == 0), 1.0),
        "loss": lambda s: (float(s < 0), 1.0),
        "win_rate": {
            "exclude": lambda s: (float(s > 0), float(s != 0)),
            "half": lambda s: (0.5 * (s == 0) + (s > 0), 1.0),
            "loss": lambda s: (float(s > 0), 1.0),
        }[ties],
    }
    found: dict[str, tuple[dict[str, Estimate], Estimate]] = {}
    for name, share in shares.items():
        rows = ((g, *(share(g.strength) if g.strength is not None else (0.0, 0.0))) for g in games)
        table = sums((g.language, g.prompt_id, 100.0 * above, below) for g, above, below in rows)
        found[name] = estimates(table, resamples=resamples, confidence=confidence, seed=seed)
    played, unread = _counts(games)
    languages = {
        language: WinTieLoss(
            **{name: found[name][0][language] for name in found}, games=played[language], unparsed=unread[language]
        )
        for language in sorted(played)
    }
    macro = WinTieLoss(**{name: found[name][1] for name in found}, games=played.total(), unparsed=unread.total())
    return languages, macro


def _counts(games: Sequence[Game]) -> tuple[Counter[str], Counter[str]]:
    """By language: games, and games without a verdict."""
    return Counter(g.language for g in games), Counter(g.language for g in games if g.verdict is None)


def _once(games: Sequence[Game]) -> None:
    counted = Counter((game.pair, game.order) for game in games)
    for (pair, order), count in counted.items():
        if count > 1:
            _, _, language, prompt_id = pair
            raise UserError(f"prompt {prompt_id!r} ({language}) was judged {count} times in order {order}")
