"""What a model is made of, and in which precision it runs."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from aya_jax.config.registry import Problem, configurable


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder-only transformer: Cohere (the defaults), Cohere2 or Llama 3.

    Attributes:
      vocab_size: rows of the token table.
      embed_dim: the model width D.
      num_layers: layers.
      num_heads: query heads H.
      num_kv_heads: key and value heads; each serves num_heads / num_kv_heads query heads.
      head_dim: the width of one head.
      mlp_dim: the inner width of the SwiGLU feed-forward part (of the gate and of the up projection each).
      max_sequence_length: the longest sequence the model is meant for, in tokens.
      block: "parallel": x + attention(norm(x)) + mlp(norm(x)), one norm (Cohere); "sequential": attention, then the
        feed-forward part, each with its own norm (Llama).
      norm: "layer_norm": mean removed, weight, no bias (Cohere); "rms_norm" (Llama). Both in float32.
      norm_eps: added to the variance.
      rope_theta: base of the rotary wavelengths.
      rope_layout: which dims of a head are rotated together: "interleaved", (0, 1), (2, 3)... (Cohere); "half",
        (0, hd/2), (1, hd/2 + 1)... (Llama).
      rope_scaling: "llama3" stretches the long wavelengths for longer sequences (Llama 3.1); "none".
      rope_scaling_factor: with "llama3": by how much the longest wavelengths are stretched.
      rope_low_frequency_factor: wavelengths above rope_original_length / this are stretched in full.
      rope_high_frequency_factor: wavelengths below rope_original_length / this are kept.
      rope_original_length: the sequence length before stretching, in tokens.
      qk_norm: normalises queries and keys per head before rotation (Command R+).
      tie_embeddings: the output head is the token table.
      logit_scale: logits are multiplied by this.
      sliding_window: a query sees this many keys, itself included; None: all before it.
      sliding_window_pattern: every n-th layer sees everything, the others the window (Cohere2: 4); None: all layers
        are alike.
      rope_on_full_layers: whether those n-th layers rotate; False leaves them without positions (Cohere2).
      initializer_range: standard deviation of the normal distribution that matrices start from.
    """

    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    max_sequence_length: int = 8192
    block: Literal["parallel", "sequential"] = "parallel"
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_layout: Literal["interleaved", "half"] = "interleaved"
    rope_scaling: Literal["none", "llama3"] = "none"
    rope_scaling_factor: float = 8.0
    rope_low_frequency_factor: float = 1.0
    rope_high_frequency_factor: float = 4.0
    rope_original_length: int = 8192
    qk_norm: bool = False
    tie_embeddings: bool = True
    logit_scale: float = 1.0
    sliding_window: int | None = None
    sliding_window_pattern: int | None = None
    rope_on_full_layers: bool = True
    initializer_range: float = 0.02

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every size out of range and every pair of sizes that do not fit."""
        sizes = ("vocab_size", "embed_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_dim")
        for name in (*sizes, "max_sequence_length", "rope_original_length"):
            if getattr(self, name) < 1:
                yield Problem(name, "a positive number")
        for name in ("norm_eps", "rope_theta", "logit_scale", "initializer_range", "rope_scaling_factor"):
            if not getattr(self, name) > 0:
                yield Problem(name, "a number above 0")
        if self.num_kv_heads >= 1 and self.num_heads % self.num_kv_heads:
            yield Problem("num_kv_heads", f"a divisor of num_heads = {self.num_heads}")
        if self.head_dim % 2:
            yield Problem("head_dim", "an even number: rotary embedding turns dims in pairs")
        if self.rope_high_frequency_factor <= self.rope_low_frequency_factor:
            yield Problem(
                "rope_high_frequency_factor",
                f"a number above rope_low_frequency_factor = {self.rope_low_frequency_factor}",
            )
        yield from self._validate_window()

    def _validate_window(self) -> Iterator[Problem]:
        if self.sliding_window is not None and self.sliding_window < 1:
            yield Problem("sliding_window", "a positive number of keys, or None for full attention")
        if self.sliding_window_pattern is None:
            if not self.rope_on_full_layers:
                yield Problem("rope_on_full_layers", "True unless sliding_window_pattern makes some layers full")
            return
        if self.sliding_window is None:
            yield Problem("sliding_window", "a number of keys, since sliding_window_pattern is set")
        if self.sliding_window_pattern < 2:
            yield Problem("sliding_window_pattern", "2 or more, or None when all layers are alike")
        elif self.num_layers % self.sliding_window_pattern:
            yield Problem("sliding_window_pattern", f"a divisor of num_layers = {self.num_layers}")


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Number formats, what is recomputed in the backward pass, and which kernels compute.

    Norms, softmax, log-sum-exp and rotations are float32 whatever is chosen here.

    Attributes:
      params: how parameters (and so gradients and optimizer moments) are held.
      compute: what parameters and activations are cast to inside the model.
      matmul: how products with the layers' weights are computed: "compute": in the compute format; "int8" or "fp8":
        quantized, forward and backward, through qwix. The head and attention's own products are never quantized.
      remat: what the backward pass recomputes: "none": nothing, "dots": all but matrix products, "full": every layer
        from its input, "offload": the same, and the layers' inputs wait in the host's memory.
      unroll: layers laid out in a row in the compiled program instead of a loop over them; None: all on CPU, where a
        loop copies each layer's weights and activations, and 1 elsewhere.
      attention: the name of an attention back-end (docs/kernels.md); None: the best that honours the mask here.
      cross_entropy: the same of the linear + cross-entropy.
    """

    params: Literal["float32", "bfloat16"] = "float32"
    compute: Literal["float32", "bfloat16"] = "float32"
    matmul: Literal["compute", "int8", "fp8"] = "compute"
    remat: Literal["none", "dots", "full", "offload"] = "none"
    unroll: int | None = None
    attention: str | None = None
    cross_entropy: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for a compute format finer than the parameters', or an unroll below 1."""
        if self.params == "bfloat16" and self.compute == "float32":
            yield Problem("compute", "bfloat16, since parameters are held in bfloat16")
        if self.unroll is not None and self.unroll < 1:
            yield Problem("unroll", "a positive number of layers, or None")


# Matrices of a layer → how many of their dims (of one layer) are summed over in the product.
MATRICES: Mapping[str, int] = {
    **{f"attention/{name}": 1 for name in ("query", "key", "value")},
    "attention/output": 2,
    **{f"mlp/{name}": 1 for name in ("gate", "up", "down")},
}


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Trains low-rank changes of a model's matrices in place of the matrices.

    Attributes:
      rank: r, the inner width of a change.
      alpha: a change is scaled by alpha / rank.
      matrices: names or patterns of the layers' matrices that are changed: "attention/query", "attention/*", "mlp/*".
    """

    rank: int = 16
    alpha: float = 32.0
    matrices: tuple[str, ...] = ("attention/*", "mlp/*")

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and patterns that match no matrix."""
        if self.rank < 1:
            yield Problem("rank", "at least 1")
        if not self.alpha > 0:
            yield Problem("alpha", "a number above 0")
        if not self.matrices:
            yield Problem("matrices", "at least one name or pattern")
        for pattern in self.matrices:
            if not fnmatch.filter(MATRICES, pattern):
                yield Problem("matrices", f"patterns of {', '.join(MATRICES)}; {pattern!r} matches none")

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied by."""
        return self.alpha / self.rank

    @property
    def names(self) -> tuple[str, ...]:
        """The matrices that are changed."""
        return tuple(name for name in MATRICES if any(fnmatch.fnmatchcase(name, each) for each in self.matrices))


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    """What `aya describe` reports on.

    Attributes:
      model: the model.
      precision: how it would be run.
      sequence_length: tokens per sequence; None: the model's longest.
      global_batch: sequences per step, over all devices.
      devices: devices that the state and the batch are divided over (FSDP).
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ()

    model: TransformerConfig
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    sequence_length: int | None = None
    global_batch: int = 1
    devices: int = 1

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for sizes out of range, and a sequence longer than the model."""
        for name in ("global_batch", "devices"):
            if getattr(self, name) < 1:
                yield Problem(name, "a positive number")
        if self.sequence_length is not None:
            if self.sequence_length < 1:
                yield Problem("sequence_length", "a positive number of tokens, or None for the model's longest")
            elif self.sequence_length > self.model.max_sequence_length:
                yield Problem(
                    "sequence_length", f"at most model.max_sequence_length = {self.model.max_sequence_length}"
                )
