import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.training.config import OptimizerConfig, ScheduleConfig
from aya_jax.training.schedules import learning_rate

STEPS, PEAK, FINAL = 200, 3e-3, 1e-5


def rates(steps=STEPS, peak=PEAK, **schedule):
    config = OptimizerConfig(learning_rate=peak, schedule=ScheduleConfig(**schedule))
    return np.asarray(learning_rate(config, steps)(jnp.arange(1001)))[: steps + 1]  # one shape: compiled once


@pytest.mark.parametrize("warmup", [0, 1, 30])
def test_cosine_is_optax_after_warmup(warmup):
    ours = rates(kind="cosine", warmup_steps=warmup, final_learning_rate=FINAL)
    theirs = optax.warmup_cosine_decay_schedule(0.0, PEAK, warmup, STEPS, FINAL)
    steps = np.arange(warmup, STEPS + 1)
    np.testing.assert_allclose(ours[warmup:], [theirs(step) for step in steps], rtol=1e-5, atol=1e-10)


def test_warmup_begins_above_zero_and_ends_at_the_peak():
    ours = rates(kind="constant", warmup_steps=4)
    np.testing.assert_allclose(ours[:6], PEAK * np.array([0.25, 0.5, 0.75, 1, 1, 1]), rtol=1e-6)


def test_linear_is_a_straight_line():
    ours = rates(kind="linear", final_learning_rate=FINAL)
    np.testing.assert_allclose(ours, np.linspace(PEAK, FINAL, STEPS + 1), rtol=1e-5)


def test_wsd_is_flat_then_optax_linear():
    ours = rates(kind="wsd", warmup_steps=10, decay_steps=50, final_learning_rate=FINAL)
    np.testing.assert_allclose(ours[10:151], PEAK, rtol=1e-6)
    theirs = optax.linear_schedule(PEAK, FINAL, 50, transition_begin=150)
    np.testing.assert_allclose(ours[150:], [theirs(step) for step in range(150, STEPS + 1)], rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["constant", "cosine", "linear", "wsd"]),
    steps=st.integers(4, 1000),
    warmup=st.floats(0, 1),
    peak=st.floats(1e-6, 1.0),
)
def test_laws(kind, steps, warmup, peak):
    """Never above the peak nor below the final rate (or the first step of warm-up); never rises after warm-up."""
    warmup_steps = int(warmup * (steps // 2))
    decay = {"decay_steps": max(1, steps // 4)} if kind == "wsd" else {}
    ours = rates(steps, peak, kind=kind, warmup_steps=warmup_steps, final_learning_rate=peak / 10, **decay)
    assert np.all(ours <= peak * (1 + 1e-6))
    assert np.all(ours > 0)
    assert np.all(np.diff(ours[: warmup_steps or 1]) > 0)
    assert np.all(np.diff(ours[warmup_steps:]) <= peak * 1e-6)
    if kind != "constant":
        assert ours[-1] == pytest.approx(peak / 10, rel=1e-5)
