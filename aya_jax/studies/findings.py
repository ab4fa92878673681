"""What was found, in words: every sentence is put together from the computed numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aya_jax.studies.comparison import FEWEST_DOCUMENTS, Comparison, Group, Measure
from aya_jax.studies.figures import percent, signed
from aya_jax.studies.intervals import Interval


@dataclass(frozen=True)
class Findings:
    """The report's opening.

    Attributes:
      headline: one sentence.
      sentences: what stands behind it.
      method: how intervals were made, and what they do not say.
    """

    headline: str
    sentences: tuple[str, ...]
    method: str


def find(comparison: Comparison) -> Findings:
    """The findings of a comparison of any shape: shares of code, named variants, or one model alone."""
    if len(comparison.groups) == 1:
        headline, sentences = _one_model(comparison)
    elif comparison.by_share:
        headline, sentences = _by_share(comparison)
    else:
        headline, sentences = _by_variant(comparison)
    return Findings(headline, tuple(sentence for sentence in sentences if sentence), method(comparison))


def group_title(comparison: Comparison, group: Group) -> str:
    """How a group is called: "25 % code" where shares tell groups apart, else its place on each axis in words."""
    if comparison.by_share:
        return f"{percent(group.share)} code"
    if not group.coordinates:
        return group.label
    common = {axis for other in comparison.groups[:1] for axis in other.coordinates}
    for other in comparison.groups:
        common &= other.coordinates.keys()
    named = [value if axis in common else f"{axis} {value}" for axis, value in group.coordinates.items()]
    return " · ".join(named).replace("_", " ")


def method(comparison: Comparison) -> str:
    """Which intervals the report shows."""
    coverage = f"{100 * comparison.analysis.confidence:g} %"
    several = len(comparison.groups) > 1
    seeds = min(len(group.models) for group in comparison.groups)
    if seeds > 1:
        paired = ", differences paired by seed" if several else ""
        return f"Intervals are {coverage}: Student's t over {seeds} seeds{paired}."
    measures = [*comparison.overall, *comparison.languages, *comparison.kinds]
    methods = [comparison.level(measure, comparison.baseline).method for measure in measures]
    if "documents" not in methods:
        return (
            "No intervals: each variant ran with one seed, and fewer than "
            f"{FEWEST_DOCUMENTS} held-out documents of a task were kept."
        )
    paired = ", differences paired by document" if several else ""
    rest = f" Where a task has fewer than {FEWEST_DOCUMENTS} documents there is none." if "none" in methods else ""
    return (
        f"Intervals are {coverage}: bootstrap over held-out documents, {comparison.analysis.resamples:,} resamples"
        f"{paired}.{rest} With one seed for each variant they say how far these documents settle a comparison, not how "
        "another seed would end."
    )


def _one_model(comparison: Comparison) -> tuple[str, list[str]]:
    group = comparison.groups[0]
    parts = []
    for measure in comparison.overall:
        level = comparison.level(measure, group)
        over = (
            f" over {len(comparison.languages)} languages"
            if measure is comparison.text and len(comparison.languages) > 1
            else ""
        )
        parts.append(f"{level.estimate:.3f} bits per byte on {measure.title.lower()}{over}")
    return " and ".join(parts) + ".", [_extremes(comparison.languages, comparison, group)]


def _extremes(measures: Sequence[Measure], comparison: Comparison, group: Group) -> str:
    if len(measures) < 3:
        return ""
    ordered = sorted(measures, key=lambda measure: comparison.level(measure, group).estimate)
    low, high = ordered[0], ordered[-1]
    return (
        f"The lowest is {low.title} ({comparison.level(low, group).estimate:.3f}), the highest {high.title} "
        f"({comparison.level(high, group).estimate:.3f}); bytes per character differ between scripts, so compare a "
        "language with itself."
    )


def _by_variant(comparison: Comparison) -> tuple[str, list[str]]:
    best = {
        measure.name: min(comparison.groups, key=lambda g: comparison.level(measure, g).estimate)
        for measure in comparison.overall
    }
    told = [
        f"{_quoted(comparison, best[measure.name])} is best on {measure.title.lower()} "
        f"({comparison.level(measure, best[measure.name]).estimate:.3f} bits per byte)"
        for measure in comparison.overall
    ]
    base = _quoted(comparison, comparison.baseline)
    sentences = [
        f"Against {base}, it changes bits per byte on {measure.title.lower()} by "
        f"{_with_interval(comparison.difference(measure, best[measure.name]))}."
        for measure in comparison.overall
        if best[measure.name] is not comparison.baseline
    ]
    return "; ".join(told) + ".", sentences


def _quoted(comparison: Comparison, group: Group) -> str:
    return f"“{group_title(comparison, group)}”"


def _by_share(comparison: Comparison) -> tuple[str, list[str]]:
    others = [group for group in comparison.groups if group is not comparison.baseline]
    sentences = []
    if comparison.code:
        sentences.append(_code_sentence(comparison, comparison.code, others))
    if comparison.text:
        sentences.append(_text_sentence(comparison, comparison.text, others))
        sentences.append(_languages_sentence(comparison, others[-1]))
    headline = _headline(comparison, others) if comparison.code and comparison.text else sentences.pop(0)
    return headline, sentences


def _headline(comparison: Comparison, others: Sequence[Group]) -> str:
    """What the smallest share of code already buys, and what it costs on text."""
    first = others[0]
    gains = {group.label: -comparison.difference(comparison.code, group).estimate for group in others}
    largest = max(gains.values())
    gain, cost = comparison.difference(comparison.code, first), comparison.difference(comparison.text, first)
    title = group_title(comparison, first)
    if not gain.high < 0:
        change = f"With {title}, bits per byte on code changes by {signed(gain.estimate)}"
    elif gains[first.label] < largest:
        change = f"{title} brings {100 * gains[first.label] / largest:.0f} % of the largest gain on code"
    else:
        change = f"{title} brings the largest gain on code, {signed(gain.estimate)} bits per byte"
    if not _known(cost):
        return f"{change}; text changes by {signed(cost.estimate)} bits per byte."
    if not cost.excludes_zero:
        return f"{change} at no measurable cost on text."
    if cost.estimate > 0:
        return f"{change} and costs {cost.estimate:.3f} bits per byte on text."
    return f"{change} and also improves text, by {-cost.estimate:.3f} bits per byte."


def _code_sentence(comparison: Comparison, measure: Measure, others: Sequence[Group]) -> str:
    best = min(others, key=lambda group: comparison.difference(measure, group).estimate)
    difference, base = comparison.difference(measure, best), comparison.level(measure, comparison.baseline).estimate
    change = f"{100 * difference.estimate / base:+.1f} %".replace("-", "−")
    return (
        f"Bits per byte on code is {base:.3f} with {group_title(comparison, comparison.baseline)} and lowest, "
        f"{base + difference.estimate:.3f}, with {group_title(comparison, best)}: {change}, or "
        f"{_with_interval(difference)}."
    )


def _text_sentence(comparison: Comparison, measure: Measure, others: Sequence[Group]) -> str:
    told = {group.label: group_title(comparison, group) for group in others}
    differences = {group.label: comparison.difference(measure, group) for group in others}
    changes = {label: _with_interval(difference) for label, difference in differences.items()}
    better = [label for label, difference in differences.items() if difference.high < 0]
    worse = [label for label, difference in differences.items() if difference.low > 0]
    unsettled = [label for label in differences if label not in better and label not in worse]
    sentences = []
    if better:
        best = min(better, key=lambda label: differences[label].estimate)
        sentences.append(f"{told[best]} improves text by {changes[best]} bits per byte.")
    if unsettled:
        last = unsettled[-1]
        known = "does not change measurably" if _known(differences[last]) else "changes"
        sentences.append(f"With {told[last]}, text {known}: {changes[last]} bits per byte.")
    if worse:
        both = f", {told[worse[-1]]} {changes[worse[-1]]}" if len(worse) > 1 else ""
        sentences.append(f"{told[worse[0]]} costs {changes[worse[0]]} bits per byte on text{both}.")
    return " ".join(sentences)


def _languages_sentence(comparison: Comparison, group: Group) -> str:
    """How the languages part at one share."""
    if len(comparison.languages) < 2:
        return ""
    changes = {measure.title: comparison.difference(measure, group) for measure in comparison.languages}
    known = all(_known(change) for change in changes.values())
    rises = sum((change.low if known else change.estimate) > 0 for change in changes.values())
    falls = sum((change.high if known else change.estimate) < 0 for change in changes.values())
    measurably = "measurably " if known else ""
    first, *_, last = sorted(changes, key=lambda title: changes[title].estimate)
    return (
        f"With {group_title(comparison, group)}, {rises} of {len(changes)} languages are {measurably}worse and {falls} "
        f"{measurably}better; the changes run from {first} ({signed(changes[first].estimate)}) to {last} "
        f"({signed(changes[last].estimate)})."
    )


def _known(interval: Interval) -> bool:
    return not math.isnan(interval.low)


def _with_interval(interval: Interval) -> str:
    if not _known(interval):
        return signed(interval.estimate)
    return f"{signed(interval.estimate)} ({signed(interval.low)} to {signed(interval.high)})"
