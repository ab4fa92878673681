"""Searching for the best merge: proposals, each merged in memory and measured there; every trial on disk as it ends.

A search that was killed goes on with the same trials: proposals follow from the seed and from the trials before, which stand in
`trials.jsonl`. A merge that was proposed before is not measured again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.config.files import write_atomic
from aya_jax.config.run_directory import RunDirectory
from aya_jax.merging import objectives
from aya_jax.merging.in_memory import Merger
from aya_jax.merging.measured import Goal, Measured, write_items
from aya_jax.merging.merge import write_beside
from aya_jax.merging.recipe import Recipe, from_config
from aya_jax.merging.search_config import MergeSearchConfig
from aya_jax.merging.space import Evolution, Fields, grid, identity
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.distributed import agree_on, check_same
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training import environment

TRIALS, ITEMS, BEST = "trials.jsonl", "items", "best.gin"
# Of MergeConfig: macros, and what is no recipe's.
_ELSEWHERE = ("models", "base", "weights", "target", "mesh", "scan", "compilation_cache")
_BESIDE, _SOURCES = "tokenizer", "sources.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One line of `trials.jsonl`.

    Attributes:
      number: from 0; its items are in `items/<number>.jsonl`.
      alone: the model that this is, unmerged; "" of a merge.
      fields: of `MergeConfig`, of a merge.
      same_as: the number of the trial that was the same merge.
      refused: why it could not be merged.
      goals: the objectives' numbers, by name.
      languages: by measurement and language.
      merge_seconds, measure_seconds: what it took.
    """

    number: int
    alone: str = ""
    fields: Fields = dataclasses.field(default_factory=dict)
    same_as: int | None = None
    refused: str = ""
    goals: Mapping[str, float] = dataclasses.field(default_factory=dict)
    languages: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    merge_seconds: float = 0.0
    measure_seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether it has numbers of its own."""
        return self.same_as is None and not self.refused


def search(resolved: Resolved[MergeSearchConfig], console: Console) -> list[Trial]:
    """Runs all trials that are not there yet, and writes the best recipe. Every process must call it; those of process 0 count.

    Returns:
      All trials, in order.

    Raises:
      UserError: the models do not fit together, an objective cannot be measured, or no proposal could be merged.
    """
    config = resolved.config
    use_compilation_cache(config.compilation_cache)
    first = jax.process_index() == 0
    with RunDirectory.open(config.run_dir, resolved, environment.describe(), writer=first) as directory:
        file = directory.path / TRIALS
        wanted = objectives.goals(config.objectives)
        known = agree_on([dataclasses.asdict(trial) for trial in read(file, cut=True)] if first else None)
        trials = Trials(file, [_trial(fields) for fields in known], wanted, console)
        trials.load = lambda: _workplace(config, directory.path, console)
        if config.singles:
            for name in dict.fromkeys([*([config.base] if config.base else []), *config.models]):
                trials.take(alone=name)
        if config.strategy == "grid":
            for fields in grid(config):
                trials.take(fields=fields)
        else:
            for fields, tell in Evolution(config, [goal.minimize for goal in wanted])():
                tell(trials.take(fields=fields))
        chosen = best(trials.done, wanted, config.choose)
        if first:
            write_atomic(directory.path / BEST, gin_of(config, chosen))
    return trials.done


class Trials:
    """The trials so far, and what makes more.

    Attributes:
      done: in order.
      load: opens the models and what measures them; called once, when the first trial is not there.
    """

    load: Callable[[], tuple[Callable[[Trial], Any], Sequence[objectives.Measure]]]

    def __init__(self, file: Path, known: Sequence[Trial], goals: Sequence[Goal], console: Console):
        """Begins.

        Args:
          file: of all trials.
          known: those in it.
          goals: the objectives.
          console: where each is told.
        """
        self.done: list[Trial] = []
        self._file, self._known, self._goals, self._console = file, list(known), goals, console
        self._first: dict[str, Trial] = {}
        self._work: tuple[Callable[[Trial], Any], Sequence[objectives.Measure]] | None = None
        if known:
            console.print(f"{len(known)} trials are there.", highlight=False)

    def take(self, *, alone: str = "", fields: Fields | None = None) -> list[float] | None:
        """The next trial's objectives: as they stand in the file, as of the same merge before, or measured now.

        Returns:
          Their numbers; None where it could not be merged, or one is not a number.

        Raises:
          UserError: the file has another trial in this place.
        """
        trial = Trial(len(self.done), alone, fields or {})
        key = f"alone {alone}" if alone else identity(trial.fields)
        if trial.number < len(self._known):
            trial = self._checked(trial)
        elif key in self._first:
            first = self._first[key]
            trial = dataclasses.replace(trial, same_as=first.number, refused=first.refused, goals=first.goals)
            self._write(trial)
        else:
            trial = _trial(agree_on(dataclasses.asdict(self._run(trial))))
            self._write(trial)
        self._first.setdefault(key, trial)
        self.done.append(trial)
        found = [trial.goals.get(goal.name, math.nan) for goal in self._goals]
        return None if trial.refused or not np.isfinite(found).all() else found

    def _checked(self, trial: Trial) -> Trial:
        known = self._known[trial.number]
        if (known.alone, json.dumps(known.fields)) != (trial.alone, json.dumps(trial.fields)):
            raise UserError(
                f"{self._file}, line {trial.number + 1}: another trial than this search would make there; use the versions "
                "that environment.json names, or start in another RUN_DIR"
            )
        return known

    def _run(self, trial: Trial) -> Trial:
        if self._work is None:
            self._work = self.load()
        params_of, measures = self._work
        start = time.perf_counter()
        try:
            params = jax.block_until_ready(params_of(trial))
        except UserError as error:
            if trial.alone:
                raise
            return dataclasses.replace(trial, refused=str(error))
        merged = time.perf_counter()
        found: dict[str, Measured] = {}
        for measure in measures:
            found |= measure(params)
        missing = [goal for goal in self._goals if goal.language and math.isnan(found[goal.measure].goal(goal))]
        if missing:
            known = ", ".join(found[missing[0].measure].languages)
            raise UserError(f"{missing[0].name}: this language was not measured; there are {known}")
        if jax.process_index() == 0:
            write_items(items_file(self._file.parent, trial.number), found)
        return dataclasses.replace(
            trial,
            goals={goal.name: found[goal.measure].goal(goal) for goal in self._goals},
            languages={name: dict(measured.languages) for name, measured in found.items()},
            merge_seconds=round(merged - start, 3),
            measure_seconds=round(time.perf_counter() - merged, 3),
        )

    def _write(self, trial: Trial) -> None:
        if jax.process_index():
            return
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(dataclasses.asdict(trial), ensure_ascii=False) + "\n")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in trial.goals.items()) or trial.refused
        before = "" if trial.same_as is None else f" (as trial {trial.same_as})"
        self._console.print(
            f"{trial.number}: {describe(trial)}{before}: {shown}", highlight=False, markup=False, soft_wrap=True
        )


def read(file: Path, *, cut: bool = False) -> list[Trial]:
    """The trials in a file; a last line that a kill has cut short is left out.

    Args:
      file: `trials.jsonl`; none are there where it is not.
      cut: remove such a line from the file, so that it can be added to.

    Raises:
      UserError: another line is no trial.
    """
    content = file.read_bytes() if file.is_file() else b""
    whole = content.rfind(b"\n") + 1
    if cut and whole < len(content):
        with file.open("r+b") as stream:
            stream.truncate(whole)
    found = []
    for number, line in enumerate(content[:whole].decode("utf-8").split("\n")[:-1], 1):
        try:
            found.append(_trial(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}, line {number}: not a trial ({error}); remove it and all after it") from error
    return found


def _trial(fields: dict[str, Any]) -> Trial:
    """What JSON made of it."""
    return Trial(**fields | {"fields": {name: _tuples(value) for name, value in fields["fields"].items()}})


def front(trials: Sequence[Trial], goals: Sequence[Goal]) -> list[Trial]:
    """The merges that no other is better than in one objective and at least as good as in all (Pareto's)."""
    merges = [trial for trial in trials if trial.measured and trial.fields]
    costs = _costs(merges, goals)
    merges = [trial for trial, cost in zip(merges, costs, strict=True) if np.isfinite(cost).all()]
    costs = _costs(merges, goals)
    return [
        trial
        for trial, cost in zip(merges, costs, strict=True)
        if not np.any(np.all(costs <= cost, axis=1) & np.any(costs < cost, axis=1))
    ]


def best(trials: Sequence[Trial], goals: Sequence[Goal], choose: str = "") -> Trial:
    """One of the front: the best by one objective, or the nearest to the best of each.

    Distances are Euclidean, each objective divided by its range over the front; of equals the first.

    Raises:
      UserError: nothing could be merged.
    """
    found = front(trials, goals)
    if not found:
        reasons = list(dict.fromkeys(trial.refused for trial in trials if trial.refused))
        raise UserError(f"no proposal could be merged and measured: {'; '.join(reasons[:3]) or 'there was none'}")
    costs = _costs(found, goals)
    if choose:
        return found[int(np.argmin(costs[:, [goal.name for goal in goals].index(choose)]))]
    spans = np.ptp(costs, axis=0)
    scaled = (costs - costs.min(axis=0)) / np.where(spans > 0, spans, 1.0)
    return found[int(np.argmin(np.sum(scaled**2, axis=1)))]


def _costs(trials: Sequence[Trial], goals: Sequence[Goal]) -> np.ndarray:
    """Objectives, less is better: float64 [trials, goals]."""
    rows = [[trial.goals[goal.name] * (1 if goal.minimize else -1) for goal in goals] for trial in trials]
    return np.array(rows, np.float64).reshape(len(trials), len(goals))


def describe(trial: Trial) -> str:
    """What it is, in a line."""
    if trial.alone:
        return trial.alone
    numbers = (f"{name} {_shown(value)}" for name, value in trial.fields.items() if name != "method")
    return ", ".join([trial.fields["method"], *numbers])


def items_file(folder: Path, number: int) -> Path:
    """Where the items of a trial are."""
    return folder / ITEMS / f"{number}.jsonl"


def gin_of(config: MergeSearchConfig, trial: Trial) -> str:
    """The recipe of a trial, as `aya merge` takes it."""
    merge = config.merge_config(trial.fields)
    goals = ", ".join(f"{name} {value:.6g}" for name, value in trial.goals.items())
    lines = [f"# Trial {trial.number} of a search: {goals}.", "#", "# Required: TARGET, the directory to write"]
    lines += [f"MODELS = {merge.models!r}", f"BASE = {merge.base!r}"]
    lines.append(f"WEIGHTS = {merge.weights!r}")
    for field in dataclasses.fields(merge):
        value = getattr(merge, field.name)
        if field.name not in _ELSEWHERE and value != field.default:
            lines.append(f"MergeConfig.{field.name} = {value!r}")
    return "\n".join(lines) + "\n"


def _workplace(
    config: MergeSearchConfig, folder: Path, console: Console
) -> tuple[Callable[[Trial], Any], Sequence[objectives.Measure]]:
    """What gives a trial's parameters, and what measures them."""
    mesh = make_mesh(config.mesh)
    warn = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    mixed = Recipe(
        method="linear", base=config.base, models=config.models, owner=config.base or config.models[0],
        normalize=True, rescale="none", dtype=config.dtype, tokenizer=config.tokenizer, chat_template=config.chat_template,
    )  # fmt: skip
    merger = Merger(
        mixed, mesh, config.precision, config.mesh.logical_axes, folder, warn, scan=config.scan, hold=config.hold
    )
    _check_digests(folder / _SOURCES, {source.name: source.digest for source in merger.first.sources})
    found = merger.first.owner.found
    if merger.first.tokenizer is not None or merger.first.template is not None:
        if jax.process_index() == 0:
            (folder / _BESIDE).mkdir(exist_ok=True)
            write_beside(merger.first, folder / _BESIDE)
        agree_on(None)  # the others read it when it is there
        found = dataclasses.replace(found, tokenizer=str(folder / _BESIDE), checkpoint=None)
    setting = objectives.Setting(merger.model, mesh, config, found, console)

    def params(trial: Trial) -> Any:
        if not trial.alone:
            return merger.params(merger.plan(from_config(config.merge_config(trial.fields))))
        position = mixed.sources.index(trial.alone)
        weights = tuple(float(number == position) for number in range(len(mixed.sources)))
        only = dataclasses.replace(mixed, base=None, models=mixed.sources, weights=weights, owner=mixed.owner)
        return merger.params(merger.plan(only))

    return params, objectives.measures(setting)


def _check_digests(file: Path, digests: Mapping[str, str]) -> None:
    """Refuses weights that are not those of the trials that are there; writes what they are where none are."""
    check_same(json.dumps(digests), "other weights")
    known = agree_on(json.loads(file.read_bytes()) if jax.process_index() == 0 and file.is_file() else None)
    if known is not None:
        for name, digest in digests.items():
            if known.get(name) != digest:
                raise UserError(
                    f"{name}: other weights than those of the trials in {file.parent}; start in another RUN_DIR"
                )
    elif jax.process_index() == 0:
        write_atomic(file, json.dumps(digests, indent=1) + "\n")


def _tuples(value: Any) -> Any:
    """What JSON made lists of."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{value:.4g}"
