import math
from email.utils import formatdate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.inference.remote_pace import Pace, backoff, wait_asked_for

NOW = 1_700_000_000.0
CALLS = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5000)), min_size=1, max_size=60)


def begun(pace, calls):
    """When each call begins: callers come one after the other, so many seconds apart."""
    now, times = 1000.0, []
    for gap, tokens in calls:
        now += gap
        times.append(pace.reserve(now, tokens))
        assert times[-1] >= now
    return np.array(times)


@given(calls=CALLS, limit=st.floats(0.5, 600))
def test_never_more_requests_than_allowed_in_any_minute(calls, limit):
    times = begun(Pace(limit, None), calls)
    for start in times:
        assert np.sum((times >= start) & (times < start + 60 - 1e-6)) <= math.ceil(limit)


@given(calls=CALLS, limit=st.floats(100, 100_000), requests=st.none() | st.floats(1, 600))
def test_tokens_of_any_minute_stay_within_the_limit_and_the_last_call(calls, limit, requests):
    times = begun(Pace(requests, limit), calls)
    tokens = np.array([tokens for _, tokens in calls])
    for start in times:
        inside = tokens[(times >= start) & (times < start + 60 - 1e-6)]
        assert inside[:-1].sum() <= limit * (1 + 1e-9)


@given(calls=CALLS, limit=st.floats(0.5, 600))
def test_the_limit_is_used(calls, limit):
    """Nobody waits longer than the spacing demands: each call begins when it comes, or 60 / limit after the one before."""
    times = begun(Pace(limit, None), calls)
    arrivals = 1000.0 + np.cumsum([gap for gap, _ in calls])
    earliest = np.maximum(arrivals[1:], times[:-1] + 60 / limit)
    np.testing.assert_allclose(times[1:], earliest, rtol=0, atol=1e-6)
    assert times[0] == pytest.approx(arrivals[0])


@given(calls=CALLS)
def test_without_limits_nobody_waits(calls):
    arrivals = 1000.0 + np.cumsum([gap for gap, _ in calls])
    np.testing.assert_allclose(begun(Pace(None, None), calls), arrivals, rtol=0, atol=1e-9)


def test_nobody_begins_while_it_is_held():
    pace = Pace(60.0, None)
    assert pace.reserve(0.0, 1) == 0
    pace.hold(50.0)
    pace.hold(20.0)
    assert [pace.reserve(2.0, 1), pace.reserve(3.0, 1), pace.reserve(99.0, 1)] == [50, 51, 99]


@given(
    attempt=st.integers(0, 5000), least=st.floats(1e-3, 10), factor=st.floats(1, 1e6), fraction=st.floats(0, 0.999999)
)
def test_backoff_is_a_random_part_of_a_doubling_bound(attempt, least, factor, fraction):
    most = least * factor
    pause = backoff(attempt, least, most, fraction)
    assert 0 <= pause <= most
    assert backoff(attempt, least, most, 0.0) == 0
    if attempt < 30:
        assert pause == pytest.approx(fraction * min(most, least * 2**attempt))
    assert backoff(attempt + 1, least, most, fraction) >= pause


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "5"}, 5),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e99"}, None),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"retry-after": "Wed, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7"}, 7),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "1h2m3.5s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "later"}, None),
    ],
)
def test_when_to_come_back(headers, seconds):
    assert wait_asked_for(headers, NOW) == (None if seconds is None else pytest.approx(seconds))
