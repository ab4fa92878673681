"""What models scored on benchmarks and what of it is a difference: all that `aya compare` says follows from this.

Everything is computed from the records of single questions. Two models are compared on the questions that both were asked, pair
by pair; what only one was asked is counted and said. chrF++ of translations is the corpus's, not the mean of its sentences'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.contamination.results import contaminated
from aya_jax.evaluation.corpora import Corpora, corpus_differences, corpus_intervals
from aya_jax.evaluation.results import Sample, read_samples, read_summary, tabulate
from aya_jax.evaluation.statistics import Differences, Means, Scores, differences, holm, intervals
from aya_jax.evaluation.translation import CHRF
from aya_jax.studies.config import CompareConfig

_FIRST = ("acc", "exact_match", "chrf++", "f1")


@dataclasses.dataclass(frozen=True)
class Model:
    """One model's evaluation.

    Attributes:
      name: short, and another for each.
      directory: of the run.
      summary: of the evaluation.
      samples: its records.
      left_out: how many there were of contaminated questions.
    """

    name: str
    directory: Path
    summary: dict[str, Any]
    samples: list[Sample]
    left_out: int = 0


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One family of tasks.

    Attributes:
      family: its name.
      metric: what is compared.
      means: of each model, in order; None where it was not measured.
      scores: of each model.
      against: differences of each model but the first from it; None where they share no question.
      missing: of each model, questions that others were asked and it was not.
      unit: of a metric that says nothing of right or wrong: "%" of a share, "" of an index; None: a share of right answers.
    """

    family: str
    metric: str
    means: tuple[Means | None, ...]
    scores: tuple[Scores | None, ...]
    against: tuple[Differences | None, ...]
    missing: tuple[int, ...]
    unit: str | None = None

    @property
    def name(self) -> str:
        """The family's, with the metric's where the family has several."""
        return self.family if self.unit is None else f"{self.family} {self.metric.replace('_', ' ')}"

    @property
    def scale(self) -> float:
        """What numbers are shown times: shares in percent, others as they are."""
        return _scale(self.metric) if self.unit is None else 100.0 if self.unit == "%" else 1.0

    @property
    def digits(self) -> int:
        """Decimals that are shown."""
        return 1 if self.unit != "" else 3 if self.whole < 1 else 2

    @property
    def whole(self) -> float:
        """What is shown as 100 in colours: a share of all, or of what is no share the largest mean of any model's."""
        if self.unit in (None, "%"):
            return 100.0
        means = [found for each in self.means if each is not None for found in each.languages]
        return max((abs(found.estimate) for found in means), default=0.0) or 1.0


def read_models(config: CompareConfig) -> list[Model]:
    """The evaluations, named by their directories.

    Raises:
      UserError: one is missing, or is of something else.
    """
    models = []
    flagged = contaminated(Path(config.without)) if config.without else set()
    for directory in map(Path, config.run_dirs):
        file = directory / "evaluations" / f"{config.name}.json"
        summary = read_summary(file)
        if summary is None or summary.get("kind") != "benchmarks":
            raise UserError(
                f"{file}: no evaluation of benchmarks is there; run aya evaluate gin/evaluate/benchmarks.gin"
            )
        samples = read_samples(file)
        kept = [sample for sample in samples if sample.id not in flagged]
        models.append(Model(directory.name, directory, summary, kept, len(samples) - len(kept)))
    if len({model.name for model in models}) < len(models):
        models = [dataclasses.replace(model, name=str(model.directory)) for model in models]
    return models


def compare(models: Sequence[Model], config: CompareConfig) -> list[Benchmark]:
    """Means and differences of every family that any model was measured on; macro means' p-values adjusted over families."""
    tables = [tabulate(model.samples) for model in models]
    families: dict[str, list[str]] = {}
    for family, metric in dict.fromkeys(key for table in tables for key in table):
        families.setdefault(family, []).append(metric)
    units = {name: unit for model in models for name, unit in model.summary.get("units", {}).items()}
    found = []
    for family, metrics in families.items():
        for metric in _metrics(metrics, config.metric, units):
            corpora = [_corpora(model, family, metric) for model in models]
            found.append(_benchmark(family, metric, tables, corpora, config, units.get(metric)))
    for place in range(len(models) - 1):
        measured = [k for k, benchmark in enumerate(found) if benchmark.against[place] is not None]
        adjusted = holm([found[k].against[place].macro.p for k in measured])
        for k, p in zip(measured, adjusted, strict=True):
            against = list(found[k].against)
            macro = dataclasses.replace(against[place].macro, adjusted=p)
            against[place] = dataclasses.replace(against[place], macro=macro)
            found[k] = dataclasses.replace(found[k], against=tuple(against))
    return found


def _metrics(metrics: Sequence[str], wanted: str, units: Mapping[str, str]) -> list[str]:
    """What a family is compared by: one metric, or all that have units, none of which stands for the others."""
    if wanted in metrics:
        return [wanted]
    return [name for name in units if name in metrics] or [_metric(metrics, wanted)]


def _metric(metrics: Sequence[str], wanted: str) -> str:
    if wanted in metrics:
        return wanted
    for name in _FIRST:
        named = [metric for metric in metrics if metric.split(",")[0] == name]
        if named:
            return named[-1]  # of several readings of an answer, the most lenient comes last
    return metrics[0]


def _corpora(model: Model, family: str, metric: str) -> Corpora | None:
    """A model's translations, where they are compared by chrF++, which is no mean."""
    corpora = Corpora.of(s for s in model.samples if s.family == family) if metric == CHRF else None
    return corpora if corpora and corpora.counts else None


def _benchmark(
    family: str,
    metric: str,
    tables: Sequence[dict[tuple[str, str], Scores]],
    corpora: Sequence[Corpora | None],
    config: CompareConfig,
    unit: str | None,
) -> Benchmark:
    scores = tuple(table.get((family, metric)) for table in tables)
    asked = {(item, language) for found in scores if found is not None for item, language in _asked(found)}
    return Benchmark(
        family,
        metric,
        tuple(_means(s, c, config.resamples) for s, c in zip(scores, corpora, strict=True)),
        scores,
        tuple(
            _against((scores[0], corpora[0]), (s, c), config.resamples)
            for s, c in zip(scores[1:], corpora[1:], strict=True)
        ),
        tuple(len(asked) - (0 if s is None else sum(1 for _ in _asked(s))) for s in scores),
        unit,
    )


def _means(scores: Scores | None, corpora: Corpora | None, resamples: int) -> Means | None:
    if corpora is not None:
        return corpus_intervals(corpora, resamples=resamples)
    return None if scores is None else intervals(scores, resamples=resamples)


def _asked(scores: Scores) -> Iterable[tuple[str, str]]:
    for row, column in zip(*(~(scores.values != scores.values)).nonzero(), strict=True):
        yield scores.items[row], scores.languages[column]


def _against(
    first: tuple[Scores | None, Corpora | None], other: tuple[Scores | None, Corpora | None], resamples: int
) -> Differences | None:
    try:
        if first[1] is not None and other[1] is not None:
            return corpus_differences(first[1], other[1], resamples=resamples)
        if first[0] is not None and other[0] is not None:
            return differences(first[0], other[0], resamples=resamples)
    except ValueError:  # they share no question
        pass
    return None


def _scale(metric: str) -> float:
    """Shares are shown in percent; chrF++ goes to 100 by itself."""
    return 1.0 if metric.startswith("chrf") else 100.0
