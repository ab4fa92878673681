import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aya_jax.training.config import OptimizerConfig
from aya_jax.training.optimizer import clip_by_global_norm, decay_mask, make_optimizer

PARAMS = {
    "embedding": {"table": np.linspace(-1, 1, 12).reshape(4, 3)},
    "layers": {"norm": {"scale": np.ones(3)}, "mlp": {"up": np.linspace(2, -1, 9).reshape(3, 3)}},
}


def numpy_adamw(params, gradients, config, rate, decays):
    """Loshchilov and Hutter 2019, algorithm 2 with its schedule multiplier as the learning rate, in float64."""
    params = {name: value.copy() for name, value in params.items()}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    for t, gradient in enumerate(gradients, 1):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        scale = 1.0 if config.clip_norm is None or norm <= config.clip_norm else config.clip_norm / norm
        for name in params:
            g = gradient[name] * scale
            m[name] = config.beta1 * m[name] + (1 - config.beta1) * g
            v[name] = config.beta2 * v[name] + (1 - config.beta2) * g**2
            m_hat, v_hat = m[name] / (1 - config.beta1**t), v[name] / (1 - config.beta2**t)
            decay = config.weight_decay * params[name] if name in decays else 0.0
            params[name] = params[name] - rate * (m_hat / (np.sqrt(v_hat) + config.epsilon) + decay)
    return params


def flat(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float64)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}  # fmt: skip


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("decay_embeddings", [True, False])
def test_six_steps_equal_numpy_in_float64(clip_norm, decay_embeddings):
    config = OptimizerConfig(
        learning_rate=0.03, weight_decay=0.2, clip_norm=clip_norm, decay_embeddings=decay_embeddings
    )
    rng, rate = np.random.default_rng(0), 0.03
    gradients = [jax.tree.map(lambda x, k=k: rng.normal(size=x.shape) * 0.3 * k, PARAMS) for k in range(1, 7)]
    optimizer = make_optimizer(config)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS)
    state = optimizer.init(params)
    for gradient in gradients:
        gradient = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradient)
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
        direction, state = optimizer.update(clip_by_global_norm(gradient, norm, clip_norm), state, params)
        params = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    decays = {"layers/mlp/up"} | ({"embedding/table"} if decay_embeddings else set())
    expected = numpy_adamw(flat(PARAMS), [flat(gradient) for gradient in gradients], config, rate, decays)
    for name, value in flat(params).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_norm_weights_never_decay():
    assert decay_mask(PARAMS, True) == {
        "embedding": {"table": True},
        "layers": {"norm": {"scale": False}, "mlp": {"up": True}},
    }
    assert decay_mask(PARAMS, False)["embedding"]["table"] is False


@settings(max_examples=30, deadline=None)
@given(norm=st.floats(1e-3, 1e6), limit=st.floats(1e-2, 1e3))
def test_a_clipped_norm_is_at_most_the_limit_and_small_gradients_are_kept(norm, limit):
    gradient = np.full(4, norm / 2, np.float32)  # of norm `norm`
    clipped = np.asarray(clip_by_global_norm({"g": jnp.asarray(gradient)}, jnp.float32(norm), limit)["g"])
    assert np.linalg.norm(clipped) == pytest.approx(min(norm, limit), rel=1e-5)
