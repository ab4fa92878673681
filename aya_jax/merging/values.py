"""The numbers of a merge: one for all tensors, a gradient over layers, or rules by a tensor's name."""

from __future__ import annotations

import re
from collections.abc import Iterator

Gradient = float | tuple[float, ...]
"""One number; or numbers that are spread evenly over the layers, from the first to the last, straight lines between them."""

Value = float | tuple[float, ...] | tuple[tuple[str, float | tuple[float, ...]], ...]
"""A gradient, or rules (pattern, gradient): the first holds whose pattern is a part of the name, as "*" is of all."""

Values = float | tuple[Value, ...]
"""One number for all models, or a value for each."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")


def value_at(value: Value, name: str, num_layers: int) -> float | None:
    """The number that a value has for a tensor; None where no rule holds for it.

    A gradient is read at t = layer / (num_layers - 1), at 1 where there is a single layer; tensors outside the layers have its
    first number (mergekit's way).

    Args:
      value: of a parameter.
      name: the tensor's.
      num_layers: of the model.
    """
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        for pattern, gradient in value:
            if pattern == "*" or pattern in name:
                return _interpolated(gradient, position(name, num_layers))
        return None
    return _interpolated(value, position(name, num_layers))


def position(name: str, num_layers: int) -> float:
    """Where in the model a tensor lies: from 0 for the first layer, and what is outside of layers, to 1 for the last."""
    layer = _LAYER.search(name)
    if layer is None:
        return 0.0
    return int(layer[1]) / (num_layers - 1) if num_layers > 1 else 1.0


def of_model(values: Values, model: int) -> Value:
    """The value of one of the models."""
    return values[model] if isinstance(values, tuple) else values


def numbers(value: Values | Value) -> Iterator[float]:
    """Every number that is written in a value."""
    if isinstance(value, tuple):
        for part in value:
            yield from numbers(part)
    elif not isinstance(value, str):
        yield value


def _interpolated(gradient: Gradient, t: float) -> float:
    if not isinstance(gradient, tuple):
        return gradient
    place = t * (len(gradient) - 1)
    low = int(place)
    high = min(low + 1, len(gradient) - 1)
    return (1 - (place - low)) * gradient[low] + (place - low) * gradient[high]
