"""What `aya merge_diagnose` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.parallel.config import MeshConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class MergeDiagnoseConfig:
    """Root of `aya merge_diagnose`: what models changed of their base, and where they pull it in different directions.

    Attributes:
      run_dir: where diagnostics.json and diagnostics.html go; bind RUN_DIR.
      models: as MergeConfig.models; bind MODELS.
      base: the model that they were made from; bind BASE.
      density: the share of each tensor's changes that stays where signs are compared after trimming, as TIES trims.
      mesh: what tensors are divided over.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("run_dir", "mesh")

    run_dir: str
    models: tuple[str, ...]
    base: str
    density: float = 0.2
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, out of range, or given twice."""
        if not self.run_dir:
            yield Problem("run_dir", "a directory: add --gin.RUN_DIR=...")
        if not self.base:
            yield Problem("base", "the model that the others were made from: add --gin.BASE=...")
        if not self.models:
            yield Problem("models", "models that were made from the base: add --gin.MODELS=\"('a', 'b')\"")
        named = [self.base, *self.models]
        for twice in sorted({name for name in named if named.count(name) > 1}):
            yield Problem("models", f"each model once; {twice} is given twice")
        if not 0 < self.density < 1:
            yield Problem("density", "a share above 0, less than 1")
