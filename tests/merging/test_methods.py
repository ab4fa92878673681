"""Coefficients and consensus: closed forms, worked examples, and the same sums over whole vectors in float64."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.merging import methods

ANGLES = st.floats(0.05, math.pi - 0.05)
SHARES = st.floats(0.0, 1.0)


def gram_of(*vectors):
    stacked = np.asarray(vectors, np.float64)
    return stacked @ stacked.T


def at_angle(angle, length=1.0):
    """Two vectors of the plane, the first a unit one."""
    return np.array([1.0, 0.0]), length * np.array([math.cos(angle), math.sin(angle)])


def test_linear_weights_are_shares_unless_they_are_not_to_be():
    np.testing.assert_allclose(methods.linear([1, 2, 5]), [0.125, 0.25, 0.625])
    np.testing.assert_array_equal(methods.linear([1, 2, 5], normalize=False), [1, 2, 5])
    np.testing.assert_allclose(methods.linear([1, -0.5]), [2, -1])


@pytest.mark.parametrize("weights", [[0, 0], [1, -1], [0.3, 0.7, -1.0]])
def test_weights_that_sum_to_zero_have_no_shares(weights):
    with pytest.raises(ValueError, match="sum to zero"):
        methods.linear(weights)


# SLERP ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(ANGLES, st.floats(0.1, 10))
def test_slerp_ends_at_the_tensors(angle, length):
    gram = gram_of(*at_angle(angle, length))
    np.testing.assert_allclose(methods.slerp(gram, 0.0), [1, 0], atol=1e-12)
    np.testing.assert_allclose(methods.slerp(gram, 1.0), [0, 1], atol=1e-12)


def test_slerp_half_way_between_orthogonal_tensors():
    np.testing.assert_allclose(methods.slerp(gram_of([2.0, 0], [0, 3.0]), 0.5), [math.sqrt(0.5)] * 2)


@settings(deadline=None)
@given(ANGLES, SHARES)
def test_slerp_of_unit_vectors_turns_by_the_share_of_the_angle(angle, t):
    one, other = at_angle(angle)
    if abs(math.cos(angle)) > 0.9995:
        return
    coefficients = methods.slerp(gram_of(one, other), t)
    np.testing.assert_allclose(coefficients @ [one, other], [math.cos(t * angle), math.sin(t * angle)], atol=1e-9)


@pytest.mark.parametrize("factor", [2.0, -0.5, 1.0])
def test_slerp_of_colinear_tensors_is_a_straight_line(factor):
    vector = np.array([0.3, -1.2, 2.0])
    np.testing.assert_allclose(methods.slerp(gram_of(vector, factor * vector), 0.3), [0.7, 0.3])


def test_slerp_is_a_straight_line_from_a_cosine_of_0_9995_on():
    near, far = math.acos(0.9996), math.acos(0.9994)
    np.testing.assert_array_equal(methods.slerp(gram_of(*at_angle(near)), 0.25), [0.75, 0.25])
    assert methods.slerp(gram_of(*at_angle(far)), 0.25).sum() > 1


def test_slerp_with_zeros_is_a_quarter_turn():
    np.testing.assert_allclose(methods.slerp(gram_of([0.0, 0.0], [0, 3.0]), 1 / 3), [math.sqrt(0.75), 0.5])


@settings(deadline=None)
@given(ANGLES, st.floats(0.1, 3), st.floats(0.1, 3))
def test_nuslerp_is_slerp_by_weights_without_the_straight_line(angle, first, second):
    one, other = at_angle(angle)
    t = second / (first + second)
    found = methods.nuslerp(gram_of(one, other), [first, second]) @ [one, other]
    np.testing.assert_allclose(found, [math.cos(t * angle), math.sin(t * angle)], atol=1e-8)


def test_nuslerp_s_edges():
    vector = np.array([1.0, 2.0])
    np.testing.assert_allclose(methods.nuslerp(gram_of(vector, 3 * vector), [1, 3]), [0.25, 0.75])
    half = methods.nuslerp(gram_of([1.0, 0], [0, 1.0]), [1, -1])
    np.testing.assert_allclose(half, [math.sqrt(0.5)] * 2)


# Means on the sphere ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_of_orthogonal_tensors_is_between_them_and_as_long_as_they_are(count):
    lengths = np.arange(1.0, count + 1)
    gram = np.diag(lengths**2)
    expected = lengths.mean() / math.sqrt(count) / lengths
    np.testing.assert_allclose(methods.karcher(gram, [1] * count), expected, rtol=1e-7)
    np.testing.assert_allclose(methods.multislerp(gram, [1] * count), expected, rtol=1e-6)


@settings(deadline=None)
@given(st.floats(0.05, 2.5), st.floats(0.1, 0.9))
def test_the_mean_of_two_unit_vectors_is_slerp(angle, t):
    if math.cos(angle) > 0.9995:
        return
    gram = gram_of(*at_angle(angle))
    found = methods.karcher(gram, [1 - t, t], steps=100, tolerance=1e-12)
    np.testing.assert_allclose(found, methods.slerp(gram, t), atol=1e-7)
    np.testing.assert_allclose(methods.multislerp(gram, [1, 1]), methods.slerp(gram, 0.5), atol=1e-7)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_the_spherical_mean_is_where_the_weighted_tangents_cancel(count, seed):
    """Karcher's condition, over whole vectors."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 12)) + 1.5
    weights = rng.uniform(0.2, 1, count)
    found = methods.karcher(gram_of(*vectors), weights, steps=200, tolerance=1e-9) @ vectors
    share, lengths = weights / weights.sum(), np.linalg.norm(vectors, axis=1)
    assert np.linalg.norm(found) == pytest.approx(share @ lengths)
    mean, units = found / np.linalg.norm(found), vectors / lengths[:, None]
    angles = np.arccos(np.clip(units @ mean, -1, 1))
    tangents = (angles / np.sin(angles))[:, None] * (units - np.outer(units @ mean, mean))
    np.testing.assert_allclose(share @ tangents, 0, atol=1e-7)


def test_a_tensor_of_zeros_only_shortens_the_spherical_mean():
    found = methods.karcher(gram_of([4.0, 0], [0, 0], [0, 2.0]), [1, 1, 1])
    np.testing.assert_allclose(found @ [[4.0, 0], [0, 0], [0, 2.0]], np.full(2, 2 / math.sqrt(2)), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 5), st.booleans(), st.integers(0, 10_000))
def test_multislerp_is_the_same_over_whole_vectors(count, normalize, seed):
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(size=(count, 12)) + 0.5, rng.uniform(0.2, 1, count)
    share = weights / weights.sum() if normalize else weights
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / lengths[:, None]
    mean = share @ units / np.linalg.norm(share @ units)
    tangent = share @ (units - np.outer(units @ mean, mean))
    angle = np.linalg.norm(tangent)
    expected = (share @ lengths) * (mean * math.cos(angle) + tangent * np.sinc(angle / math.pi))
    found = methods.multislerp(gram_of(*vectors), weights, normalize) @ vectors
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_multislerp_of_opposites_has_no_direction():
    vectors = np.array([[1.0, 0], [-1.0, 0], [0.0, 0]])
    np.testing.assert_allclose(methods.multislerp(gram_of(*vectors[:2]), [1, 1]), [0.5, 0.5])
    with pytest.raises(ValueError, match="choose other weights"):
        methods.multislerp(gram_of(*vectors), [1, 1, 1])


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.9])
def test_model_stock_of_two_is_the_paper_s_ratio(cosine):
    """Equation 5: t = 2 cos / (1 + cos); lengths do not matter."""
    t = 2 * cosine / (1 + cosine)
    one, other = at_angle(math.acos(cosine), 5.0)
    np.testing.assert_allclose(methods.model_stock(gram_of(one, other)), [1 - t, t / 2, t / 2], atol=1e-12)


def test_model_stock_s_ends():
    np.testing.assert_allclose(methods.model_stock(np.eye(4)), [1, 0, 0, 0, 0])  # nothing in common: the base
    np.testing.assert_allclose(
        methods.model_stock(np.ones((4, 4))), [0, 0.25, 0.25, 0.25, 0.25], atol=1e-12
    )  # the average
    opposed = np.array([[1.0, -1], [-1, 1]])
    np.testing.assert_allclose(methods.model_stock(opposed), [1, 0, 0])  # no finite ratio: the base


@settings(deadline=None)
@given(st.floats(0, 0.999), st.lists(st.floats(-10, 10), min_size=1, max_size=12))
def test_a_moving_average_is_that_of_a_loop(decay, values):
    expected = values[0]
    for value in values[1:]:
        expected = decay * expected + (1 - decay) * value
    found = methods.moving_average(decay, len(values))
    assert found.sum() == pytest.approx(1)
    assert found @ values == pytest.approx(expected, abs=1e-9)


# Delta methods ---------------------------------------------------------------------------------------------------------


def settled(deltas, weights, **how):
    found = methods.settle(
        [jnp.asarray(delta, jnp.float32) for delta in deltas], jnp.asarray(weights, jnp.float32), **how
    )
    return np.asarray(found).tolist()


DELTAS = [
    #  agree  two to one  two to one  a tie  one alone  nothing
    [2.0, 4.0, -1.0, 1.0, 0.0, 0.0],
    [4.0, -1.0, -3.0, -1.0, 0.0, 0.0],
    [6.0, 2.0, 2.0, 0.0, -5.0, 0.0],
]


def test_ties_by_hand_for_three_models():
    """A mean of those that agree with the sign of the sum; a sum of 0 is positive."""
    assert settled(DELTAS, [1, 1, 1], elects=True, normalize=True) == [4, 3, -2, 1, -5, 0]


def test_ties_by_hand_with_weights():
    """Weighted sums: 12, 7, -0.5 (of -0.5, -3, 3: no: -0.5), 0.5 - 1, -7.5; divided by the weights that count."""
    found = settled(DELTAS, [0.5, 1, 1.5], elects=True, normalize=True)
    assert found == pytest.approx([(1 + 4 + 9) / 3, (2 + 3) / 2, (-0.5 - 3) / 1.5, -1, -5, 0])
    assert settled(DELTAS, [0.5, 1, 1.5], elects=True, normalize=False) == pytest.approx([14, 5, -3.5, -1, -7.5, 0])


def test_without_an_election_deltas_are_added():
    assert settled(DELTAS, [0.5, 1, 1.5], elects=False, normalize=False) == [14, 4, -0.5, -0.5, -7.5, 0]
    assert settled(DELTAS, [1, 1, 2], elects=False, normalize=True) == [4.5, 1.75, 0, 0, -2.5, 0]
    assert settled(DELTAS[:2], [1, -1], elects=False, normalize=True) == [-2, 5, 2, 2, 0, 0]  # a sum of 0 divides by 1


def test_a_negative_weight_turns_a_delta_round():
    """-1 * -3 agrees with 1 * 2; the weights that count sum to 0, which divides by 1."""
    assert settled([[2.0], [-3.0]], [1, -1], elects=True, normalize=True) == [5]


def test_della_s_chances_rise_by_rank_around_the_density():
    found = np.asarray(methods.keep_probability(jnp.asarray([[3, 0, 4, 1, 2]]), jnp.float32(0.6), jnp.float32(0.2)))
    np.testing.assert_allclose(found, [[0.7, 0.4, 0.8, 0.5, 0.6]], rtol=1e-6)
    alone = np.asarray(methods.keep_probability(jnp.asarray([[0], [0]]), jnp.float32(0.6), jnp.float32(0.2)))
    np.testing.assert_allclose(alone, [[0.4], [0.4]], rtol=1e-6)


def test_a_base_is_asked_for_where_a_method_has_deltas():
    assert {name for name, about in methods.METHODS.items() if about.is_delta} <= {
        name for name, about in methods.METHODS.items() if about.base == "required"
    }
