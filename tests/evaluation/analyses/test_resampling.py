import numpy as np
import pytest
from scipy import stats

from aya_jax.evaluation import statistics
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate, estimate_sums, ratio


def test_counts_are_multinomial():
    counts = np.concatenate(list(statistics.resample_counts(5, 20_000, 0)))
    assert (counts.sum(axis=1) == 5).all()
    observed = np.bincount(counts[:, 0].astype(int), minlength=6)
    expected = stats.binom(5, 1 / 5).pmf(np.arange(6)) * len(counts)
    assert stats.chisquare(observed, expected).pvalue > 0.001
    # two of five equally likely samples: covariance -n p²
    assert np.cov(counts[:, 0], counts[:, 1])[0, 1] == pytest.approx(-1 / 5, abs=0.02)


def test_blocks_do_not_change_the_draws(monkeypatch):
    whole = np.concatenate(list(statistics.resample_counts(7, 50, 3)))
    monkeypatch.setattr(statistics, "_CHUNK", 20)
    np.testing.assert_array_equal(whole, np.concatenate(list(statistics.resample_counts(7, 50, 3))))


def test_interval_of_a_mean_is_scipys():
    values = np.random.default_rng(1).gamma(2.0, size=80)
    found = estimate(lambda counts: counts @ values / len(values), len(values), Bootstrap(20_000)).at()
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_undefined_resamples_are_left_out():
    kind = np.array([1.0, 0.0, 0.0])
    found = estimate(lambda counts: ratio(counts @ (kind * 4.0), counts @ kind), 3, Bootstrap(200))
    assert found.at() == Estimate(4.0, 4.0, 4.0)
    none = estimate(lambda counts: np.full(len(counts), np.nan), 3, Bootstrap(10))
    assert none.at() == Estimate(None, None, None)


def test_a_mean_has_the_interval_of_the_statistics_of_means():
    values = (np.random.default_rng(4).random((60, 1)) < 0.3).astype(float)
    items = tuple(map(str, range(60)))
    expected = statistics.intervals(statistics.Scores(items, ("en",), values)).languages[0]
    found = estimate(lambda counts: counts @ values[:, 0] / 60, 60, Bootstrap()).at()
    assert (found.low, found.high) == (expected.low, expected.high)


def test_no_resamples_no_interval():
    assert estimate(lambda counts: counts.sum(axis=1), 4, Bootstrap(0)).at() == Estimate(4.0, None, None)


def test_samples_of_few_kinds_are_drawn_as_samples_are():
    rng = np.random.default_rng(5)
    said = rng.random(90) < 0.7
    columns = np.stack([said & (rng.random(90) < 0.5), said], axis=1)
    bootstrap = Bootstrap(40_000)
    quick = estimate_sums(lambda sums: ratio(sums[:, 0], sums[:, 1]), columns, bootstrap).at()
    plain = estimate(lambda counts: ratio(*(counts @ columns).T), 90, bootstrap).at()
    assert quick.value == plain.value == columns[:, 0].sum() / columns[:, 1].sum()
    assert quick == pytest.approx(plain, abs=0.01)
    none = estimate_sums(lambda sums: ratio(sums[:, 0], sums[:, 1]), columns[:0], bootstrap).at()
    assert none == Estimate(None, None, None)
