"""AdamW, from optax, without the learning rate: the step multiplies it in, so that it follows the run's own step count."""

from __future__ import annotations

from typing import Any

import jax
import optax

from aya_jax.training.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Turns clipped gradients into the direction of descent; parameters move by -learning_rate times it.

    Direction: m / (sqrt(v) + epsilon) + weight_decay * w, with bias-corrected moments (Loshchilov and Hutter 2019,
    algorithm 2).
    """
    return optax.chain(
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=lambda params: decay_mask(params, config.decay_embeddings)),
    )


def decay_mask(params: Any, decay_embeddings: bool) -> Any:
    """True for the parameters that decay: matrices, and token tables if asked; never norm weights."""

    def decays(path: tuple, _: Any) -> bool:
        name = path[-1].key
        return name != "scale" and (decay_embeddings or name != "table")

    return jax.tree_util.tree_map_with_path(decays, params)


def clip_by_global_norm(gradients: Any, norm: jax.Array, max_norm: float | None) -> Any:
    """Scales the gradients by max_norm / norm where the norm is above it (Pascanu et al. 2013, algorithm 1)."""
    if max_norm is None:
        return gradients
    factor = max_norm / jax.numpy.maximum(norm, max_norm)
    return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)
