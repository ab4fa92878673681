"""Adapters that a run of ours has trained, as those of PEFT's files are: factors of a model's Hugging Face tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.interop.adapter import Adapter, Factors
from aya_jax.interop.architectures import rules
from aya_jax.interop.checkpoint_params import open_array
from aya_jax.models.config import TransformerConfig


def read_trained(path: Path, config: TransformerConfig, about: Mapping[str, Any]) -> Adapter:
    """The adapter of a checkpoint.

    Args:
      path: the checkpoint.
      config: of the model under it.
      about: what the checkpoint says of it: `base`, `scale` and `matrices` (`training.start`).

    Raises:
      UserError: a factor is not there.
    """
    by_path = {rule.path: rule for rule in rules(config)}
    factors = {}
    for matrix in about["matrices"]:
        rule = by_path[f"layers/{matrix}"]
        a, b = (open_array(path / "params", f"adapter/{matrix}/{name}").read().result() for name in ("a", "b"))
        rank = a.shape[-1]
        for layer in range(config.num_layers):
            # Ours are input-first: a [I..., r], b [r, O...]; theirs A [r, in], B [out, r].
            theirs = (
                np.ascontiguousarray(a[layer].reshape(-1, rank).T),
                np.ascontiguousarray(b[layer].reshape(rank, -1).T),
            )
            factors[rule.name.format(layer)] = Factors(*theirs, about["scale"])
    return Adapter(path, factors, {}, about["base"])


def combined(first: Adapter, second: Adapter) -> Adapter:
    """Both adapters as one: their changes add, as factors side by side."""
    factors = dict(first.factors)
    for name, more in second.factors.items():
        before = factors.get(name)
        if before is not None:
            a = np.concatenate([before.a, more.a]).astype(np.float32)
            b = np.concatenate([before.scale * before.b, more.scale * more.b], axis=1).astype(np.float32)
            more = Factors(a, b, 1.0)
        factors[name] = more
    return Adapter(second.path, factors, dict(first.replaced), first.base)
