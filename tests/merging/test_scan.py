"""NaN and infinity, found where NumPy finds them."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.merging.scan import first_not_finite

DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_the_smallest_numbers_are_finite(dtype):
    info = ml_dtypes.finfo(dtype)
    array = np.array([[info.max, info.min], [info.tiny, -0.0]], dtype)
    assert first_not_finite(array) is None
    assert first_not_finite(np.empty((0, 4), dtype)) is None


@settings(deadline=None, max_examples=50)
@given(
    shape=st.sampled_from([(7,), (3, 5), (700, 401)]),
    places=st.lists(st.integers(0, 10**9), max_size=3),
    value=st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]),
    dtype=st.sampled_from(DTYPES),
    turned=st.booleans(),
)
def test_the_first_index_is_that_of_isfinite(shape, places, value, dtype, turned):
    array = np.random.default_rng(0).normal(0, 100, shape).astype(dtype)
    for place in places:
        array.reshape(-1)[place % array.size] = value
    array = array.T if turned else array
    wrong = np.argwhere(~np.isfinite(array.astype(np.float64)))
    assert first_not_finite(array) == (tuple(wrong[0]) if len(wrong) else None)
