"""What a study is: stages of verbs, what each needs, and what it varies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.studies.sweeps import Choices, ListOf, Product, Values, Variant, Zip, variants_of

_STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
RESERVED_NAMES = frozenset({"logs", "state", "study"})


@configurable
@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One step of a study: a verb with its gin files, run once for each variant of its sweep.

    Attributes:
      name: the stage's name and its directory under the study's; letters, digits and underscores.
      verb: what runs: "tokenizer", "prepare", "train", "evaluate", ... (the verbs of `aya`).
      files: the gin files that the verb is given, in order.
      bindings: gin name → value, set after the files ("STEPS": 200, "DataConfig.seed": 7). In a string, "{other}"
        stands for the directory of the variant of stage `other` that this variant needs, directly or through another
        stage, "{study}" for the study's.
      shared: bindings that several stages have in common; `bindings` and the sweep win over them.
      needs: the stages that must have ended well. A variant needs those variants of each that agree with it on every
        axis that both stages vary; so a stage without a sweep runs once and serves all.
      each_of: a stage for whose every variant this one runs, under the same label and without that variant's bindings; it
        is needed without being listed. "" follows none.
      sweep: what this stage varies itself; None varies nothing.
      output: the gin name that is bound to this variant's own directory.
    """

    name: str
    verb: str
    files: tuple[str, ...] = ()
    bindings: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    each_of: str = ""
    sweep: Values | Choices | Product | Zip | ListOf | None = None
    output: str = "RUN_DIR"

    def validate(self) -> Iterator[Problem]:
        """Yields what is wrong with this stage alone."""
        from aya_jax.cli import VERBS  # the command line imports the verbs' modules by name, this one among them

        if not _STAGE_NAME.fullmatch(self.name) or self.name in RESERVED_NAMES:
            yield Problem(
                "name",
                "a letter, then letters, digits or underscores (it names a directory), and none of "
                + ", ".join(sorted(RESERVED_NAMES)),
            )
        if self.verb not in VERBS or self.verb == "study":
            yield Problem(
                "verb", "a verb of `aya` other than study", near_names(self.verb, sorted(set(VERBS) - {"study"}))
            )
        variants = variants_of(self.sweep)
        labels = [variant.label for variant in variants]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield Problem("sweep", f"a different label for every variant; {label!r} appears more than once")
        swept = {name for variant in variants for name in variant.bindings}
        for name in sorted(swept & self.bindings.keys()):
            yield Problem("bindings", f"each name bound once; {name} is also varied by the sweep")
        if self.output in swept | self.bindings.keys() | self.shared.keys():
            yield Problem(
                "output", f"left to the study, which gives every variant its own; {self.output} is bound here too"
            )


@configurable
@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """How a report turns runs into statements.

    Attributes:
      title: the report's heading; "" takes the study's, or the directory's name.
      replicates: the axis whose values repeat one variant with other randomness: intervals are taken over it.
      confidence: coverage of every interval, between 0 and 1.
      resamples: bootstrap resamples of the validation documents, used where a variant ran with one seed only.
    """

    title: str = ""
    replicates: str = "seed"
    confidence: float = 0.95
    resamples: int = 1000

    def validate(self) -> Iterator[Problem]:
        """Yields numbers outside their ranges."""
        if not 0.0 < self.confidence < 1.0:
            yield Problem("confidence", "a number between 0 and 1, such as 0.95")
        if self.resamples < 100:
            yield Problem("resamples", "at least 100 resamples")


@configurable
@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Root of `aya report`.

    Attributes:
      run_dir: a study's directory or one training run's.
      output_dir: where `report.html` and `report.md` go; "" means `run_dir`.
      analysis: how the numbers are put together.
    """

    run_dir: str
    output_dir: str = ""
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields a missing directory name."""
        if not self.run_dir:
            yield Problem("run_dir", "the directory of a study or of a training run")


@configurable
@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Root of `aya compare RUN RUN ...`.

    Attributes:
      run_dirs: directories with `evaluations/<name>.json`, the first of which others are compared with; one alone is reported.
      name: of the evaluations' files.
      output_dir: where `benchmarks.html` goes; "" means the last of `run_dirs`.
      metric: the metric that questions are compared by; "" is the task's first one that is a share of right answers.
      samples: how many questions of each benchmark are shown with their answers, those first on which models differ.
      resamples: of questions, for the intervals.
    """

    run_dirs: tuple[str, ...]
    name: str = "benchmarks"
    output_dir: str = ""
    metric: str = ""
    samples: int = 8
    resamples: int = 2000

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, named twice, or out of range."""
        if not self.run_dirs:
            yield Problem("run_dirs", "at least one run directory: aya compare RUN RUN")
        if len(set(self.run_dirs)) < len(self.run_dirs):
            yield Problem("run_dirs", "every run once")
        if self.samples < 0:
            yield Problem("samples", "0 or more")
        if self.resamples < 100:
            yield Problem("resamples", "at least 100")


@configurable
@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Root of `aya study`: stages, in any order that their needs allow.

    Attributes:
      run_dir: the study's directory; a stage's variant runs in `run_dir/<stage>/<variant>`.
      stages: the stages.
      max_parallel: how many stage variants may run at the same time on this machine.
      dry_run: print the plan and the commands, and start nothing.
      analysis: how the closing report puts the numbers together.
    """

    run_dir: str
    stages: tuple[StageConfig, ...]
    max_parallel: int = 1
    dry_run: bool = False
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields stages that do not fit together: names, needs, cycles, variants without a partner, placeholders."""
        if not self.run_dir:
            yield Problem("run_dir", "the study's directory (bind RUN_DIR)")
        if not self.stages:
            yield Problem("stages", "at least one stage")
        if self.max_parallel < 1:
            yield Problem("max_parallel", "at least 1")
        names = [stage.name for stage in self.stages]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield Problem("stages", f"a different name for every stage; {name!r} appears more than once")
        unknown = False
        for index, stage in enumerate(self.stages):
            for needed in all_needs(stage):
                if needed not in names:
                    unknown = True
                    yield Problem(
                        f"stages[{index}].{'needs' if needed in stage.needs else 'each_of'}",
                        f"names of this study's stages; {needed!r} is none",
                        near_names(needed, names),
                    )
        if unknown or len(set(names)) < len(names):
            return
        cycle = find_cycle({stage.name: all_needs(stage) for stage in self.stages})
        if cycle:
            yield Problem("stages", f"needs that can be put in an order; these go in a circle: {' → '.join(cycle)}")
            return
        by_name = {stage.name: stage for stage in self.stages}
        for index, stage in enumerate(self.stages):
            yield from _partner_problems(f"stages[{index}]", stage, by_name)


def all_needs(stage: StageConfig) -> tuple[str, ...]:
    """The stages that a stage needs directly, the one that it follows first."""
    return tuple(dict.fromkeys([stage.each_of, *stage.needs] if stage.each_of else stage.needs))


def stage_variants(stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[Variant]:
    """A stage's variants: those of the stage that it follows, without their bindings, times its own sweep's."""
    followed = stage_variants(by_name[stage.each_of], by_name) if stage.each_of else [Variant((), {})]
    return [
        Variant(variant.coordinates + own.coordinates, own.bindings)
        for variant in followed
        for own in variants_of(stage.sweep)
    ]


def bindings_of(stage: StageConfig, variant: Variant) -> dict[str, Any]:
    """All that one variant binds, placeholders and all; the sweep wins over `bindings`, and these over `shared`."""
    return stage.shared | stage.bindings | variant.bindings


def placeholders(value: Any) -> set[str]:
    """The names that a binding's value mentions as "{name}", however deep in tuples, lists and dicts."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, dict):
        return set().union(*(placeholders(item) for pair in value.items() for item in pair))
    if isinstance(value, tuple | list):
        return set().union(*(placeholders(item) for item in value))
    return set()


def substitute(value: Any, directories: dict[str, str]) -> Any:
    """The value with every "{name}" replaced by `directories[name]`, however deep."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: directories[match.group(1)], value)
    if isinstance(value, dict):
        return {substitute(key, directories): substitute(item, directories) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(substitute(item, directories) for item in value)
    return value


def find_cycle(needs: dict[str, tuple[str, ...]]) -> list[str]:
    """A circle of names, its first repeated at its end, or [] where the needs can be put in an order."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return []
        for needed in needs[name]:
            if cycle := visit(needed, [*path, name]):
                return cycle
        finished.add(name)
        return []

    for name in needs:
        if cycle := visit(name, []):
            return cycle
    return []


def upstream(stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[str]:
    """The stages that a stage needs, directly or through others, each once; what it needs itself comes first."""
    found: dict[str, None] = dict.fromkeys(all_needs(stage))
    for needed in all_needs(stage):
        found |= dict.fromkeys(upstream(by_name[needed], by_name))
    return list(found)


def partners(variant: Variant, stage: StageConfig, by_name: Mapping[str, StageConfig]) -> list[Variant]:
    """The variants of `stage` that `variant` goes with: those that agree with it on every axis that both have."""
    return [other for other in stage_variants(stage, by_name) if variant.agrees_with(other)]


def _partner_problems(where: str, stage: StageConfig, by_name: Mapping[str, StageConfig]) -> Iterator[Problem]:
    """Variants that lack what they need, and placeholders that name no single directory."""
    reported: set[tuple[str, str]] = set()
    reachable = upstream(stage, by_name)
    if stage.each_of:
        theirs = {
            axis for variant in stage_variants(by_name[stage.each_of], by_name) for axis, _ in variant.coordinates
        }
        ours = {axis for variant in variants_of(stage.sweep) for axis, _ in variant.coordinates}
        for axis in sorted(theirs & ours):
            yield Problem(f"{where}.sweep", f"axes that {stage.each_of!r} does not vary already; {axis!r} is one")
            return
    for variant in stage_variants(stage, by_name):
        counts = {name: len(partners(variant, by_name[name], by_name)) for name in reachable}
        for needed in all_needs(stage):
            if counts[needed] == 0:
                yield Problem(
                    f"{where}.needs", f"a variant of {needed!r} that agrees with {stage.name}'s {variant.label!r}"
                )
        for name in sorted(placeholders(bindings_of(stage, variant)) - {"study"}):
            if name not in reachable and (name, "needs") not in reported:
                reported.add((name, "needs"))
                yield Problem(
                    f"{where}.bindings",
                    f"{{study}} or a stage that this one needs between braces; {{{name}}} is neither",
                    near_names(name, reachable),
                )
            if counts.get(name, 1) != 1 and (name, "many") not in reported:
                reported.add((name, "many"))
                yield Problem(
                    f"{where}.bindings",
                    f"one directory for {{{name}}}; stage {name!r} has {counts[name]} variants to choose from",
                )
