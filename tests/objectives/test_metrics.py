import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.objectives.metrics import WeightedSum, add, by_task, mean


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), tasks=st.integers(1, 5))
def test_by_task_is_numpy_s_weighted_mean(seed, tasks):
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(2, 3, 7))
    weights = np.abs(weights) * (rng.random((3, 7)) > 0.3)
    ids = rng.integers(0, tasks, (3, 7))
    found = mean(by_task(*(jnp.asarray(x, jnp.float32) for x in (values, weights)), jnp.asarray(ids), tasks))
    for task in range(tasks):
        chosen = ids == task
        if weights[chosen].sum() == 0:
            assert np.isnan(found[task])
        else:
            np.testing.assert_allclose(
                found[task], np.average(values[chosen], weights=weights[chosen]), rtol=1e-4, atol=1e-5
            )


def test_parts_add_up_to_the_whole():
    values = jnp.arange(24.0).reshape(4, 6)
    weights, ids = values % 3, (values % 2).astype(jnp.int32)
    whole = {"m": by_task(values, weights, ids, 2)}
    parts = [{"m": by_task(values[i : i + 1], weights[i : i + 1], ids[i : i + 1], 2)} for i in range(4)]
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(total), strict=True))


def test_values_that_weigh_nothing_do_not_count_whatever_they_are():
    metric = by_task(jnp.array([[1.0, 5.0]]), jnp.array([[2.0, 0.0]]), jnp.zeros((1, 2), jnp.int32), 1)
    assert mean(metric) == 1.0
    assert np.isnan(mean(WeightedSum(np.float32(0), np.float32(0))))
