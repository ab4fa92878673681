"""Numbers of whole documents that objectives read beside tokens: margins, advantages, log-probabilities of a reference."""

from __future__ import annotations

from jax.sharding import Mesh
from rich.console import Console

from aya_jax.data.batches import BatchLoader
from aya_jax.models.transformer import Transformer
from aya_jax.objectives.config import ADVANTAGES, MARGINS, REFERENCE
from aya_jax.training.config import TrainConfig
from aya_jax.training.objective_validation import ObjectiveValidator
from aya_jax.training.reference import reference_log_probs

_STORED = (MARGINS, ADVANTAGES)  # the stores' own values, by the name that the objective knows them by


def attach_numbers(
    config: TrainConfig,
    model: Transformer,
    mesh: Mesh,
    loader: BatchLoader,
    validator: ObjectiveValidator,
    console: Console,
) -> None:
    """Gives the batches of training and of validation the fields that the run's objective reads.

    Raises:
      UserError: a store has no values, or the reference is not to be had.
    """
    parts = {"train": loader, "validation": validator}
    stores = {("train", task): opened for task, opened in zip(loader.task_names, loader.stores, strict=True)}
    stores |= {("validation", task): opened for task, opened in validator.stores.items()}
    for field in config.objective.fields:
        if field in _STORED:
            found = {key: opened.values() for key, opened in stores.items()}
        elif field == REFERENCE:
            found = reference_log_probs(config, model, mesh, stores, console)
        for split, part in parts.items():
            part.attach(field, {task: values for (of, task), values in found.items() if of == split})
