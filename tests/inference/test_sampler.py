"""Filters against a sort in NumPy and draws against their probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aya_jax.inference import sampler
from aya_jax.inference.sampler import Options, choose, keep, log_probs, top_log_probs

sample = jax.jit(sampler.sample)
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
TYPES = {"temperature": np.float32, "top_k": np.int32, "top_p": np.float32, "min_p": np.float32}


def options(rows: int, *, key: int = 0, **given: object) -> Options:
    fields = {name: jnp.full(rows, value, TYPES.get(name, np.float32)) for name, value in {**OFF, **given}.items()}
    return Options(**fields, key=jnp.asarray(np.arange(2 * rows).reshape(rows, 2) + 1000 * key, jnp.uint32))


def kept_by_sorting(logits: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """bool [V], as transformers' TopK, TopP and MinP warpers in that order, in float64."""
    logits = logits.astype(np.float64)
    kept = np.ones(len(logits), bool)
    if top_k:
        kept &= logits >= np.sort(logits)[::-1][min(top_k, len(logits)) - 1]

    def probabilities():
        weights = np.where(kept, np.exp(logits - logits.max()), 0)
        return weights / weights.sum()

    if top_p < 1:
        order = np.argsort(probabilities(), kind="stable")
        below = np.cumsum(probabilities()[order]) <= 1 - top_p
        below[-1] = False
        kept[order[below]] = False
    if min_p:
        kept &= probabilities() >= min_p * probabilities().max()
    return kept


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, 23, elements=st.floats(-8, 8, width=32), unique=True),
    st.integers(0, 30),
    st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.99, 1.0]),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_filters_equal_a_sort(logits, top_k, top_p, min_p):
    given_ = options(1, top_k=top_k, top_p=top_p, min_p=min_p)
    found = np.isfinite(np.asarray(keep(jnp.asarray(logits)[None], given_))[0])
    expected = kept_by_sorting(logits, top_k, top_p, min_p)
    differ = np.flatnonzero(found != expected)
    # At the very edge float32 and float64 sums may fall on either side.
    assert len(differ) <= 1
    if len(differ):
        looser, tighter = (
            kept_by_sorting(logits, top_k, np.clip(top_p + d, 0, 1), min_p * (1 - d)) for d in (1e-5, -1e-5)
        )
        assert looser[differ[0]] != tighter[differ[0]]


def test_a_row_without_filters_is_left_alone_beside_one_with():
    logits = jax.random.normal(jax.random.key(0), (2, 50))
    given_ = options(2)._replace(top_k=jnp.asarray([0, 3], jnp.int32), top_p=jnp.asarray([1.0, 0.5], jnp.float32))
    kept = keep(logits, given_)
    np.testing.assert_array_equal(kept[0], logits[0])
    assert 1 <= np.isfinite(kept[1]).sum() <= 3


def test_draws_follow_the_probabilities():
    """A chi-squared test over tokens of two blocks of the vocabulary."""
    rows, size = 4000, 700
    logits = np.zeros(size, np.float32) - 30
    likely = [0, 3, 511, 512, 699]
    logits[likely] = np.log([0.4, 0.1, 0.2, 0.05, 0.25])
    drawn = sample(
        jnp.broadcast_to(jnp.asarray(logits)[:, None], (size, rows)),
        jnp.zeros((rows, size), bool),
        options(rows),
        jnp.zeros(rows, jnp.int32),
    )
    counts = np.bincount(np.asarray(drawn), minlength=size)
    assert counts.sum() == counts[likely].sum()
    assert scipy.stats.chisquare(counts[likely], rows * np.array([0.4, 0.1, 0.2, 0.05, 0.25])).pvalue > 1e-3


def test_temperature_sharpens():
    rows = 3000
    logits = jnp.broadcast_to(jnp.log(jnp.asarray([0.8, 0.2])), (rows, 2))
    seen, index = jnp.zeros((rows, 2), bool), jnp.zeros(rows, jnp.int32)
    share = float(jnp.mean(sample(logits.T, seen, options(rows, temperature=0.5), index) == 0))
    assert abs(share - 0.64 / 0.68) < 0.02  # p^2 normalised


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float32, (1, 600), elements=st.sampled_from([0.0, 1e-30, 1.0, 3.0])),
    st.floats(0, 1, exclude_max=True, width=32),
)
def test_no_token_of_weight_zero_is_chosen(weights, uniform):
    weights[0, 77] = 2
    token = int(choose(jnp.asarray(weights), jnp.full((1, 2), uniform, jnp.float32))[0])
    assert weights[0, token] > 0


def test_the_highest_uniform_number_still_chooses_a_token_that_can_be():
    weights = jnp.asarray([[0.1, 0.2, 0.3, 0.0, 0.0]], jnp.float32)
    assert int(choose(weights, jnp.full((1, 2), np.nextafter(np.float32(1), np.float32(0))))[0]) == 2


def test_the_repetition_penalty_divides_what_is_positive_and_multiplies_what_is_negative():
    logits = jnp.asarray([[2.0, 1.9, -1.0], [-1.0, -1.1, -3.0]])
    seen = jnp.asarray([[True, False, True], [True, False, False]])
    greedy = options(2, temperature=0.0, repetition_penalty=1.2)
    index = jnp.zeros(2, jnp.int32)
    np.testing.assert_array_equal(sample(logits.T, seen, greedy, index), [1, 1])
    np.testing.assert_array_equal(sample(logits.T, jnp.zeros_like(seen), greedy, index), [0, 0])


@pytest.mark.parametrize("position", [0, 2])
def test_a_row_draws_the_same_whatever_the_others_ask_for(position):
    logits = jax.random.normal(jax.random.key(1), (3, 300))
    seen, index = jnp.zeros((3, 300), bool), jnp.asarray([5, 6, 7], jnp.int32)
    alone = sample(logits.T, seen, options(3, top_k=40), index)[1]
    busy = options(3, top_k=40)
    busy = busy._replace(
        temperature=busy.temperature.at[position].set(0.0),
        repetition_penalty=busy.repetition_penalty.at[position].set(3.0),
        top_p=busy.top_p.at[position].set(0.1),
    )
    assert int(sample(logits.T, seen, busy, index)[1]) == int(alone)


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.just(3), st.sampled_from([1, 128, 300])),  # each size is a program
        elements=st.sampled_from([-3.0, 0.0, 0.5, 2.0]),
    ),
    st.sampled_from([0.0, 1.0]),
)
def test_without_temperature_the_first_of_the_likeliest_is_taken(logits, temperature):
    """Alone, and beside a row that is drawn."""
    given_ = options(3, temperature=0.0)
    given_ = given_._replace(temperature=given_.temperature.at[1].set(temperature))
    found = np.asarray(sample(jnp.asarray(logits).T, jnp.zeros(logits.shape, bool), given_, jnp.zeros(3, jnp.int32)))
    np.testing.assert_array_equal(found[[0, 2]], np.argmax(logits, axis=1)[[0, 2]])
    assert 0 <= found[1] < logits.shape[1]


def test_logits_that_are_no_numbers_still_give_a_token():
    logits = jnp.full((130, 2), jnp.nan)
    found = sample(logits, jnp.zeros((2, 130), bool), options(2, temperature=0.0), jnp.zeros(2, jnp.int32))
    assert (np.asarray(found) < 130).all()


def test_keys_and_places_give_other_draws():
    logits = jnp.zeros((200, 1000))
    seen = jnp.zeros((200, 1000), bool)
    first, second, third = (
        np.asarray(sample(logits.T, seen, options(200, key=key), jnp.full(200, at, jnp.int32)))
        for key, at in ((0, 0), (0, 1), (1, 0))
    )
    assert len(set(first)) > 150
    assert np.mean(first == second) < 0.05
    assert np.mean(first == third) < 0.05


def test_log_probs_are_those_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=(2, 5, 30)).astype(np.float32) * 4
    expected = logits - scipy.special.logsumexp(logits.astype(np.float64), axis=-1, keepdims=True)
    tokens = np.random.default_rng(1).integers(0, 30, (2, 5))
    chosen = np.take_along_axis(expected, tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(log_probs(jnp.asarray(logits), jnp.asarray(tokens)), chosen, atol=1e-5)
    ids, values = top_log_probs(jnp.asarray(logits), 4)
    np.testing.assert_array_equal(ids, np.argsort(-expected, axis=-1)[..., :4])
    np.testing.assert_allclose(values, -np.sort(-expected, axis=-1)[..., :4], atol=1e-5)
