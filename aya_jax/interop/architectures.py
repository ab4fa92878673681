"""Whose tensor is whose: our parameters and those of Hugging Face's architectures, as one table of rules.

Ours are input-first and stacked over layers (`models/modules.py`); theirs are output-first, one tensor to a layer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from aya_jax.models.config import TransformerConfig

COHERE, COHERE2, LLAMA = "CohereForCausalLM", "Cohere2ForCausalLM", "LlamaForCausalLM"
ARCHITECTURES = (COHERE, COHERE2, LLAMA)
_LAYER = "model.layers.{}."
_STRIP = 64  # rows that are turned at a time


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one of our parameters lies in Hugging Face's tensors.

    Attributes:
      path: ours, "layers/attention/query".
      name: theirs; "{}" stands for the layer.
      inputs: how many of our dims (of one layer) are summed over in the product; 0: the tensor is the same in both.
    """

    path: str
    name: str
    inputs: int = 0

    @property
    def stacked(self) -> bool:
        """Whether ours has all layers in one array."""
        return "{}" in self.name

    def to_ours(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of theirs as (one layer of) our parameter, of this shape."""
        return (transposed(array) if self.inputs else array).reshape(shape)

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """(One layer of) our parameter as their tensor."""
        if not self.inputs:
            return array
        return transposed(array.reshape(math.prod(array.shape[: self.inputs]), -1))

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their tensor, from (one layer of) ours."""
        if not self.inputs:
            return shape
        return math.prod(shape[self.inputs :]), math.prod(shape[: self.inputs])


def transposed(array: np.ndarray) -> np.ndarray:
    """A matrix the other way round, in its own memory.

    By strips of rows. Where it can, entries that will lie side by side are first put into words of eight bytes, which are then
    turned: two to three times as fast as entry by entry, since a write to memory far apart costs the same for either.
    """
    bits = array.view(f"u{array.dtype.itemsize}")
    rows, columns = bits.shape
    result = np.empty((columns, rows), bits.dtype)
    per_word = 8 // bits.dtype.itemsize
    if rows % per_word:
        for start in range(0, rows, _STRIP):
            result[:, start : start + _STRIP] = bits[start : start + _STRIP].T
        return result.view(array.dtype)
    words, block = result.view(np.uint64), np.empty((_STRIP // per_word, columns, per_word), bits.dtype)
    for start in range(0, rows, _STRIP):
        strip = bits[start : start + _STRIP]
        count, at = len(strip) // per_word, start // per_word
        for number in range(per_word):
            block[:count, :, number] = strip[number::per_word]
        words[:, at : at + count] = block[:count].view(np.uint64)[..., 0].T
    return result.view(array.dtype)


def architecture_of(config: TransformerConfig) -> str:
    """The architecture that computes what this configuration says."""
    if config.block == "sequential":
        return LLAMA
    return COHERE2 if config.sliding_window is not None else COHERE


def rules(config: TransformerConfig) -> Iterator[Rule]:
    """A rule for every parameter of the model."""
    yield Rule("embedding/table", "model.embed_tokens.weight")
    yield Rule("final_norm/scale", "model.norm.weight")
    if not config.tie_embeddings:
        yield Rule("head/table", "lm_head.weight")
    if config.block == "parallel":
        yield Rule("layers/norm/scale", f"{_LAYER}input_layernorm.weight")
    else:
        yield Rule("layers/attention_norm/scale", f"{_LAYER}input_layernorm.weight")
        yield Rule("layers/mlp_norm/scale", f"{_LAYER}post_attention_layernorm.weight")
    for ours, theirs, inputs in (("query", "q", 1), ("key", "k", 1), ("value", "v", 1), ("output", "o", 2)):
        yield Rule(f"layers/attention/{ours}", f"{_LAYER}self_attn.{theirs}_proj.weight", inputs)
    if config.qk_norm:
        yield Rule("layers/attention/query_norm/scale", f"{_LAYER}self_attn.q_norm.weight")
        yield Rule("layers/attention/key_norm/scale", f"{_LAYER}self_attn.k_norm.weight")
    for name in ("gate", "up", "down"):
        yield Rule(f"layers/mlp/{name}", f"{_LAYER}mlp.{name}_proj.weight", 1)
