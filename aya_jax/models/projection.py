"""The matrix products between activations and weights, in the compute format or quantized.

Quantized products run through qwix: weights and activations are scaled to the range of the narrow format, one scale per
row or column, in the forward pass, and the incoming gradients likewise in the backward pass, for both products there
(Jacob et al. 2018, section 2, for int8; Micikevicius et al. 2022, FP8 Formats for Deep Learning, for e4m3). Weights, optimizer
and gradients of weights stay in the parameters' format.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aya_jax.config.errors import UserError
from aya_jax.models.config import PrecisionConfig

_FORMATS = {"int8": "int8", "fp8": "float8_e4m3fn"}


class Adapted(NamedTuple):
    """A matrix with a low-rank change (`low_rank.py`): weight + a b, the sum never made.

    Attributes:
      weight: [I..., O...].
      a: [I..., r].
      b: [r, O...], with the change's scale in it.
    """

    weight: jax.Array
    a: jax.Array
    b: jax.Array


def project(precision: PrecisionConfig, equation: str, inputs: jax.Array, weight: jax.Array | Adapted) -> jax.Array:
    """einsum(equation, inputs, weight) with the weight cast to the dtype of the inputs.

    Raises:
      UserError: quantization is asked for and qwix is not installed.
    """
    if isinstance(weight, Adapted):
        given, of_weight, wanted = re.split(",|->", equation)
        summed = "".join(letter for letter in of_weight if letter in given)
        free = "".join(letter for letter in of_weight if letter not in given)
        rows = "".join(letter for letter in given if letter not in of_weight)
        narrow = jnp.einsum(f"{given},{summed}r->{rows}r", inputs, weight.a.astype(inputs.dtype))
        change = jnp.einsum(f"{rows}r,r{free}->{wanted}", narrow, weight.b.astype(inputs.dtype))
        return project(precision, equation, inputs, weight.weight) + change
    weight = weight.astype(inputs.dtype)
    if precision.matmul == "compute":
        return jnp.einsum(equation, inputs, weight)
    return _quantized(equation, _FORMATS[precision.matmul]).apply({}, inputs, weight)


class _Product(nn.Module):
    """What qwix quantizes: it finds products by the module that they are in."""

    equation: str

    def __call__(self, inputs: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.einsum(self.equation, inputs, weight)


@functools.lru_cache
def _quantized(equation: str, dtype: str) -> Any:
    try:
        import qwix
    except ImportError as error:
        raise UserError(
            "PrecisionConfig.matmul = 'int8' or 'fp8' needs qwix: pip install 'aya_jax[quantization]'"
        ) from error
    rule = qwix.QtRule(module_path=".*", weight_qtype=dtype, act_qtype=dtype, bwd_qtype=dtype)
    return qwix.quantize_model(_Product(equation), qwix.QtProvider([rule]))
