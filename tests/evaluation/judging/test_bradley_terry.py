"""Strengths of models: closed forms, planted truths, other optimisers and other libraries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import expit, logit

from aya_jax.config import UserError
from aya_jax.evaluation.judging.battles import Game
from aya_jax.evaluation.judging.bradley_terry import bradley_terry, design, gradient, loss, solve
from aya_jax.evaluation.judging.scores import arena_hard_scores
from aya_jax.evaluation.judging.style import FEATURES, MARKDOWN, Style


def both(
    prompt,
    model_wins,
    *,
    language="en",
    styles=(None, None),
    model="model",
    baseline="baseline",
    verdicts=("B>A", "A>B"),
):
    """The two games of a battle, consistent; `verdicts` are those of a win in order 1 and 2."""
    lost = {"B>A": "A>B", "A>B": "B>A", "A=B": "A=B", "A>>B": "B>>A", "B>>A": "A>>B"}
    return [
        Game(
            prompt_id=prompt, language=language, order=order, verdict=v if model_wins else lost[v], model=model,
            baseline=baseline, model_style=styles[0], baseline_style=styles[1],
        )
        for order, v in zip((1, 2), verdicts, strict=True)
    ]  # fmt: skip


def problem(seed=0, games=60, columns=4, draws=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(games, columns))
    y = rng.choice([0.0, 0.5, 1.0], games)
    return x, y, rng.integers(0, 4, (draws, games)).astype(float), rng.normal(size=(draws, columns))


def test_two_models_have_the_closed_form_s_strength():
    """Without features the odds are the odds of wins: 7 of 10 prompts, each game a row of weight 1."""
    games = [g for k in range(10) for g in both(f"p{k}", k < 7)]
    fit = bradley_terry(games).languages["en"]
    assert fit.win_rates["model"].value == pytest.approx(70.0, abs=1e-9)
    d = design(games)
    assert solve(d.x, d.y, d.weight[None])[0, 0] == pytest.approx(logit(0.7), abs=1e-9)
    assert (fit.prompts, fit.dropped, fit.unparsed, fit.separated) == (10, 0, 0, False)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[st.sampled_from(["A>>B", "A>B", "A=B", "B>A", "B>>A", None])] * 2), min_size=1, max_size=8))
def test_plain_bradley_terry_of_two_models_is_the_mean_score(verdicts):
    games = [
        Game(prompt_id=f"p{k}", language="en", order=order, verdict=v)
        for k, pair in enumerate(verdicts)
        for order, v in zip((1, 2), pair, strict=True)
    ]
    found = bradley_terry(games, resamples=1).macro["model"].value
    assert found == pytest.approx(arena_hard_scores(games, resamples=1).macro.value, abs=1e-6, nan_ok=True)


def test_the_gradient_is_that_of_the_loss():
    x, y, weight, beta = problem()
    for l2 in (0.0, 0.7):
        for k in range(len(beta)):
            slope = optimize.approx_fprime(beta[k], lambda b, k=k: loss(b[None], x, y, weight[k : k + 1], l2)[0], 1e-7)  # noqa: B023
            np.testing.assert_allclose(gradient(beta, x, y, weight, l2)[k], slope, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("l2", [0.0, 0.3, 20.0])
def test_every_fit_of_a_batch_is_the_optimum_that_scipy_finds(l2):
    x, y, weight, _ = problem(games=80, draws=5)
    found = solve(x, y, weight, l2)
    for k in range(len(weight)):

        def one(beta, k=k):
            eta = x @ beta
            value = weight[k] @ (np.logaddexp(0, eta) - y * eta) + l2 / 2 * beta @ beta
            return value, x.T @ (weight[k] * (expit(eta) - y)) + l2 * beta

        theirs = optimize.minimize(
            one, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}
        )
        np.testing.assert_allclose(found[k], theirs.x, atol=1e-5)


@pytest.mark.parity
def test_torch_finds_the_same_optimum():
    torch = pytest.importorskip("torch")
    x, y, weight, _ = problem(draws=1)
    beta = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [beta], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        eta = torch.tensor(x) @ beta
        parts = torch.nn.functional.binary_cross_entropy_with_logits(
            eta, torch.tensor(y), torch.tensor(weight[0]), reduction="sum"
        )
        value = parts + 0.25 * (beta**2).sum()
        value.backward()
        return value

    optimizer.step(closure)
    np.testing.assert_allclose(solve(x, y, weight, 0.5)[0], beta.detach().numpy(), atol=1e-6)


def test_scikit_learn_finds_the_same_optimum():
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, weight, _ = problem(draws=1)
    y = (y > 0.4).astype(float)
    theirs = linear_model.LogisticRegression(C=1 / 0.5, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs.fit(x, y, sample_weight=weight[0])
    np.testing.assert_allclose(solve(x, y, weight, 0.5)[0], theirs.coef_[0], atol=1e-5)


def planted(strength, per_length, per_bold=0.0, prompts=2000, language="en", seed=0, model="model"):
    """Games drawn from the model itself: log-odds = strength + coefficients x differences; the model writes longer."""
    rng = np.random.default_rng(seed)
    games = []
    for k in range(prompts):
        mine, theirs = (
            Style(float(rng.integers(100, 900)), bold=int(rng.integers(0, 90))),
            Style(float(rng.integers(50, 500)), bold=3),
        )
        gap = (mine.length - theirs.length) / (mine.length + theirs.length)
        dense = [s.bold / (s.length + 1) for s in (mine, theirs)]
        bold = (dense[0] - dense[1]) / (sum(dense) + 1)
        win = rng.random() < expit(strength + per_length * gap + per_bold * bold)
        games += both(f"p{k}", win, language=language, styles=(mine, theirs), model=model)
    return games


def test_an_advantage_that_is_all_length_is_taken_out():
    games = planted(0.0, 3.0)
    plain, controlled = (bradley_terry(games, features=f, resamples=50).macro["model"] for f in ((), ("length",)))
    assert plain.low > 62.0
    assert controlled.value == pytest.approx(50.0, abs=3.0)
    assert controlled.low < 50.0 < controlled.high


def test_an_advantage_that_is_not_style_stays():
    found = bradley_terry(planted(0.8, 2.0, 5.0), features=FEATURES, resamples=20).languages["en"]
    assert found.win_rates["model"].value == pytest.approx(100 * expit(0.8), abs=3.0)
    assert found.coefficients["headers"].value == pytest.approx(0.0, abs=1e-12)  # nobody writes any


@pytest.mark.parametrize("features", [f for n in range(5) for f in itertools.combinations(FEATURES, n)], ids="-".join)
def test_any_subset_of_features_keeps_its_columns(features):
    """Against a regression on columns made here by hand, for two models and a baseline."""
    rng = np.random.default_rng(1)
    games = []
    for k in range(60):
        for name, skill in (("x", 0.7), ("y", -0.4)):
            a, b = (Style(float(rng.integers(10, 99)), *map(int, rng.integers(0, 5, 3))) for _ in range(2))
            games += both(f"p{k}", rng.random() < expit(skill), styles=(a, b), model=name)
    columns, y = [], []
    for g in games:
        row = [float(g.model == "x"), float(g.model == "y")]
        for f in features:
            a, b = (
                s.length if f == "length" else getattr(s, f) / (s.length + 1) for s in (g.model_style, g.baseline_style)
            )
            row.append((a - b) / (a + b + (f != "length")))
        columns.append(row)
        y.append(g.score)
    x = np.array(columns)
    sizes = np.sqrt((x[:, 2:] ** 2).mean(0))
    x[:, 2:] /= sizes
    theirs = optimize.minimize(
        lambda b: np.sum(np.logaddexp(0, x @ b) - np.array(y) * (x @ b)), np.zeros(x.shape[1]), tol=1e-12
    ).x
    found = bradley_terry(games, features=features, resamples=1).languages["en"]
    rates = [found.win_rates[name].value for name in "xy"]
    np.testing.assert_allclose(rates, 100 * expit(theirs[:2]), atol=1e-3)
    np.testing.assert_allclose([found.coefficients[f].value for f in features], theirs[2:], atol=1e-4)
    assert list(found.coefficients) == list(features)


def test_several_models_by_the_chain_of_their_games():
    """x beats the baseline 3 to 1 and y beats x 3 to 1, never meeting the baseline: log-odds add up."""
    games = [
        g for k in range(8) for g in both(f"p{k}", k < 6, model="x") + both(f"p{k}", k < 6, model="y", baseline="x")
    ]
    found = bradley_terry(games).macro
    assert found["x"].value == pytest.approx(75.0, abs=1e-6)
    assert found["y"].value == pytest.approx(90.0, abs=1e-6)
    turned = bradley_terry(games, reference="x").macro
    assert (turned["baseline"].value, turned["y"].value) == (pytest.approx(25.0), pytest.approx(75.0))


def test_strong_verdicts_weigh_more():
    games = both("p0", True, verdicts=("B>>A", "A>>B")) + both("p1", False)
    assert bradley_terry(games, resamples=1).macro["model"].value == pytest.approx(75.0)
    assert bradley_terry(games, resamples=1, strong_weight=1).macro["model"].value == pytest.approx(50.0)


def test_the_interval_is_that_of_a_share_of_prompts():
    games = [g for k in range(200) for g in both(f"p{k}", k < 120)]
    found = bradley_terry(games, resamples=1000).macro["model"]
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(100 * math.sqrt(0.6 * 0.4 / 200), rel=0.1)
    assert bradley_terry(games, seed=5).macro == bradley_terry(games, seed=5).macro


def test_features_are_scaled_within_a_language():
    """One language's answers differ a hundred times as much in length; fitted together, the other's would count for nothing."""
    games = planted(0.0, 3.0, prompts=300, language="ar", seed=1) + planted(
        0.5, 1.0, prompts=300, language="en", seed=2
    )
    found = bradley_terry(games, features=("length",), resamples=5)
    for language in ("ar", "en"):
        alone = bradley_terry([g for g in games if g.language == language], features=("length",), resamples=5)
        assert found.languages[language].win_rates["model"].value == alone.macro["model"].value
        styles = design([g for g in games if g.language == language], features=("length",)).x[:, 1]
        assert np.mean(styles**2) == pytest.approx(1.0)
    rates = [fit.win_rates["model"].value for fit in found.languages.values()]
    assert found.macro["model"].value == pytest.approx(np.mean(rates))


def test_a_model_that_wins_everything_is_said_to():
    games = [g for k in range(9) for g in both(f"p{k}", True)]
    found = bradley_terry(games).languages["en"]
    assert found.separated
    assert found.win_rates["model"].value == pytest.approx(100.0, abs=1e-6)
    held = bradley_terry(games, l2=0.5).languages["en"]
    assert not held.separated
    assert 90.0 < held.win_rates["model"].value < 99.9


def test_what_cannot_be_read_gives_no_strength():
    games = [
        Game(prompt_id=f"p{k}", language=la, order=o, verdict=None)
        for k in range(6)
        for o in (1, 2)
        for la in ("ar", "en")
    ]
    found = bradley_terry(games, features=())
    assert math.isnan(found.macro["model"].value)
    assert (found.languages["ar"].prompts, found.languages["ar"].dropped, found.languages["ar"].unparsed) == (0, 6, 12)
    assert math.isnan(found.languages["ar"].win_rates["model"].value)
    some = bradley_terry([g for g in games if g.language == "ar"] + [g for k in range(6) for g in both(f"p{k}", k < 3)])
    assert math.isnan(some.macro["model"].value)
    assert some.languages["en"].win_rates["model"].value == pytest.approx(50.0)
    assert bradley_terry([]).languages == {}


def test_a_draw_without_a_model_s_games_says_nothing_of_it():
    """y always wins 3.5 of 4 on 6 of 60 prompts, which some draws leave out: those must not count as 50."""
    games = [g for k in range(60) for g in both(f"p{k}", k < 30, model="x")]
    games += [g for k in range(6) for g in both(f"p{k}", True, model="y", verdicts=("B>>A", "A=B"))]
    found = bradley_terry(games, resamples=1500).languages["en"].win_rates
    wilson = stats.binomtest(6, 6).proportion_ci(0.95, method="wilson")
    assert found["y"].value == pytest.approx(87.5)
    assert 30.0 < found["y"].low < 87.5 < found["y"].high <= 100.0 * wilson.high
    few = bradley_terry([g for g in games if g.model == "x" or g.prompt_id == "p0"])
    for rate in (few.languages["en"].win_rates["y"], few.macro["y"]):
        assert rate.value == pytest.approx(87.5)
        assert math.isnan(rate.low)


def test_what_cannot_be_fitted_is_refused():
    games = both("p", True)
    with pytest.raises(UserError, match=r"no game of the reference 'gpt'; baselines are baseline"):
        bradley_terry(games, reference="gpt")
    with pytest.raises(UserError, match="each at most once"):
        bradley_terry(games, features=("length", "length"))
    with pytest.raises(UserError, match=r"prompt 'p' \(en\): the answers' style was not measured"):
        bradley_terry(games, features=MARKDOWN)
