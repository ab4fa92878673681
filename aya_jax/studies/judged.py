"""The report's tables of judged answers: held-out pairs that runs tell apart, and what online rounds have gained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scipy import stats

from aya_jax.studies.findings import Findings
from aya_jax.studies.intervals import Interval, over_seeds
from aya_jax.studies.runs import StudyRecord, TrainingRun, read_json
from aya_jax.studies.tables import Cell, Column, Table

# Accuracy and margin, as the objectives call them.
_NAMES = (("rewards/accuracies", "rewards/margins"), ("accuracy", "margin"))
_Names = tuple[str, str]
_FOLD = re.compile(r"fold_\d+")  # in a run's name, where a study measures on every fold of its pairs in turn


def pairs_table(runs: Sequence[TrainingRun]) -> Table | None:
    """Every run's first and last measurement of held-out pairs, in all and by language; None where no run has any.

    Runs that differ in their fold (an axis `fold` over `PrepareConfig.validation_fold`) hold each pair out once: their last
    measurements are pooled.
    """
    rows: list[tuple[Cell, ...]] = []
    for run, names in _paired(runs):
        last = run.validation[-1]
        ends = [run.validation[0], last] if len(run.validation) > 1 else [last]
        languages = sorted(key.split("/")[1] for key in last if key.startswith("language/") and key.endswith("/pairs"))
        rows += [_row(run.name, f"step {record['step']:,}", record, "", *names) for record in ends]
        if len(languages) > 1:
            rows += [_row("", language, last, f"language/{language}/", *names) for language in languages]
    rows += [_row(name, "", record, "", *names) for name, names, record in _over_folds(runs)]
    if not rows:
        return None
    columns = (
        Column("run", numeric=False),
        Column("", numeric=False),
        Column("accuracy", hint="pairs whose chosen answer has the higher reward"),
        Column("margin", hint="mean reward of the chosen answers less that of the rejected ones"),
        Column("pairs"),
    )
    caption = "Held-out pairs: how often the chosen answer has the higher reward, with its 95 % interval (Wilson)."
    return Table("pairs", "Held-out pairs", caption, columns, tuple(rows))


def _paired(runs: Sequence[TrainingRun]) -> Iterator[tuple[TrainingRun, _Names]]:
    """Runs that measured held-out pairs, and how they call accuracy and margin."""
    for run in runs:
        names = next((pair for pair in _NAMES if run.validation and pair[0] in run.validation[-1]), None)
        if names is not None:
            yield run, names


def _over_folds(runs: Sequence[TrainingRun]) -> list[tuple[str, _Names, dict[str, Any]]]:
    """The last measurements of runs that differ in their fold, pooled."""
    folds: dict[tuple[str, _Names], list[Mapping[str, Any]]] = {}
    for run, names in _paired(runs):
        if _FOLD.search(run.name):
            folds.setdefault((_FOLD.sub("all folds", run.name), names), []).append(run.validation[-1])
    return [(name, names, pooled(records, *names)) for (name, names), records in folds.items()]


def pooled(records: Sequence[Mapping[str, Any]], accuracy: str, margin: str) -> dict[str, Any]:
    """One measurement from several of different pairs, with Wilson's interval over all of them."""
    pairs = [record["pairs"] for record in records]
    right = sum(round(record[accuracy] * count) for record, count in zip(records, pairs, strict=True))
    total = sum(pairs)
    interval = stats.binomtest(right, total).proportion_ci(method="wilson")
    return {
        accuracy: right / total,
        f"{accuracy}/low": interval.low,
        f"{accuracy}/high": interval.high,
        margin: sum(record[margin] * count for record, count in zip(records, pairs, strict=True)) / total,
        "pairs": total,
    }


def _row(run: str, what: str, record: Mapping[str, Any], prefix: str, accuracy: str, margin: str) -> tuple[Cell, ...]:
    low, high = (record[f"{prefix}{accuracy}/{end}"] for end in ("low", "high"))
    return (
        Cell(run),
        Cell(what),
        Cell(f"{record[prefix + accuracy]:.1%}", f"{low:.1%} to {high:.1%}"),
        Cell(f"{record[prefix + margin]:.4f}"),
        Cell(f"{record[prefix + 'pairs']:,}"),
    )


def rounds_table(record: StudyRecord) -> Table | None:
    """Every online run's rounds, and where there are several runs what they gained together; None where no run has ended."""
    found = _rounds(record)
    if not found:
        return None
    rows = [_round_row(name if not each["round"] else "", each) for name, rounds in found.items() for each in rounds]
    if len(found) > 1:
        for number in range(1, min(map(len, found.values()))):
            gain = _gain(found, number)
            cells = (Cell(f"{gain.estimate:+.4f}", f"{gain.low:+.4f} to {gain.high:+.4f}"), *3 * (Cell(""),))
            rows.append(
                (Cell(f"mean of {len(found)} runs" if number == 1 else ""), Cell(f"{number}"), Cell(""), *cells)
            )
    columns = (
        Column("run", numeric=False),
        Column("round"),
        Column("reward", hint="mean over held-out prompts"),
        Column("change", hint="against the model as it came, prompt by prompt"),
        Column("KL", hint="nats an answer from the model as it came"),
        Column("tokens", hint="mean length of an answer"),
        Column("trained on", hint="pairs, or answers"),
    )
    caption = (
        "Rewards of answers to held-out prompts; round 0 is the model as it came. Intervals are 95 %: of a run over prompts, "
        "of several over runs (Student's t)."
    )
    return Table("rounds", "Online rounds", caption, columns, tuple(rows))


def _rounds(record: StudyRecord) -> dict[str, list[dict[str, Any]]]:
    """The rounds of every online run that has any."""
    jobs = [job for job in record.plan.get("jobs", ()) if job["verb"] == "online"]
    files = {job["key"]: record.directory / job["directory"] / "rounds.json" for job in jobs}
    return {name: read_json(file) for name, file in files.items() if file.is_file()}


def _gain(found: Mapping[str, Sequence[Mapping[str, Any]]], number: int) -> Interval:
    """What a round has gained: of one run as it says, of several their mean."""
    changes = [rounds[number]["change"] for rounds in found.values()]
    if len(changes) == 1:
        return Interval(*(changes[0][name] for name in ("mean", "low", "high")), "documents", 1)
    return over_seeds([change["mean"] for change in changes], 0.95)


def find(record: StudyRecord) -> Findings | None:
    """What the two tables say, in words; None where there is neither."""
    sentences = []
    last = [(run.name, names, run.validation[-1]) for run, names in _paired(record.runs) if not _FOLD.search(run.name)]
    for name, (accuracy, _), measured in [*_over_folds(record.runs), *last]:
        low, high = (measured[f"{accuracy}/{end}"] for end in ("low", "high"))
        sentences.append(
            f"{name}: the chosen answer has the higher reward in {measured[accuracy]:.1%} ({low:.1%} to {high:.1%}) of "
            f"{measured['pairs']:,} held-out pairs."
        )
    found = _rounds(record)
    rounds = min(map(len, found.values()), default=0) - 1
    if rounds > 0:
        gain = _gain(found, rounds)
        told = "" if gain.excludes_zero else ", which is not told from none"
        runs = "" if len(found) == 1 else f", the mean of {len(found)} runs"
        sentences.insert(
            0,
            f"After {rounds} online round{'s' if rounds > 1 else ''} the reward of answers to held-out prompts has changed by "
            f"{gain.estimate:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}){runs}{told}.",
        )
    if not sentences:
        return None
    method = (
        "Intervals are 95 %: of pairs Wilson's, of a run's rewards over prompts, of several runs' Student's t over runs; those "
        "of pairs and prompts do not show how much another seed would change."
    )
    return Findings(sentences[0], tuple(sentences[1:]), method)


def _round_row(run: str, summary: Mapping[str, Any]) -> tuple[Cell, ...]:
    held_out, change = summary["held_out"], summary.get("change")
    gained = Cell(f"{change['mean']:+.4f}", f"{change['low']:+.4f} to {change['high']:+.4f}") if change else Cell("")
    return (
        Cell(run),
        Cell(str(summary["round"])),
        Cell(f"{held_out['reward']:.4f}"),
        gained,
        Cell(f"{held_out['kl']:.2f}" if "kl" in held_out else ""),
        Cell(f"{held_out['tokens']:.1f}"),
        Cell(f"{summary['rows']:,}" if "rows" in summary else ""),
    )
