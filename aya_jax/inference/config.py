"""How text is generated, and by what. Imports neither JAX nor TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from aya_jax.config.registry import Problem, configurable
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import MeshConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen, and when to stop.

    Filters apply in this order, as in transformers: repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
      max_tokens: at most so many new tokens.
      temperature: logits are divided by this; 0 takes the likeliest token.
      top_k: only the k likeliest; 0 takes all.
      top_p: only the likeliest that together have this probability (Holtzman et al. 2020), at least one.
      min_p: only those at least this fraction as likely as the likeliest (Nguyen et al. 2024).
      repetition_penalty: logits of tokens that occur in the prompt or the output so far are divided by this where
        positive and multiplied where negative (Keskar et al. 2019); 1 changes nothing.
      seed: what the sample derives from, together with its number among `n`: the same request with the same seed gives
        the same text, whatever else is in the batch.
      n: samples of the prompt.
      stop: texts that end a sample; they are not part of it.
      stop_ids: token ids that end a sample, beside the model's own.
      ignore_stop_tokens: go on after the model's own stop tokens, up to max_tokens.
      log_probs: how many of the likeliest tokens to report at each place; 0: of the chosen one only; None: nothing.
      prompt_log_probs: report the prompt's tokens too.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_stop_tokens: bool = False
    log_probs: int | None = None
    prompt_log_probs: bool = False

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every number out of range."""
        if self.max_tokens < 1:
            yield Problem("max_tokens", "at least 1")
        if not 0 <= self.temperature < float("inf"):
            yield Problem("temperature", "0 (the likeliest token) or a positive number")
        if self.top_k < 0:
            yield Problem("top_k", "0 (all tokens) or a positive number of tokens")
        if not 0 < self.top_p <= 1:
            yield Problem("top_p", "above 0 and at most 1 (all tokens)")
        if not 0 <= self.min_p <= 1:
            yield Problem("min_p", "from 0 (all tokens) to 1")
        if not 0 < self.repetition_penalty < float("inf"):
            yield Problem("repetition_penalty", "a positive number; 1 changes nothing")
        if not 0 <= self.seed < 2**63:
            yield Problem("seed", "a whole number from 0 to 2^63 - 1")
        if self.n < 1:
            yield Problem("n", "at least 1")
        if any(not text for text in self.stop):
            yield Problem("stop", "texts of at least one character")
        if self.log_probs is not None and not 0 <= self.log_probs <= MAX_TOP_LOG_PROBS:
            yield Problem("log_probs", f"from 0 to {MAX_TOP_LOG_PROBS}, or None")


MAX_TOP_LOG_PROBS = 20


@configurable
@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The shape of the decode engine. Memory for the key-value cache is `slots` times `max_length` positions.

    Attributes:
      slots: samples that are worked on at the same time.
      max_length: the longest prompt and output together, in tokens; None: the model's longest sequence.
      prefill_chunk: prompt tokens of one sequence that are read at a time.
      prefill_rows: prompts that are read at the same time.
      prefill_chunks: chunks that are read, where prompts wait, between two blocks of decoding: many for the most tokens, few so
        that nobody who is getting tokens waits long.
      decode_steps: tokens that each sample gets in a block.
      cache_dtype: of keys and values; None: the model's compute format.
    """

    slots: int = 16
    max_length: int | None = None
    prefill_chunk: int = 128
    prefill_rows: int = 1
    prefill_chunks: int = 64
    decode_steps: int = 8
    cache_dtype: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every size below 1, and an unknown format."""
        for name in ("slots", "prefill_chunk", "prefill_rows", "prefill_chunks", "decode_steps"):
            if getattr(self, name) < 1:
                yield Problem(name, "a positive number")
        if self.prefill_rows > self.slots:
            yield Problem("prefill_rows", f"at most slots = {self.slots}")
        if self.max_length is not None and self.max_length < 2:
            yield Problem("max_length", "at least 2 tokens, or None for the model's longest sequence")
        if self.cache_dtype not in (None, "float32", "bfloat16"):
            yield Problem("cache_dtype", "'float32', 'bfloat16' or None")


def unattended() -> EngineConfig:
    """For many prompts and nobody who waits for the first tokens."""
    return EngineConfig(slots=64, decode_steps=16)


@configurable
@dataclass(frozen=True, kw_only=True)
class LocalModelConfig:
    """A model on this machine, and how it is run.

    Attributes:
      model_dir: a run directory, one of its checkpoints, a Hugging Face directory, or an adapter's; bind MODEL_DIR.
      adapter: a LoRA adapter in PEFT's format that is added to the weights; bind ADAPTER.
      engine: the shape of the decode engine.
      precision: number formats; None: bfloat16 on GPUs and TPUs, float32 on CPU.
      mesh: the shape of the device mesh; by default the matrices are divided over all devices.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    model_dir: str
    adapter: str | None = None
    engine: EngineConfig = field(default_factory=EngineConfig)
    precision: PrecisionConfig | None = None
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(fsdp=1, tensor=-1))
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for an empty name."""
        if not self.model_dir:
            yield Problem("model_dir", "a model: add --gin.MODEL_DIR=...")
