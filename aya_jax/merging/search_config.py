"""What `aya merge_search` searches, and what for."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.evaluation.config import HarnessConfig, HeldOutConfig
from aya_jax.merging.config import MergeConfig
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import MeshConfig

Choice = tuple[float, ...] | tuple[Literal["range"], float, float] | tuple[Literal["range"], float, float, int]
"""Values to choose from; or ("range", lowest, highest), which evolution chooses any number of; or with how many numbers, evenly
spread, as a grid needs it."""

Choices = Choice | tuple[Choice, ...]
"""One choice, that each model makes for itself; or one for each model."""

PER_MODEL = ("weights", "densities", "gammas", "epsilons")
SEARCHED = (*PER_MODEL, "t", "scale")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What merged models are measured by, and which way is better.

    Attributes:
      name: short; of its column in the report.
      languages: with names, each of these languages is an objective of its own; without, the mean over languages is one.
    """

    name: str = ""
    languages: tuple[str, ...] = ()

    def validate(self) -> Iterator[Problem]:
        """Yields a name that cannot be part of a table's heading."""
        if not self.name or "/" in self.name or "," in self.name:
            yield Problem("name", "a short name without slashes and commas")


@configurable
@dataclass(frozen=True, kw_only=True)
class HeldOutObjectiveConfig(ObjectiveConfig):
    """Held-out text of token stores; less is better. Kinds of code count as languages, by the names of their tasks.

    Attributes:
      of: bits per byte, or nats per token.
      held_out: which text.
    """

    name: str = "held_out"
    of: Literal["bits_per_byte", "loss"] = "bits_per_byte"
    held_out: HeldOutConfig = field(default_factory=HeldOutConfig)


@configurable
@dataclass(frozen=True, kw_only=True)
class BenchmarkObjectiveConfig(ObjectiveConfig):
    """Benchmarks of lm-evaluation-harness; more is better. A language's score is the mean over its questions of all benchmarks.

    Attributes:
      metric: of the benchmarks, as the harness names it.
      benchmarks: which, and how.
    """

    name: str = "benchmarks"
    metric: str = "acc"
    benchmarks: HarnessConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class PreferenceObjectiveConfig(ObjectiveConfig):
    """How often the better answer of a held-out pair is the likelier one; more is better.

    Attributes:
      input: a .jsonl or .jsonl.gz file of rows with prompt, chosen, rejected, language and, where they have it, id.
      language: of rows that do not name theirs.
      limit: at most so many rows, the first ones; None: all.
      reduce: what is compared: the log-probability of an answer by token ("mean"), or of all of it ("sum").
      batch_tokens: tokens that are read at a time, over all devices.
    """

    name: str = "preferences"
    input: str
    language: str | None = None
    limit: int | None = None
    reduce: Literal["mean", "sum"] = "mean"
    batch_tokens: int = 2048

    def validate(self) -> Iterator[Problem]:
        """Yields a missing file, and numbers below 1."""
        yield from super().validate()
        if not self.input:
            yield Problem("input", "a JSONL file of pairs")
        for name in ("limit", "batch_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class FunctionObjectiveConfig(ObjectiveConfig):
    """A function of your own: (parameters, model, tokenizer) -> numbers by name, "harm" or, of one language, "harm/de".

    Attributes:
      function: "module:name"; it is given the parameters on the devices, the `Transformer`, and the `ChatTokenizer` or None.
      minimize, maximize: the names of its numbers that are objectives.
    """

    name: str = "function"
    function: str
    minimize: tuple[str, ...] = ()
    maximize: tuple[str, ...] = ()

    def validate(self) -> Iterator[Problem]:
        """Yields a name that is not one of a function, and objectives that are none or both."""
        yield from super().validate()
        module, colon, name = self.function.partition(":")
        if not (module and colon and name):
            yield Problem("function", "'module:name'")
        elif importlib.util.find_spec(module.partition(".")[0]) is None:
            yield Problem("function", f"a module that Python finds: {module} is none (PYTHONPATH says where it looks)")
        if not self.minimize and not self.maximize:
            yield Problem("minimize", "a name here or in maximize: which numbers are objectives")
        for both in sorted(set(self.minimize) & set(self.maximize)):
            yield Problem("maximize", f"a name that is not in minimize too: {both}")


@configurable
@dataclass(frozen=True, kw_only=True)
class MergeSearchConfig:
    """Root of `aya merge_search`: which merge of these models is best, merged in memory, by several objectives at once.

    What may be varied is a tuple of values, ("range", low, high), or ("range", low, high, count) for a grid; of weights,
    densities, gammas and epsilons each model has its own. A method takes of these what it has use for.

    Attributes:
      run_dir: where trials, samples, report and the best recipe go; bind RUN_DIR.
      models: as MergeConfig.models; bind MODELS.
      base: as MergeConfig.base, for those methods that have one; bind BASE.
      objectives: what merges are measured by.
      methods: to choose from.
      weights, densities, gammas, epsilons, t, scale: what to choose each from.
      layer_points: numbers of a weight and of t: 1 is one for all layers; more are a gradient over the layers.
      normalize: as MergeConfig.normalize.
      strategy: "grid", every combination; or "evolution" (NSGA-II, Deb et al. 2002).
      trials: of evolution, how many merges are proposed; those that were measured before count and cost nothing.
      population: of evolution: proposals in a generation.
      seed: of the search, and of random masks of the merges.
      choose: the name of the objective by which the best of the Pareto front is chosen; "": the one nearest to the best
        value of each, on the front's own scale.
      singles: measure the base and each model too, to compare with.
      dtype, tokenizer, chat_template: as in MergeConfig.
      scan: look through all weights for NaN and infinity first.
      hold: keep all models on the devices between trials; None: where they fill at most half of their memory.
      precision: number formats that merged models are measured in.
      mesh: what models are divided over.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("run_dir", "hold", "scan", "mesh", "compilation_cache", "choose")

    run_dir: str
    models: tuple[str, ...]
    base: str | None = None
    objectives: tuple[
        HeldOutObjectiveConfig | BenchmarkObjectiveConfig | PreferenceObjectiveConfig | FunctionObjectiveConfig, ...
    ] = ()
    methods: tuple[str, ...] = ("linear",)
    weights: Choices = (0.0, 0.3, 0.5, 0.7, 1.0)
    densities: Choices = (1.0,)
    gammas: Choices = (0.01,)
    epsilons: Choices = (0.15,)
    t: Choice = (0.3, 0.5, 0.7)
    scale: Choice = (1.0,)
    layer_points: int = 1
    normalize: bool | None = None
    strategy: Literal["grid", "evolution"] = "grid"
    trials: int = 100
    population: int = 20
    seed: int = 0
    choose: str = ""
    singles: bool = True
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    scan: bool = True
    hold: bool | None = None
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, out of range, or given twice; and what a method has against these models."""
        if not self.run_dir:
            yield Problem("run_dir", "a directory: add --gin.RUN_DIR=...")
        if not self.models:
            yield Problem("models", "the models to merge: add --gin.MODELS=\"('a', 'b')\"")
        if not self.objectives:
            yield Problem("objectives", "at least one: MergeSearchConfig.objectives = (@HeldOutObjectiveConfig(),)")
        names = [objective.name for objective in self.objectives]
        for twice in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("objectives", f"each with a name of its own; {twice} is there twice: bind its name")
        for name in ("layer_points", "trials"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.population < 2:
            yield Problem("population", "at least 2")
        if self.choose and self.choose not in (known := self.goal_names()):
            yield Problem("choose", f"one of {', '.join(known)}", near_names(self.choose, known))
        found = [problem for name in SEARCHED for problem in self._choice_problems(name)]
        yield from found
        if not found and self.models:
            yield from self._method_problems()

    def goal_names(self) -> list[str]:
        """The names of all objectives, in order: "held_out", or "held_out/de" where a language is one."""
        found: list[str] = []
        for objective in self.objectives:
            if isinstance(objective, FunctionObjectiveConfig):
                found += [f"{objective.name}/{each}" for each in (*objective.minimize, *objective.maximize)]
            else:
                found += [f"{objective.name}/{language}" for language in objective.languages] or [objective.name]
        return found

    def choices(self, name: str) -> list[Choice]:
        """The choice of each model, or the one of what is no model's."""
        value = getattr(self, name)
        each = bool(value) and isinstance(value[0], tuple)
        if name not in PER_MODEL:
            return [value]
        return list(value) if each else [value] * len(self.models)

    def _choice_problems(self, name: str) -> Iterator[Problem]:
        found = self.choices(name)
        if name in PER_MODEL and len(found) != len(self.models):
            yield Problem(name, f"a choice for each of {len(self.models)} models, and not {len(found)}")
        for choice in dict.fromkeys(found):
            if not choice:
                yield Problem(name, "at least one value")
            elif choice[0] == "range":
                low, high, *count = choice[1:]
                if not low < high:
                    yield Problem(name, f"the lower end first: ('range', {high}, {low})")
                if count and count[0] < 2:
                    yield Problem(name, "at least 2 numbers of a range, or a tuple with the one value")
                if not count and self.strategy == "grid":
                    yield Problem(name, f"how many numbers of the range a grid has: ('range', {low}, {high}, 5)")
            elif len(set(choice)) < len(choice):
                yield Problem(name, "each value once")

    def _method_problems(self) -> Iterator[Problem]:
        from aya_jax.merging.space import lowest

        if not self.methods:
            yield Problem("methods", "at least one, such as 'ties'")
        for twice in sorted({name for name in self.methods if self.methods.count(name) > 1}):
            yield Problem("methods", f"each once; {twice} is there twice")
        said = set()
        for method in self.methods:
            for problem in self.merge_config({"method": method} | lowest(self, method)).validate():
                name = "methods" if problem.field == "method" else problem.field
                if (name, problem.expected) not in said:
                    said.add((name, problem.expected))
                    yield dataclasses.replace(problem, field=name)

    def merge_config(self, fields: dict, target: str = "-") -> MergeConfig:
        """A merge with these of `MergeConfig`'s fields, and what all merges of the search have in common."""
        from aya_jax.merging.methods import METHODS

        about = METHODS.get(fields["method"])
        takes_base = about is None or about.base in ("required", "optional")
        if about is not None and about.base == "first" and len(self.models) == 1:
            takes_base = True
        normalizes = (
            about is not None and self.normalize is not None and MergeConfig.uses(fields["method"])["normalize"]
        )
        return MergeConfig(
            target=target,
            models=self.models,
            base=self.base if takes_base else None,
            seed=self.seed,
            dtype=self.dtype,
            tokenizer=self.tokenizer,
            chat_template=self.chat_template,
            scan=self.scan,
            mesh=self.mesh,
            **({"normalize": self.normalize} if normalizes else {}),
            **fields,
        )
