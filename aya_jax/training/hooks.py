"""What is done with a model while it trains, by parts of the code that stand above training and that it does not know."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.models.transformer import Transformer
from aya_jax.training.config import HookConfig, TrainConfig


@dataclass(frozen=True)
class Setting:
    """Where a hook works.

    Attributes:
      config: of the run.
      model: that is trained; without a reward head or an adapter.
      mesh: that it runs on, and that is in context.
      console: for people.
    """

    config: TrainConfig
    model: Transformer
    mesh: Mesh
    console: Console


class Hook(Protocol):
    """Something that is done with the model now and then."""

    kind: str
    """Of its records in metrics.jsonl."""

    def measure(self, params: Any, step: int) -> dict[str, float]:
        """Does it, with parameters as training has them, and gives the numbers of a record. `params` is only lent."""
        ...


class Hooks:
    """The hooks of a run, and when each is due."""

    def __init__(self, configs: Sequence[HookConfig], setting: Setting):
        """Makes them, so that what they lack is said before the first step."""
        self._steps = setting.config.steps
        self._hooks = [(config.every, _load(config.HOOK)(config, setting)) for config in configs]

    def due(self, done: int) -> list[Hook]:
        """Those to run after step `done`: each every so many, and all after the last."""
        return [
            hook for every, hook in self._hooks if done > 0 and (done == self._steps or (every and done % every == 0))
        ]


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"TrainConfig.hooks: {path} needs {error.name}, which is not installed") from error
