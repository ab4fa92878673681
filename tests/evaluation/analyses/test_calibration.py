import numpy as np
import pytest

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.calibration import calibration, equal_mass_error
from aya_jax.evaluation.analyses.records import ChoiceRecord
from aya_jax.evaluation.analyses.resampling import Bootstrap

NONE = Bootstrap(0)


def record(probabilities, label):
    return ChoiceRecord("0", "en", True, label, tuple(np.log(probabilities)))


def answers(probabilities, labels):
    return [record(p, int(label)) for p, label in zip(probabilities, labels, strict=True)]


def drawn(count, seed=0, choices=4):
    """Probabilities, and labels that follow them exactly: a perfectly calibrated predictor."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(choices), size=count)
    labels = (rng.random((count, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, labels


def ece_by_hand(probabilities, labels, bins):
    order = np.argsort(probabilities.max(axis=1), kind="stable")
    total = 0.0
    for part in np.array_split(order, bins):
        accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in part])
        confidence = np.mean([probabilities[i].max() for i in part])
        total += len(part) / len(order) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 3, 10])
@pytest.mark.parametrize("count", [10, 97, 500])
def test_ece_is_that_of_bins_cut_by_hand(count, bins):
    probabilities, labels = drawn(count)
    found = calibration(answers(probabilities, labels), bins, NONE)
    assert found.ece.value == pytest.approx(ece_by_hand(probabilities, labels, bins), abs=1e-12)
    assert found.ece_one_bin.value == pytest.approx(ece_by_hand(probabilities, labels, 1), abs=1e-12)
    assert sum(row.count for row in found.bins) == count
    gaps = sum(row.count * abs(row.accuracy - row.confidence) for row in found.bins) / count
    assert gaps == pytest.approx(found.ece.value, abs=1e-12)
    assert [row.lowest for row in found.bins] == sorted(row.lowest for row in found.bins)


def test_the_error_with_one_bin_is_resampled_like_any_other():
    records = answers(*drawn(80))
    fine, coarse = calibration(records, 10, Bootstrap(300)), calibration(records, 1, Bootstrap(300))
    assert fine.ece_one_bin == pytest.approx(coarse.ece)
    assert coarse.ece_one_bin == pytest.approx(coarse.ece)


def test_copies_are_as_good_as_repeats():
    rng = np.random.default_rng(4)
    confidence, correct = np.sort(rng.random(40)), rng.integers(2, size=40).astype(float)
    counts = rng.multinomial(40, np.full(40, 1 / 40)).astype(float)
    repeated = [np.repeat(x, counts.astype(int)) for x in (confidence, correct)]
    expected = equal_mass_error(np.ones(40), *repeated, 7)
    assert equal_mass_error(counts, confidence, correct, 7) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 10])
def test_a_calibrated_predictor_has_next_to_no_error(bins):
    found = calibration(answers(*drawn(40_000)), bins, Bootstrap(50))
    assert found.ece.value < 0.01
    assert found.ece.high < 0.02


@pytest.mark.parametrize("bins", [1, 10])
def test_an_over_confident_predictor_has_the_known_error(bins):
    probabilities = np.tile([0.9, 0.1], (1000, 1))
    labels = np.arange(1000) % 10 >= 6  # right 60 % of the time, in every bin
    found = calibration(answers(probabilities, labels), bins, NONE)
    assert found.ece.value == pytest.approx(0.3)
    assert found.accuracy.value == pytest.approx(0.6)
    assert found.confidence.value == pytest.approx(0.9)


def test_brier_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities, labels = drawn(300, choices=2)
    found = calibration(answers(probabilities, labels), 10, NONE)
    # scikit-learn's binary score has one of the two equal terms
    assert found.brier.value == pytest.approx(2 * metrics.brier_score_loss(labels, probabilities[:, 1]))


def test_brier_by_hand():
    found = calibration([record([0.7, 0.2, 0.1], 0), record([0.5, 0.5], 1)], 1, NONE)
    assert found.brier.value == pytest.approx(((0.3**2 + 0.2**2 + 0.1**2) + (0.5**2 + 0.5**2)) / 2)


def test_unnormalised_scores_and_impossible_choices():
    one = [ChoiceRecord("0", "en", True, 0, (-700.0, -700.0 - np.log(3), -np.inf))]
    found = calibration(one, 1, NONE)
    assert found.confidence.value == pytest.approx(0.75)


def test_bad_records_are_named():
    with pytest.raises(UserError, match=r"s.jsonl:2: label None"):
        calibration([record([0.5, 0.5], 0), ChoiceRecord("1", "en", True, None, (-1.0, -2.0))], 1, file="s.jsonl")
    with pytest.raises(UserError, match=r"s.jsonl: 2 answers do not fill 3 bins"):
        calibration([record([0.5, 0.5], 0)] * 2, 3, file="s.jsonl")
    with pytest.raises(UserError, match=r"s.jsonl:1: field 'scores'"):
        calibration([ChoiceRecord("1", "en", True, 0, (-np.inf, -np.inf))], 1, file="s.jsonl")
