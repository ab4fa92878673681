"""Attention over packed documents: one signature, several back-ends, none of which may drop a mask."""

from aya_jax.kernels.attention.dispatch import BACKENDS, Shape, attention, choose, interval_attention

__all__ = ["BACKENDS", "Shape", "attention", "choose", "interval_attention"]
