"""What `aya generate` reads, asks and writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.inference.config import LocalModelConfig, SamplingConfig
from aya_jax.inference.remote_config import RemoteModelConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Root of `aya generate`: answers to one prompt, or to the rows of a JSONL file.

    Attributes:
      model: what answers: a model on this machine, or an endpoint on the network.
      prompt: one prompt; the answer is printed. Bind PROMPT.
      chat: the prompt is what a user says in a conversation, and the model's chat template is put around it; without a
        prompt or a file, a conversation in the terminal. `--chat` sets it.
      input: a .jsonl or .jsonl.gz file; a row has `prompt` (a text), `messages` (role and content) or, in a conversation,
        `turns` (what the user says, turn by turn), and may have `id` and `sampling` (fields of SamplingConfig that differ for
        it). Bind INPUT.
      output: the .jsonl file to write: the input's rows in their order, each with `completions`. Bind OUTPUT.
      sampling: how the next token is chosen, and when to stop; each row of a file has a seed of its own that follows from this
        one and the row's number.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("output",)

    model: LocalModelConfig | RemoteModelConfig = field()
    prompt: str | None = None
    chat: bool = False
    input: str | None = None
    output: str | None = None
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @property
    def alone(self) -> str | None:
        """Why several processes cannot do this together; None: they can."""
        if isinstance(self.model, RemoteModelConfig):
            return "an endpoint is asked by one process"
        return "a conversation is with one process" if self.prompt is None and self.input is None else None

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing, or given twice."""
        if self.prompt is None and self.input is None and not self.chat:
            yield Problem(
                "prompt", "a prompt, or a file of them: add --gin.PROMPT=... or --gin.INPUT=... --gin.OUTPUT=..."
            )
        if self.prompt is not None and self.input is not None:
            yield Problem("prompt", "either a prompt or an input file")
        if self.input is not None and self.output is None:
            yield Problem("output", "the file to write: add --gin.OUTPUT=...")
