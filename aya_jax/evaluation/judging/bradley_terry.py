"""Strengths of models from games, with the effect of style taken out (Bradley & Terry 1952, as a logistic regression).

The log-odds of a game are the difference of the two models' strengths plus, for each style feature, a coefficient times
how much more of it one answer has (Arena-Hard's style control, peers.md 1.7). What a model is credited with is its win
probability against a reference, at equal style. Each language is fitted on its own: judges' tastes and texts' lengths
differ between languages. Two departures from arena-hard-auto:

* Features are divided by their root mean square, not centred. Upstream subtracts the mean, so its "equal style" is the
  average difference in style: a model whose answers are always longer keeps that advantage.
* Columns are named, and every column keeps its coefficient: upstream cuts the joined matrix, so that control of length alone
  or of Markdown alone drops columns of models.

Fits are Newton's method in float64, all draws of a bootstrap at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from aya_jax.config import UserError
from aya_jax.evaluation.judging.battles import Game
from aya_jax.evaluation.judging.resampling import Estimate, estimate, mean_estimate
from aya_jax.evaluation.judging.scores import Unparsed, battles_of, scored_games
from aya_jax.evaluation.judging.style import Feature, difference
from aya_jax.evaluation.statistics import resample_counts

_STEPS, _TOLERANCE = 100, 1e-10  # of Newton's method; tolerance of the gradient for each unit of weight
_LONGEST_STEP = 4.0
_SEPARATED = 15.0  # log-odds beyond which a strength is as good as infinite
_BLOCK = 4_000_000  # weights of games that are worked on at a time


@dataclass(frozen=True)
class Design:
    """The games of one language as a regression.

    Attributes:
      models: whose strengths are fitted, sorted; the reference's is 0 and has no column.
      features: in the order of their columns, which come after the models'.
      x: float64 [N, models + features]; a game's row is +1 for its model, -1 for its baseline, and scaled style differences.
      y: the model's score, 0, 0.5 or 1, [N].
      weight: of each game, [N].
      prompts: the id of each game's prompt, [N].
    """

    models: tuple[str, ...]
    features: tuple[Feature, ...]
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Strengths in one language.

    Attributes:
      win_rates: each model's probability of winning against the reference at equal style, per cent.
      coefficients: of each feature, in log-odds for a difference of one root mean square.
      prompts: battles that count.
      dropped: battles left out, as in `scores`.
      unparsed: games without a verdict.
      separated: a strength or coefficient is as good as infinite (a model wins every game, say): rates of 0 or 100 are
        limits, and with features nothing tells their effect from the model's. An l2 above 0 keeps them finite.
    """

    win_rates: dict[str, Estimate]
    coefficients: dict[str, Estimate]
    prompts: int
    dropped: int
    unparsed: int
    separated: bool


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths by language.

    Attributes:
      languages: by language.
      macro: each model's mean win rate over languages; NaN for a model that one of them has no games of.
    """

    languages: dict[str, Fit]
    macro: dict[str, Estimate]


def bradley_terry(
    games: Iterable[Game],
    *,
    reference: str = "baseline",
    features: Sequence[Feature] = (),
    strong_weight: int = 3,
    unparsed: Unparsed = "drop",
    l2: float = 0.0,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> BradleyTerry:
    """Fits each language's games, of any number of models.

    Args:
      games: both orders of each battle.
      reference: the model whose strength is 0.
      features: what style to control for; none gives plain Bradley-Terry.
      strong_weight, unparsed: as in `scores.arena_hard_scores`.
      l2: half of this times the sum of squares of all strengths and coefficients is added to the loss.
      resamples, confidence, seed: of the bootstrap over prompts, shared by languages that share prompts.

    Raises:
      UserError: a feature twice, no game of the reference, a game without style where features are asked for, or a battle
        judged twice in the same order.
    """
    games = list(games)
    if len(set(features)) != len(features):
        raise UserError(f"features = {list(features)}: each at most once")
    if games and not any(reference in (game.model, game.baseline) for game in games):
        known = sorted({game.baseline for game in games})
        raise UserError(f"no game of the reference {reference!r}; baselines are {', '.join(known)}")
    by_language: dict[str, list[Game]] = defaultdict(list)
    for game in games:
        by_language[game.language].append(game)
    designs = {
        language: design(found, reference, features, strong_weight, unparsed)
        for language, found in sorted(by_language.items())
    }
    draws = _draws(designs, games, l2, resamples, seed)
    fits = {
        language: _fit(d, by_language[language], reference, l2, draws[language], confidence)
        for language, d in designs.items()
    }
    models = sorted({m for game in games for m in (game.model, game.baseline)} - {reference})
    return BradleyTerry(fits, {model: _macro(model, designs, fits, draws, confidence) for model in models})


def design(
    games: Iterable[Game],
    reference: str = "baseline",
    features: Sequence[Feature] = (),
    strong_weight: int = 3,
    unparsed: Unparsed = "drop",
) -> Design:
    """The regression of one language's games; arguments and errors as `bradley_terry`."""
    rows: list[tuple[Game, float, int]] = []
    for battle in battles_of(games).values():
        scored = scored_games(battle, unparsed, strong_weight)
        rows += [(battle[order], *scored[order - 1]) for order in (1, 2)] if scored else []
    models = sorted({name for game, _, _ in rows for name in (game.model, game.baseline)} - {reference})
    column = {name: k for k, name in enumerate(models)}
    x = np.zeros((len(rows), len(models) + len(features)))
    for number, (game, _, _) in enumerate(rows):
        for name, sign in ((game.model, 1.0), (game.baseline, -1.0)):
            if name != reference:
                x[number, column[name]] += sign
        for k, feature in enumerate(features):
            if game.model_style is None or game.baseline_style is None:
                raise UserError(f"prompt {game.prompt_id!r} ({game.language}): the answers' style was not measured")
            x[number, len(models) + k] = difference(feature, game.model_style, game.baseline_style)
    styles = x[:, len(models) :]
    size = np.sqrt(np.mean(styles**2, axis=0)) if len(rows) else np.ones(len(features))
    styles /= np.where(size > 0, size, 1.0)  # a feature that no game differs in stays 0, and so does its coefficient
    return Design(
        models=tuple(models),
        features=tuple(features),
        x=x,
        y=np.array([score for _, score, _ in rows]),
        weight=np.array([float(weight) for _, _, weight in rows]),
        prompts=tuple(game.prompt_id for game, _, _ in rows),
    )


def loss(beta: np.ndarray, x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float = 0.0) -> np.ndarray:
    """Negative log-likelihood: the sum over games of weight · (log(1 + e^η) - y η), η = x β, and l2 / 2 · |β|².

    Args:
      beta: [R, K], one row for each fit.
      x: [N, K].
      y: [N].
      weight: [R, N].
      l2: at least 0.

    Returns:
      [R].
    """
    eta = beta @ x.T
    return (weight * (np.logaddexp(0.0, eta) - y * eta)).sum(1) + 0.5 * l2 * (beta**2).sum(1)


def gradient(beta: np.ndarray, x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float = 0.0) -> np.ndarray:
    """Of `loss` in beta, [R, K]; arguments as `loss`."""
    return (weight * (expit(beta @ x.T) - y)) @ x + l2 * beta


def solve(x: np.ndarray, y: np.ndarray, weight: np.ndarray, l2: float = 0.0) -> np.ndarray:
    """The likeliest coefficients of every set of weights, [R, K]; arguments as `loss`.

    Newton's method with steps of bounded length, halved while they do not lower the loss. A direction that the games say
    nothing about (a constant column, a model that a draw leaves out) keeps its 0: the pseudo-inverse does not move it.
    Where no finite optimum exists, strengths grow until the gradient is small beside the weights, or `_STEPS` are done.
    """
    size = x.shape[1]
    products = (x[:, :, None] * x[:, None, :]).reshape(len(x), size * size)
    beta = np.zeros((len(weight), size))
    scale = np.maximum(weight.sum(1), 1e-300)
    for _ in range(_STEPS):
        slope = gradient(beta, x, y, weight, l2)
        moving = np.abs(slope).max(1, initial=0.0) > _TOLERANCE * scale
        if not moving.any():
            break
        at, weights = beta[moving], weight[moving]
        p = expit(at @ x.T)
        hessian = ((weights * p * (1.0 - p)) @ products).reshape(-1, size, size) + l2 * np.eye(size)
        step = (np.linalg.pinv(hessian, hermitian=True) @ slope[moving][:, :, None])[:, :, 0]
        step *= np.minimum(1.0, _LONGEST_STEP / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        now = loss(at, x, y, weights, l2)
        for _ in range(30):
            worse = loss(at - step, x, y, weights, l2) > now + 1e-12 * np.abs(now)
            if not worse.any():
                break
            step[worse] /= 2.0
        beta[moving] = at - step
    return beta


def _draws(
    designs: dict[str, Design], games: Sequence[Game], l2: float, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Coefficients of every draw, by language [R, K]; one draw of prompts serves all languages that have them."""
    units = {name: k for k, name in enumerate(sorted({game.prompt_id for game in games}))}
    found: dict[str, list[np.ndarray]] = {language: [] for language in designs}
    for counts in resample_counts(len(units), resamples, seed):
        for language, d in designs.items():
            columns = [units[prompt] for prompt in d.prompts]
            block = max(1, _BLOCK // max(1, len(columns)))
            for start in range(0, len(counts), block):
                found[language].append(_drawn(d, counts[start : start + block][:, columns] * d.weight, l2))
    return {
        language: np.concatenate(parts) if parts else np.zeros((0, designs[language].x.shape[1]))
        for language, parts in found.items()
    }


def _drawn(d: Design, weights: np.ndarray, l2: float) -> np.ndarray:
    """Coefficients under each row of weights [R, N]; NaN for a model that a draw has no game of."""
    beta, known = solve(d.x, d.y, weights, l2), len(d.models)
    beta[:, :known][weights @ np.abs(d.x[:, :known]) == 0] = math.nan
    return beta


def _fit(d: Design, games: Sequence[Game], reference: str, l2: float, draws: np.ndarray, confidence: float) -> Fit:
    beta = solve(d.x, d.y, d.weight[None, :], l2)[0]
    units, battles, known = len(set(d.prompts)), len(d.y) // 2, len(d.models)
    of_model = [len({d.prompts[row] for row in np.flatnonzero(d.x[:, k])}) for k in range(known)]
    played = {name for game in games for name in (game.model, game.baseline)} - {reference}
    # A model all of whose battles are left out has no strength, which is not the same as being even.
    rates = {name: Estimate(math.nan) for name in sorted(played)}
    for k, model in enumerate(d.models):
        rates[model] = estimate(
            100.0 * expit(beta[k]), 100.0 * expit(draws[:, k]), of_model[k], confidence, percent=True
        )
    coefficients = {
        feature: estimate(float(beta[known + k]) if units else math.nan, draws[:, known + k], units, confidence)
        for k, feature in enumerate(d.features)
    }
    return Fit(
        win_rates=rates,
        coefficients=coefficients,
        prompts=battles,
        dropped=len({game.pair for game in games}) - battles,
        unparsed=sum(game.verdict is None for game in games),
        separated=bool(np.abs(beta).max(initial=0.0) > _SEPARATED),
    )


def _macro(
    model: str, designs: dict[str, Design], fits: dict[str, Fit], draws: dict[str, np.ndarray], confidence: float
) -> Estimate:
    parts = [fit.win_rates.get(model, Estimate(math.nan)) for fit in fits.values()]
    if any(model not in d.models for d in designs.values()):
        return Estimate(math.nan)
    columns = [100.0 * expit(draws[language][:, d.models.index(model)]) for language, d in designs.items()]
    least = min(len(set(d.prompts)) for d in designs.values())
    return mean_estimate(parts, np.stack(columns, 1), least, confidence, percent=True)
