"""The merges that a search may propose: all of them in order, or those that an evolution comes to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from aya_jax.config import UserError
from aya_jax.merging.config import MergeConfig
from aya_jax.merging.search_config import PER_MODEL, SEARCHED, Choice, MergeSearchConfig

Fields = dict[str, Any]
"""Of a `MergeConfig`: the method, and the numbers that it has use for."""

_BY_LAYER = ("weights", "t")


class Dim(NamedTuple):
    """One number to choose.

    Attributes:
      field: of `MergeConfig`.
      model: whose it is; None: of no model.
      point: of the gradient over layers, from 0.
      choice: what it is chosen from.
    """

    field: str
    model: int | None
    point: int
    choice: Choice

    @property
    def name(self) -> str:
        """Another for each."""
        return f"{self.field}/{'' if self.model is None else self.model}/{self.point}"


def dims(config: MergeSearchConfig, fields: Sequence[str] = SEARCHED) -> list[Dim]:
    """The numbers of these fields."""
    found = []
    for field in fields:
        points = config.layer_points if field in _BY_LAYER else 1
        for number, choice in enumerate(config.choices(field)):
            found += [Dim(field, number if field in PER_MODEL else None, at, choice) for at in range(points)]
    return found


def fields_of(config: MergeSearchConfig, method: str, chosen: dict[str, float]) -> Fields:
    """What `MergeConfig` is bound to, from chosen numbers by the names of their dims, of which a method takes what it uses."""
    found: Fields = {"method": method}
    merged = _merged(config, method)
    for field in used(method):
        values: dict[int | None, list[float]] = {}
        for dim in dims(config, (field,)):
            values.setdefault(dim.model, []).append(chosen[dim.name])
        each = {model: numbers[0] if len(numbers) == 1 else tuple(numbers) for model, numbers in values.items()}
        found[field] = each[None] if None in each else tuple(each[model] for model in merged)
    return found


def lowest(config: MergeSearchConfig, method: str) -> Fields:
    """The first value of each choice, of a method by name; of an unknown method, nothing."""
    from aya_jax.merging.methods import METHODS

    if method not in METHODS:
        return {}
    first = {dim.name: values(dim.choice, 2)[0] for dim in dims(config, used(method))}
    return {name: value for name, value in fields_of(config, method, first).items() if name != "method"}


def used(method: str) -> tuple[str, ...]:
    """The fields that a method has use for and a search can vary."""
    uses = MergeConfig.uses(method)
    return tuple(field for field in SEARCHED if uses[field])


def values(choice: Choice, count: int | None = None) -> tuple[float, ...]:
    """The values of a choice; of a range its own number of them, or `count`."""
    if choice[0] != "range":
        return choice
    low, high, *own = choice[1:]
    return tuple(float(value) for value in np.linspace(low, high, own[0] if own else count))


def grid(config: MergeSearchConfig) -> Iterator[Fields]:
    """Every combination, method by method, the last number the quickest to change."""
    for method in config.methods:
        own = dims(config, used(method))
        for combination in itertools.product(*(values(dim.choice) for dim in own)):
            yield fields_of(config, method, dict(zip((dim.name for dim in own), combination, strict=True)))


def identity(fields: Fields) -> str:
    """The same for two proposals that are one merge: weights of an average count by their ratios only."""
    fields = dict(fields)
    weights = fields.get("weights", ())
    if fields["method"] == "linear" and all(isinstance(weight, float) for weight in weights) and sum(weights):
        fields["weights"] = [round(weight / sum(weights), 12) for weight in weights]
    return json.dumps(fields, sort_keys=True)


class Evolution:
    """Proposals of NSGA-II (Deb et al. 2002), by Optuna: after the first generation children of those that nothing surpasses.

    Proposals follow from the seed and from what was told of those before, so a search that was killed is told again what it
    knows and goes on as it would have.
    """

    def __init__(self, config: MergeSearchConfig, minimize: Sequence[bool]):
        """Begins.

        Args:
          config: of the search.
          minimize: of each objective, whether less is better.

        Raises:
          UserError: Optuna is not installed.
        """
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise UserError("an evolutionary search needs Optuna: pip install 'aya_jax[merge]'") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._failed = config, optuna.trial.TrialState.FAIL
        self._dims = [dim for dim in dims(config) if any(dim.field in used(method) for method in config.methods)]
        sampler = optuna.samplers.NSGAIISampler(population_size=config.population, seed=config.seed)
        directions = ["minimize" if each else "maximize" for each in minimize]
        self._study = optuna.create_study(directions=directions, sampler=sampler)

    def __call__(self) -> Iterator[tuple[Fields, Callable[[Sequence[float] | None], None]]]:
        """Yields proposals, and for each a function to be told of its objectives; of None where it cannot be measured."""
        for _ in range(self._config.trials):
            trial = self._study.ask()
            method = trial.suggest_categorical("method", self._config.methods)
            chosen = {dim.name: self._suggest(trial, dim) for dim in self._dims}

            def tell(found: Sequence[float] | None, trial: Any = trial) -> None:
                if found is None:
                    self._study.tell(trial, state=self._failed)
                else:
                    self._study.tell(trial, list(found))

            yield fields_of(self._config, method, chosen), tell

    def _suggest(self, trial: Any, dim: Dim) -> float:
        if dim.choice[0] == "range" and len(dim.choice) == 3:
            return trial.suggest_float(dim.name, *dim.choice[1:])
        return trial.suggest_categorical(dim.name, values(dim.choice))


def _merged(config: MergeSearchConfig, method: str) -> tuple[int, ...]:
    """The numbers of the models that per-model fields of a method are of: all but the base."""
    models = config.merge_config({"method": method}).merged()[1]
    return tuple(number for number, name in enumerate(config.models) if name in models)
