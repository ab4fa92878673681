"""Whether the ranking of models depends on culture: Global-MMLU's culturally sensitive questions beside the agnostic ones.

For three or more models that answered annotated questions (`evaluation/analyses/rank_changes.py` has the definitions): their
ranks on all annotated questions (MA), on the culturally sensitive (CS) and on the agnostic ones (CA), and how many models
change their rank, and by how much, by resource level of the languages.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console
from rich.table import Table as TerminalTable

from aya_jax.config import UserError
from aya_jax.evaluation.analyses.global_mmlu import Answers, tabulate
from aya_jax.evaluation.analyses.rank_changes import ALL_AND_RESOURCES, RankChanges, rank_changes, rank_table
from aya_jax.evaluation.analyses.records import ChoiceRecord
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate
from aya_jax.evaluation.harness.analyse import global_mmlu_records
from aya_jax.evaluation.results import Sample
from aya_jax.studies.tables import Cell, Column, Table

LEAST_MODELS = 3
_SUBSETS = ("MA", "CS", "CA")


@dataclasses.dataclass(frozen=True)
class Cultural:
    """Ranks of models.

    Attributes:
      models: their names.
      languages: in which all of them answered.
      questions: annotated ones that all of them answered in all of these: of "MA", "CS" and "CA".
      ranks: subset -> language -> model -> rank, 1 for the most right answers.
      changes: subset ("CS", "CA") -> group of languages -> what changes.
    """

    models: tuple[str, ...]
    languages: tuple[str, ...]
    questions: Mapping[str, int]
    ranks: Mapping[str, Mapping[str, Mapping[str, int]]]
    changes: Mapping[str, Mapping[str, RankChanges]]

    def mean_rank(self, subset: str, model: str) -> float:
        """Over languages."""
        return fmean(self.ranks[subset][language][model] for language in self.languages)


def find(samples: Mapping[str, Sequence[Sample]], resamples: int) -> tuple[Cultural | None, list[str]]:
    """Ranks of the models that have such records, and what is to be known of them; nothing for fewer than three.

    Models are ranked on what all of them answered in every language that all of them have.

    Args:
      samples: each model's records.
      resamples: of questions, for the intervals.
    """
    records = {model: global_mmlu_records(found) for model, found in samples.items()}
    records = {model: found for model, found in records.items() if found}
    if len(records) < LEAST_MODELS:
        return None, []
    try:
        answers, dropped = _shared(records)
        ranks = rank_table(answers)
    except UserError as error:
        return None, [f"Global-MMLU: models are not ranked by cultural sensitivity: {error}."]
    first = next(iter(answers.values()))
    questions = {subset: int(first.mask(subset).sum()) for subset in _SUBSETS}
    if not questions["CS"] or not questions["CA"]:
        return None, ["Global-MMLU: no questions of both kinds, sensitive and agnostic, were answered by all models."]
    changes = rank_changes(answers, ALL_AND_RESOURCES, Bootstrap(resamples))
    found = Cultural(tuple(answers), first.languages, questions, ranks, changes)
    note = f"Global-MMLU: {dropped:,} annotated answers are not ranked, as not all models have them in all languages."
    return found, [note] if dropped else []


def sentences(found: Cultural) -> list[str]:
    """What the ranking does, in words."""
    count = len(found.languages)
    where = f"{count} language{'s' if count > 1 else ''}"
    return [
        f"Global-MMLU, {len(found.models)} models in {where}, {found.questions[subset]:,} {kind} questions in place of "
        f"{found.questions['MA']:,}: {_number(of_all.rank_changes)} change their rank, by {_number(of_all.position_changes)} "
        f"positions in all (means of languages)."
        for subset, kind in (("CS", "culturally sensitive"), ("CA", "agnostic"))
        for of_all in [found.changes[subset]["all"]]
    ]


def tables(found: Cultural) -> list[Table]:
    """Changes by resource level, each model's ranks, and ranks by language."""
    return [changes_table(found), models_table(found), languages_table(found)]


def changes_table(found: Cultural) -> Table:
    """How many models change their rank, by resource level."""
    rows = []
    for subset in ("CS", "CA"):
        for group, change in found.changes[subset].items():
            members = ALL_AND_RESOURCES[group]
            count = sum(members is None or language in members for language in found.languages)
            numbers = (_cell(change.rank_changes), _cell(change.position_changes), Cell(str(change.largest)))
            rows.append((Cell(subset), Cell(group), Cell(str(count)), *numbers))
    return Table(
        "rank-changes",
        "Rank changes by resource level",
        "Models ranked on culturally sensitive (CS) or agnostic (CA) questions in place of all annotated ones: how many change "
        "their rank, by how many positions all of them together, means of languages, and the largest move of a model in one. "
        "Small: where 95 % of resamples of questions lie; these shuffle models that are close, so intervals lean upward.",
        (
            Column("on", numeric=False),
            Column("resources", numeric=False),
            *map(Column, ("languages", "rank changes", "positions", "largest")),
        ),
        tuple(rows),
    )


def models_table(found: Cultural) -> Table:
    """Each model's mean ranks, and by how much it moves."""
    rows = [
        (
            Cell(model),
            *(Cell(f"{found.mean_rank(subset, model):.2f}") for subset in _SUBSETS),
            *(_cell(found.changes[subset]["all"].by_model[model]) for subset in ("CS", "CA")),
        )
        for model in found.models
    ]
    titles = ("on MA", "on CS", "on CA", "moves on CS", "moves on CA")
    return Table(
        "model-ranks",
        "Mean ranks of models",
        "Over languages, on all annotated questions (MA), sensitive (CS) and agnostic ones (CA): 1 for the most right answers; "
        "equal models share the best of their ranks.",
        (Column("model", numeric=False), *map(Column, titles)),
        tuple(rows),
    )


def languages_table(found: Cultural) -> Table:
    """Ranks in each language; those that are not the rank on MA stand out."""
    rows = []
    for language in found.languages:
        cells = [Cell(language)]
        for model in found.models:
            whole, *others = (found.ranks[subset][language][model] for subset in _SUBSETS)
            moved = any(other != whole for other in others)
            cells.append(Cell(" · ".join(map(str, (whole, *others))), faint=not moved))
        rows.append(tuple(cells))
    return Table(
        "language-ranks",
        "Ranks by language",
        "On MA · CS · CA. Grey: the same on all three.",
        (Column("language", numeric=False), *map(Column, found.models)),
        tuple(rows),
    )


def show(console: Console, found: Cultural) -> None:
    """Prints what the page says, but for single languages."""
    for sentence in sentences(found):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)
    for part in (changes_table(found), models_table(found)):
        table = TerminalTable(title=part.title, title_justify="left")
        for column in part.columns:
            table.add_column(column.title, justify="right" if column.numeric else "left")
        for row in part.rows:
            table.add_row(*(f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row))
        console.print(table)


def _shared(records: Mapping[str, Sequence[ChoiceRecord]]) -> tuple[dict[str, Answers], int]:
    """Every model's answers to the annotated questions that all have in all shared languages, and how many others there are.

    Raises:
      UserError: nothing is shared, or records of one model contradict each other.
    """
    by_model = {
        model: {(one.language, one.id): one for one in found if one.metadata.get("is_annotated")}
        for model, found in records.items()
    }
    languages = set.intersection(*({language for language, _ in found} for found in by_model.values()))
    shared = set.intersection(*(_answered_in_all(found, languages) for found in by_model.values()))
    if not shared:
        raise UserError("no annotated question was answered by all models in a language that all have")
    kept = {
        model: [one for one in found.values() if one.language in languages and one.id in shared]
        for model, found in by_model.items()
    }
    dropped = sum(len(found) for found in by_model.values()) - sum(map(len, kept.values()))
    return {model: tabulate(found, f"Global-MMLU of {model}") for model, found in kept.items()}, dropped


def _answered_in_all(found: Mapping[tuple[str, str], ChoiceRecord], languages: set[str]) -> set[str]:
    counts = Counter(question for language, question in found if language in languages)
    return {question for question, count in counts.items() if count == len(languages)}


def _number(found: Estimate) -> str:
    return f"{found.value:.1f} ({_ends(found)})"


def _cell(found: Estimate) -> Cell:
    return Cell(f"{found.value:.2f}", _ends(found))


def _ends(found: Estimate) -> str:
    return f"{found.low:.1f} to {found.high:.1f}"
