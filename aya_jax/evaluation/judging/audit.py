"""Whether a judge can be trusted, seen from its games alone: places, flips, ties and replies that say nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from aya_jax.evaluation.judging.battles import Game
from aya_jax.evaluation.judging.scores import battles_of


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a judge did, in per cent; NaN where there is nothing to compute a rate from.

    Attributes:
      games: judged.
      unparsed: without a verdict.
      unparsed_rate: of all games.
      pairs: battles with a verdict in both orders.
      position_gap: over pairs, how often the model wins when shown as A less when shown as B (ties count half): 100 for a judge
        that always says A, -100 for one that always says B, 0 for one that does not care.
      flip_rate: of pairs, those whose winner changes with the order.
      consistent_rate: of pairs, those with the same outcome in both orders; the rest are ties in one order only.
      tie_rate: of games with a verdict.
    """

    games: int
    unparsed: int
    unparsed_rate: float
    pairs: int
    position_gap: float
    flip_rate: float
    consistent_rate: float
    tie_rate: float


def audit(games: Iterable[Game]) -> Audit:
    """Of all games together, of any models and languages.

    Raises:
      UserError: a battle was judged twice in the same order.
    """
    games = list(games)
    read = [game for game in games if game.verdict is not None]
    pairs = [(b[1].score, b[2].score) for b in battles_of(read).values() if set(b) == {1, 2}]
    return Audit(
        games=len(games),
        unparsed=len(games) - len(read),
        unparsed_rate=_rate(len(games) - len(read), len(games)),
        pairs=len(pairs),
        position_gap=_rate(sum(as_a - as_b for as_b, as_a in pairs), len(pairs)),
        flip_rate=_rate(sum(abs(as_a - as_b) == 1.0 for as_b, as_a in pairs), len(pairs)),
        consistent_rate=_rate(sum(as_a == as_b for as_b, as_a in pairs), len(pairs)),
        tie_rate=_rate(sum(game.strength == 0 for game in read), len(read)),
    )


def audit_by_language(games: Iterable[Game]) -> dict[str, Audit]:
    """`audit` of each language's games."""
    by_language: dict[str, list[Game]] = defaultdict(list)
    for game in games:
        by_language[game.language].append(game)
    return {language: audit(found) for language, found in sorted(by_language.items())}


def _rate(above: float, below: int) -> float:
    return 100.0 * above / below if below else math.nan
