"""What an evaluation measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import MeshConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Root of `aya evaluate`: loss and bits per byte of a trained model on held-out text, document by document.

    Attributes:
      model_dir: a run directory of `aya train`, one of its checkpoints, a converted model, or a Hugging Face directory; bind
        MODEL_DIR.
      adapter: a LoRA adapter in PEFT's format that is added to the weights; bind ADAPTER.
      run_dir: where the results go, below `evaluations/`; None: the model's own directory.
      name: of the results' files.
      tasks: names or patterns of the tasks to measure; every store with a held-out split may be named.
      store_dir: the token stores; None: those that the model was trained on. Bind STORE_DIR.
      sequence_length: tokens in a window; None: as in the training run, or where there is none the model's longest, at most
        2,048.
      batch: sequences scored at a time, rounded up to what the mesh divides; None: the training run's global batch, or 8.
      precision: number formats; None: those of the training run, or float32.
      max_tokens: at most so many tokens of each task, from its start; None takes all.
      mesh: the shape of the device mesh, whatever the model was trained on.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("model_dir", "adapter", "run_dir", "batch", "mesh")

    model_dir: str
    adapter: str | None = None
    run_dir: str | None = None
    name: str = "held_out"
    tasks: tuple[str, ...] = ("*",)
    store_dir: str | None = None
    sequence_length: int | None = None
    batch: int | None = None
    precision: PrecisionConfig | None = None
    max_tokens: int | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, and numbers below 1."""
        if not self.model_dir:
            yield Problem("model_dir", "a trained model: add --gin.MODEL_DIR=...")
        if not self.name or "/" in self.name:
            yield Problem("name", "a file name without folders")
        if not self.tasks:
            yield Problem("tasks", "at least one name or pattern; ('*',) is every task")
        for name in ("sequence_length", "batch", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")
