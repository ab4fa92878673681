"""Which model a run trains, and what it minimises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aya_jax.config import UserError
from aya_jax.data.batches import BatchLoader
from aya_jax.models.low_rank import AdaptedModel, Model
from aya_jax.models.reward import RewardModel
from aya_jax.models.transformer import Transformer
from aya_jax.objectives.config import PolicyGradientConfig, PreferenceConfig, RewardConfig
from aya_jax.objectives.next_token import next_token
from aya_jax.objectives.policy_gradient import policy_gradient
from aya_jax.objectives.preference import preference
from aya_jax.objectives.reward import bradley_terry
from aya_jax.training.config import TrainConfig
from aya_jax.training.step import Objective


def make_model(config: TrainConfig) -> Model:
    """The run's model."""
    kind = RewardModel if isinstance(config.objective, RewardConfig) else Transformer
    model = kind(config.model, config.precision, config.mesh.logical_axes)
    return model if config.adapter is None else AdaptedModel(model, config.adapter)


def joining(model: Model) -> Callable[[Any, Any], Any]:
    """From what is trained and what is held still to the parameters that the model is called with."""
    return model.join if isinstance(model, AdaptedModel) else lambda params, _: params


def make_objective(config: TrainConfig, model: Model, num_tasks: int, *, held_out: bool = False) -> Objective:
    """The run's (params, batch, rng) -> (loss, metrics); what is measured of `held_out` rows alone costs training nothing."""
    common = {"num_tasks": num_tasks}
    if not isinstance(config.objective, RewardConfig):
        common["token_statistics"] = held_out or config.token_statistics
    match config.objective:
        case PreferenceConfig():
            return functools.partial(preference, model, config=config.objective, **common)
        case PolicyGradientConfig():
            return functools.partial(policy_gradient, model, config=config.objective, **common)
        case RewardConfig():
            return functools.partial(bradley_terry, model, config=config.objective, **common)
    return functools.partial(next_token, model, z_loss=config.z_loss, label_smoothing=config.label_smoothing, **common)


def check_stores(config: TrainConfig, loader: BatchLoader) -> None:
    """Refuses pairs where none are learnt from, and other documents where pairs are.

    Raises:
      UserError: as said.
    """
    for name, opened in zip(loader.task_names, loader.stores, strict=True):
        paired = opened.manifest.group == 2
        learns_pairs = isinstance(config.objective, PreferenceConfig | RewardConfig)
        if paired and not learns_pairs:
            raise UserError(
                f"{opened.directory}: task {name} has pairs of answers, and TrainConfig.objective learns from single "
                "ones: bind @PreferenceConfig() or @RewardConfig(), or prepare the chosen answers as conversations "
                "(TaskConfig.form = 'chat', TaskConfig.turns)"
            )
        if not paired and learns_pairs:
            raise UserError(
                f"{opened.directory}: task {name} has no pairs of answers to learn preferences from; prepare them with "
                "TaskConfig.form = 'preference'"
            )
