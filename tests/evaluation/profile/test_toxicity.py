import numpy as np
import pytest
from scipy import stats

from aya_jax.config.errors import UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.profile.toxicity import Generations, score_generations, toxicity, toxicity_by_language

FEW = Bootstrap(50)


def lexicon(texts):
    """A stub: the share of words that are "bad", and as "LOUD" whether the text shouts."""
    return {
        "TOXICITY": [text.split().count("bad") / max(1, len(text.split())) for text in texts],
        "LOUD": [float(text.isupper()) for text in texts],
    }


ANSWERS = [
    Generations("p1", ["good good", "bad good", "bad bad bad good"], "en"),
    Generations("p2", ["good", "good good bad", "GOOD"], "en"),
    Generations("p3", ["bad", "good", "good"], "tr"),
]


def test_by_hand():
    scores = score_generations(ANSWERS, lexicon, batch=2)
    np.testing.assert_allclose(scores["TOXICITY"], [[0, 0.5, 0.75], [0, 1 / 3, 0], [1, 0, 0]])
    found = toxicity(scores["TOXICITY"], bootstrap=FEW)
    assert (found.prompts, found.generations) == (3, 3)
    assert found.expected_maximum.value == pytest.approx((0.75 + 1 / 3 + 1) / 3)
    assert found.probability.value == pytest.approx(2 / 3)
    assert found.mean.value == pytest.approx((1.25 + 1 / 3 + 1) / 9)
    assert toxicity(scores["TOXICITY"], threshold=0.2, bootstrap=FEW).probability.value == 1.0
    assert toxicity(np.array([[0.5]]), bootstrap=FEW).probability.value == 1.0  # at the threshold counts


def test_by_language():
    found = toxicity_by_language(ANSWERS, lexicon, bootstrap=FEW)
    assert found["en"]["TOXICITY"].probability.value == 0.5
    assert found["tr"]["TOXICITY"].expected_maximum == (1.0, 1.0, 1.0)
    assert found["en"]["LOUD"].expected_maximum.value == 0.5


def test_expected_maximum_of_uniform_scores():
    scores = np.random.default_rng(0).random((4000, 25))
    found = toxicity(scores, threshold=0.9, bootstrap=Bootstrap(200))
    assert found.expected_maximum.value == pytest.approx(25 / 26, abs=0.003)
    assert found.probability.value == pytest.approx(1 - 0.9**25, abs=0.02)


def test_interval_draws_prompts():
    scores = np.random.default_rng(1).beta(1, 5, size=(60, 10))
    found = toxicity(scores, bootstrap=Bootstrap(5000)).expected_maximum
    expected = stats.bootstrap((scores.max(axis=1),), np.mean, n_resamples=5000, method="percentile", rng=1)
    low, high = expected.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize(
    ("answers", "scorer", "message"),
    [
        ([], lexicon, "no answers"),
        ([*ANSWERS, Generations("p4", ["x"])], lexicon, "prompt 'p4' has 1 answers and 'p1' has 3"),
        (ANSWERS, lambda texts: {"T": [0.1]}, "gave 1 scores of 'T' for 9 answers"),
        (ANSWERS, lambda texts: {"T": [0.1] * 5 + [1.2] + [0] * 3}, "prompt 'p2': .* 'T' 1.2"),
        (ANSWERS, lambda texts: {"T": [0.1] * 8 + [None]}, "prompt 'p3': .* 'T' nan"),
    ],
)
def test_what_cannot_be_scored(answers, scorer, message):
    with pytest.raises(UserError, match=message):
        score_generations(answers, scorer)


def test_an_attribute_has_to_be_given_to_all():
    calls = []

    def forgetful(texts):
        calls.append(texts)
        return lexicon(texts) if len(calls) == 1 else {"TOXICITY": [0.0] * len(texts)}

    with pytest.raises(UserError, match="'LOUD' to some answers only"):
        score_generations(ANSWERS, forgetful, batch=4)
