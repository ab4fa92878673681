"""The output head and its loss in one operation, so that the logits of a whole batch need not exist."""

from aya_jax.kernels.cross_entropy.dispatch import (
    TILE_LOGITS,
    choose,
    linear_cross_entropy,
    linear_statistics,
    mean_logit,
)
from aya_jax.kernels.cross_entropy.operation import GRADIENT_PIECE

__all__ = ["GRADIENT_PIECE", "TILE_LOGITS", "choose", "linear_cross_entropy", "linear_statistics", "mean_logit"]
