"""What is merged and how, whichever way it was said: the numbers of every tensor follow from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.merging import methods
from aya_jax.merging.config import MergeConfig
from aya_jax.merging.methods import METHODS, Method, Rescale
from aya_jax.merging.tensor import Settings
from aya_jax.merging.values import Value, Values, of_model, value_at
from aya_jax.training.checkpoint import FOLDER, finished


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A merge.

    Attributes:
      method: a name of `METHODS`.
      base: as the user named it; None where the method has none.
      models: beside the base.
      owner: the model whose small files (tokenizer, chat template, configuration) the result has, where nothing else is said.
      weights, densities, gammas, epsilons, t, scale, seed, dtype, tokenizer, chat_template: as in `MergeConfig`.
      normalize, rescale: as in `Settings`.
    """

    method: str
    base: str | None
    models: tuple[str, ...]
    owner: str
    weights: Values = 1.0
    densities: Values = 1.0
    gammas: Values = 0.01
    epsilons: Values = 0.15
    t: Value = 0.5
    scale: Value = 1.0
    normalize: bool
    rescale: Rescale
    seed: int = 0
    dtype: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None

    @property
    def about(self) -> Method:
        """The method."""
        return METHODS[self.method]

    @property
    def sources(self) -> tuple[str, ...]:
        """All models, the base first where there is one."""
        return self.models if self.base is None else (self.base, *self.models)

    def settings(self, name: str, num_layers: int) -> Settings:
        """The numbers of the method for one tensor.

        Raises:
          UserError: there are none: no rule is for this tensor, or they are none of the method's.
        """

        def number(field: str, value: Value) -> float:
            found = value_at(value, name, num_layers)
            if found is None:
                raise UserError(f"{field}: no rule is for {name}; end the rules with ('*', a number)")
            return found

        def each(field: str, values: Values) -> tuple[float, ...]:
            return tuple(number(field, of_model(values, at)) for at in range(len(self.models)))

        found = Settings(
            method=self.method,
            weights=each("weights", self.weights),
            densities=each("densities", self.densities),
            gammas=each("gammas", self.gammas),
            epsilons=each("epsilons", self.epsilons),
            t=number("t", self.t),
            scale=number("scale", self.scale),
            normalize=self.normalize,
            rescale=self.rescale,
        )
        _check(found, name)
        return found

    def as_record(self) -> dict[str, Any]:
        """All that it says, for merge.json."""
        return dataclasses.asdict(self)


def from_config(config: MergeConfig) -> Recipe:
    """The recipe that gin files give.

    Raises:
      UserError: the run directory has not the checkpoints that are asked for.
    """
    base, models = config.merged()
    if config.steps is not None:
        models = _checkpoints(Path(config.models[0]), config.steps)
    about, weights = METHODS[config.method], config.weights
    if config.decay is not None:
        weights = tuple(map(float, methods.moving_average(config.decay, len(models))))
    return Recipe(
        method=config.method,
        base=base,
        models=models,
        owner=base or models[0],
        weights=weights,
        densities=config.densities,
        gammas=config.gammas,
        epsilons=config.epsilons,
        t=config.t,
        scale=config.scale,
        normalize=about.normalize if config.normalize is None else config.normalize,
        rescale=about.rescale if config.rescale is None else config.rescale,
        seed=config.seed,
        dtype=config.dtype,
        tokenizer=config.tokenizer,
        chat_template=config.chat_template,
    )


def _checkpoints(run_dir: Path, steps: tuple[int, ...] | str) -> tuple[str, ...]:
    there = {int(path.name): path for path in finished(run_dir / FOLDER)}
    wanted = sorted(there) if steps == "all" else steps
    missing = [step for step in wanted if step not in there]
    if missing:
        raise UserError(
            f"{run_dir}: it has no checkpoint {missing[0]}; there are {', '.join(map(str, sorted(there))) or 'none'}"
        )
    if len(wanted) < 2:
        raise UserError(
            f"{run_dir}: it has {len(there)} checkpoints, and two or more are merged; CheckpointConfig.keep says how many stay"
        )
    return tuple(str(there[step]) for step in wanted)


def _check(found: Settings, name: str) -> None:
    about = found.about
    if found.method not in ("slerp", "model_stock"):
        normalized = found.normalize or found.method in ("karcher", "nuslerp")
        if normalized and abs(sum(found.weights)) < 1e-8:
            raise UserError(f"weights: they sum to zero for {name}, and cannot be made to sum to one; choose others")
    if about.sparsifier is None:
        return
    for density, epsilon in zip(found.densities, found.epsilons, strict=True):
        if not 0 < density <= 1:
            raise UserError(f"densities: {density} for {name}: expected a share above 0, at most 1")
        if about.sparsifier == "ranked" and density < 1 and not epsilon < density < 1 - epsilon:
            raise UserError(
                f"epsilons: {epsilon} with a density of {density} for {name}: their sum and difference are chances, which lie "
                "between 0 and 1; choose a smaller epsilon"
            )
