"""Arithmetic per token, the numerator of model FLOPs utilisation."""

from __future__ import annotations

from aya_jax.models.config import TransformerConfig
from aya_jax.models.layers import layer_kinds
from aya_jax.models.parameters import count


def attended(config: TransformerConfig, sequence_length: int) -> tuple[float, ...]:
    """Per layer, twice the mean number of keys that a query sees: S for causal attention, 2w - w^2 / S in a window."""
    kinds = layer_kinds(config)
    per_kind = [_attended(kind.window, sequence_length) for kind in kinds]
    return tuple(per_kind) * (config.num_layers // len(kinds))


def per_token(config: TransformerConfig, sequence_length: int) -> float:
    """FLOPs of the forward and backward passes per token of a full causal sequence.

    6 N + 6 H hd sum over layers of `attended`, with N the parameters without the input table (a tied table counts once,
    as the output head): two FLOPs per parameter forward and four backward (Kaplan et al. 2020, section 2.1), and two
    products of H * hd per query and key, halved by causality (Chowdhery et al. 2022, PaLM, appendix B, counts the
    square). Recomputation, norms and softmax do not count.
    """
    parameters = count(config).total
    if not config.tie_embeddings:
        parameters -= config.vocab_size * config.embed_dim
    return 6.0 * (parameters + config.num_heads * config.head_dim * sum(attended(config, sequence_length)))


def _attended(window: int | None, length: int) -> float:
    if window is None or window >= length:
        return float(length)
    return 2.0 * window - window**2 / length
