"""Attention over packed documents: one signature, several back-ends, none of which may drop a mask."""

from aya_jax.kernels.attention.dispatch import BACKENDS, attention, choose

__all__ = ["BACKENDS", "attention", "choose"]
