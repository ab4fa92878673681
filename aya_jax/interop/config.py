"""What `aya convert` converts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from aya_jax.config.registry import Problem, configurable


@configurable
@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Root of `aya convert`: a Hugging Face model to one of ours, or the other way round; the source says which.

    Attributes:
      source: a Hugging Face directory, a run directory, or one of its checkpoints; bind SOURCE.
      target: the directory to write; bind TARGET. What is there is replaced only if an earlier conversion wrote it.
      adapter: a LoRA adapter in PEFT's format that is merged into the weights; bind ADAPTER.
      adapter_alone: writes the source's adapter, which is not merged then, in PEFT's format.
      dtype: of the weights that are written; None: as they are.
      vocab_multiple: rows of zeros are added to the token table of one of our models until it has a multiple of so many
        rows, which a mesh may need; back to Hugging Face they are taken off again.
      shard_gb: the largest safetensors file, in 10^9 bytes.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ()

    source: str
    target: str
    adapter: str | None = None
    adapter_alone: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    vocab_multiple: int = 1
    shard_gb: float = 5.0

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty or out of range."""
        for name in ("source", "target"):
            if not getattr(self, name):
                yield Problem(name, f"a directory: add --gin.{name.upper()}=...")
        if self.vocab_multiple < 1:
            yield Problem("vocab_multiple", "at least 1")
        if not self.shard_gb > 0:
            yield Problem("shard_gb", "a size above 0")
