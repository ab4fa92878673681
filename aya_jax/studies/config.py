"""What a study is: stages of verbs, what each needs, and what it varies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.studies.needs import all_needs, find_cycle, job_key, partner_problems, stage_variants
from aya_jax.studies.sweeps import Choices, ListOf, Product, Values, Zip, variants_of

_STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
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
        stage, "{study}" for the study's. Of several variants "{other:mix=100}" names one by its place on an axis (or on
        several: "{other:mix=100,seed=1}"); of that stage this one then needs those alone that it names.
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
class MixingConfig:
    """Models trained on mixed data beside merged ones: harm and what is to stay good, in one table (`studies/mixing.py`).

    Evaluations are jobs of `aya evaluate gin/evaluate/held_out.gin`, by their keys: "measure_sft/mix_015", or the stage's name
    alone where it does not vary.

    Attributes:
      base: the evaluation of the model that all others are made from, which harm is relative to.
      models: heading → evaluation stages, whose every variant is a row below it.
      against: heading → the evaluation that the rows below it are compared with: the model trained on mixed data.
      general: patterns of tasks whose answers are to stay good.
      harmful: patterns of tasks of pairs whose rejected answer is harmful; () where harm is not asked for.
      judged: "harm" and "win" → what the names of their stages of `aya judge` begin with, in place of "measure_"; {} without.
    """

    base: str
    models: dict[str, tuple[str, ...]]
    against: dict[str, str]
    general: tuple[str, ...]
    harmful: tuple[str, ...] = ()
    judged: dict[str, str] = field(default_factory=dict)

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, and headings that do not go together."""
        for name in ("base", "models", "general"):
            if not getattr(self, name):
                yield Problem(
                    name, "at least one" if name != "base" else "the evaluation of the model that all are made from"
                )
        if self.judged.keys() - {"harm", "win"}:
            yield Problem("judged", "'harm' and 'win', or one of them")
        if self.models.keys() != self.against.keys():
            yield Problem("against", f"an evaluation for each heading of models: {', '.join(self.models)}")


@configurable
@dataclass(frozen=True, kw_only=True)
class AnalysisConfig:
    """How a report turns runs into statements.

    Attributes:
      title: the report's heading; "" takes the study's, or the directory's name.
      replicates: the axis whose values repeat one variant with other randomness: intervals are taken over it.
      confidence: coverage of every interval, between 0 and 1.
      resamples: bootstrap resamples of the validation documents, used where a variant ran with one seed only.
      mixing: mixed and merged models side by side, in place of the comparison by share of code and by language; None: no such
        study.
    """

    title: str = ""
    replicates: str = "seed"
    confidence: float = 0.95
    resamples: int = 1000
    mixing: MixingConfig | None = None

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
      metric: the metric that questions are compared by; "" is the task's first one that is a share of right answers, or where
        metrics have units (a profile's) each of them.
      samples: how many questions of each benchmark are shown with their answers, those first on which models differ.
      resamples: of questions, for the intervals.
      without: a contamination (`RUN/evaluations/contamination.json`, gin/evaluate/contamination.gin); the rows that it flags
        are left out of everything. "" leaves none out.
    """

    run_dirs: tuple[str, ...]
    name: str = "benchmarks"
    output_dir: str = ""
    metric: str = ""
    samples: int = 8
    resamples: int = 2000
    without: str = ""

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
            yield from partner_problems(f"stages[{index}]", stage, by_name)
        if self.analysis.mixing is not None:
            yield from _mixing_problems(self.analysis.mixing, by_name)


def _mixing_problems(config: MixingConfig, by_name: Mapping[str, StageConfig]) -> Iterator[Problem]:
    """Evaluations of a mixing analysis that are none of the study's."""
    for heading, stages in config.models.items():
        for name in stages:
            if name not in by_name:
                yield Problem(
                    f"analysis.mixing.models[{heading!r}]",
                    f"this study's stages; {name!r} is none",
                    near_names(name, by_name),
                )
    keys = [job_key(name, variant) for name, stage in by_name.items() for variant in stage_variants(stage, by_name)]
    for where, key in (("base", config.base), *((f"against[{name!r}]", key) for name, key in config.against.items())):
        if key not in keys:
            yield Problem(
                f"analysis.mixing.{where}",
                f"a variant of a stage, STAGE/VARIANT; {key!r} is none",
                near_names(key, keys),
            )
