"""Who is compared with whom, on what, and by how much: every number of the report's findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aya_jax.studies.config import AnalysisConfig
from aya_jax.studies.intervals import Documents, Interval, over_documents, over_seeds
from aya_jax.studies.ledger import code_share
from aya_jax.studies.runs import CODE_KINDS, Evaluation, Model

LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "fa": "Persian",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip

FEWEST_DOCUMENTS = 5  # resampling fewer says next to nothing, and one document would seem to be certain


@dataclass(frozen=True)
class Measure:
    """Something measured in bits per byte: the mean over some tasks.

    Attributes:
      name: its key: "text", "code", a language's code, a kind of code.
      title: how it is written.
      tasks: whose bits per byte are averaged, each counting the same.
    """

    name: str
    title: str
    tasks: tuple[str, ...]

    def of(self, evaluation: Evaluation) -> float:
        """Bits per byte of one model."""
        return sum(evaluation.tasks[task].bits_per_byte for task in self.tasks) / len(self.tasks)


@dataclass(frozen=True)
class Group:
    """Models that differ only in their seed.

    Attributes:
      label: the variant's label without the seed.
      coordinates: its axis → value pairs without the seed.
      models: replicate label → model, in order; every one has an evaluation.
      share: the share of code among the tokens that it was trained on, 0 to 1; NaN where that is unknown.
    """

    label: str
    coordinates: dict[str, str]
    models: dict[str, Model]
    share: float

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Replicate label → evaluation."""
        return {seed: model.evaluation for seed, model in self.models.items() if model.evaluation}


@dataclass(frozen=True)
class Comparison:
    """All groups on all measures, and against a baseline.

    Attributes:
      groups: what is compared, by share of code where that orders them.
      baseline: the group that the others are compared with: the least code.
      by_share: whether the groups lie on an axis of shares of code (one training run each, all with different shares).
      text, code: the overall measures, None where the evaluation has no such task.
      languages, kinds: measures by language and by kind of code.
      analysis: confidence and resamples.
    """

    groups: list[Group]
    baseline: Group
    by_share: bool
    text: Measure | None
    code: Measure | None
    languages: list[Measure]
    kinds: list[Measure]
    analysis: AnalysisConfig

    @property
    def overall(self) -> list[Measure]:
        """The overall measures that there are."""
        return [measure for measure in (self.text, self.code) if measure]

    def level(self, measure: Measure, group: Group) -> Interval:
        """Bits per byte of a group, with its interval."""
        values = [measure.of(evaluation) for evaluation in group.evaluations.values()]
        if len(values) > 1:
            return over_seeds(values, self.analysis.confidence)
        return self._bootstrap(measure, next(iter(group.evaluations.values())), None) or _bare(values[0])

    def difference(self, measure: Measure, group: Group) -> Interval:
        """Bits per byte of a group minus the baseline's: paired by seed, or by document where they share one seed."""
        if group is self.baseline:
            return Interval(0.0, 0.0, 0.0, "none", len(group.models))
        ours, theirs = group.evaluations, self.baseline.evaluations
        shared = [seed for seed in ours if seed in theirs]
        if len(shared) > 1:
            return over_seeds(
                [measure.of(ours[seed]) - measure.of(theirs[seed]) for seed in shared], self.analysis.confidence
            )
        one = (
            (ours[shared[0]], theirs[shared[0]]) if shared else (next(iter(ours.values())), next(iter(theirs.values())))
        )
        return self._bootstrap(measure, *one) or _bare(measure.of(one[0]) - measure.of(one[1]))

    def _bootstrap(self, measure: Measure, evaluation: Evaluation, reference: Evaluation | None) -> Interval | None:
        """The interval over documents; None where those of a task are too few or differ between the two."""
        tasks = [_documents(task, evaluation, reference) for task in measure.tasks]
        if any(task is None for task in tasks):
            return None
        return over_documents([task for task in tasks if task], self.analysis.confidence, self.analysis.resamples)


def compare(models: Sequence[Model], analysis: AnalysisConfig) -> Comparison | None:
    """Groups the evaluated models; None where nothing was evaluated. Measures are those that every model has."""
    groups = _groups([model for model in models if model.evaluation], analysis.replicates)
    if not groups:
        return None
    by_share = _on_an_axis_of_shares(groups)
    if by_share:
        groups.sort(key=lambda group: group.share)
    evaluations = [evaluation for group in groups for evaluation in group.evaluations.values()]
    common = [name for name in evaluations[0].tasks if all(name in other.tasks for other in evaluations)]
    tags = {name: evaluations[0].tasks[name] for name in common}
    text = [name for name in common if tags[name].domain not in CODE_KINDS]
    code = [name for name in common if tags[name].domain in CODE_KINDS]
    languages = sorted(
        {tags[name].language for name in text} - {""}, key=lambda language: LANGUAGES.get(language, language)
    )
    return Comparison(
        groups=groups,
        baseline=min(groups, key=lambda group: group.share if not math.isnan(group.share) else 0.0),
        by_share=by_share,
        text=Measure("text", "Text", tuple(text)) if text else None,
        code=Measure("code", "Code", tuple(code)) if code else None,
        languages=[
            Measure(
                language,
                LANGUAGES.get(language, language),
                tuple(name for name in text if tags[name].language == language),
            )
            for language in languages
        ],
        kinds=[
            Measure(kind, title, tasks)
            for kind, title in CODE_KINDS.items()
            if (tasks := tuple(name for name in code if tags[name].domain == kind))
        ],
        analysis=analysis,
    )


def _groups(models: Sequence[Model], replicates: str) -> list[Group]:
    gathered: dict[str, dict[str, Model]] = {}
    for model in models:
        rest = "-".join(f"{axis}_{value}" for axis, value in model.coordinates.items() if axis != replicates)
        label = rest or (model.label if replicates not in model.coordinates else "all")
        gathered.setdefault(label, {})[model.coordinates.get(replicates, "")] = model
    groups = []
    for label, members in gathered.items():
        first = next(iter(members.values()))
        place = {axis: value for axis, value in first.coordinates.items() if axis != replicates}
        groups.append(Group(label, place, members, code_share(first.lineage)))
    return groups


def _on_an_axis_of_shares(groups: Sequence[Group]) -> bool:
    """One stage of training each, known shares, no two alike: then a curve over the share says what happens."""
    shares = [round(group.share, 4) for group in groups]
    single = all(len(model.lineage) == 1 for group in groups for model in group.models.values())
    return single and len(groups) > 1 and len(set(shares)) == len(shares) and not any(map(math.isnan, shares))


def _documents(task: str, evaluation: Evaluation, reference: Evaluation | None) -> Documents | None:
    """One task's documents, in the same order for both models; None where they are too few, or not the same."""
    ours = evaluation.samples.get(task)
    if ours is None or len(ours.ids) < FEWEST_DOCUMENTS:
        return None
    if reference is None:
        return Documents(ours.nll, 0.0 * ours.nll, ours.num_bytes)
    theirs = reference.samples.get(task)
    if theirs is None:
        return None
    position = {name: index for index, name in enumerate(theirs.ids)}
    if set(position) != set(ours.ids):
        return None
    order = [position[name] for name in ours.ids]
    return Documents(ours.nll, theirs.nll[order], ours.num_bytes)


def _bare(value: float) -> Interval:
    return Interval(value, math.nan, math.nan, "none", 1)
