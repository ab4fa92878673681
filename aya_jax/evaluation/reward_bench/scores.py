"""From outcomes to scores: subset, section, language, benchmark (papers.md 4, "Scoring").

A section weighs its subsets, a language is the plain mean of four sections, and the benchmark the plain mean of its
languages; all in per cent. Intervals draw instances within subsets, an instance in all of its languages at once. What is
missing is always said: a section that lacks a subset has no score unless a partial one is asked for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.evaluation.judging.resampling import Estimate, estimate, ratio_draws, sums
from aya_jax.evaluation.reward_bench.instances import Outcome
from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, PRIOR_SETS, SECTIONS, Section, Subsets


@dataclass(frozen=True, kw_only=True)
class SubsetScore:
    """One subset in one language.

    Attributes:
      accuracy: mean credit, per cent.
      instances: that were judged.
      published: that there are.
      unparsed: replies or rewards that could not be read.
    """

    accuracy: Estimate
    instances: int
    published: int
    unparsed: int


@dataclass(frozen=True, kw_only=True)
class LanguageScores:
    """One language.

    Attributes:
      subsets: those that were judged.
      sections: per cent; None where a subset is missing (or all are, if partial scores are asked for).
      score: mean of the sections; None where one has no score (or all have none).
      missing: subsets without any outcome.
      short: subsets with fewer outcomes than instances are published, by name: (judged, published).
      partial: something is missing or short, so that the score is not the benchmark's.
    """

    subsets: dict[str, SubsetScore]
    sections: dict[Section, Estimate | None]
    score: Estimate | None
    missing: tuple[str, ...]
    short: dict[str, tuple[int, int]]

    @property
    def partial(self) -> bool:
        """Whether anything is missing."""
        return bool(self.missing or self.short)


@dataclass(frozen=True, kw_only=True)
class BenchmarkScores:
    """All languages.

    Attributes:
      languages: by language.
      sections: mean of each section over languages; None where a language has no score in it.
      score: mean of the languages' scores; None where one has none, or is missing, unless partial scores are asked for.
      missing_languages: expected and without any outcome.
    """

    languages: dict[str, LanguageScores]
    sections: dict[Section, Estimate | None]
    score: Estimate | None
    missing_languages: tuple[str, ...]


@dataclass(frozen=True)
class _Drawn:
    """A number, its draws [R] and how many instances they are of."""

    value: float
    draws: np.ndarray
    units: int

    def estimate(self, confidence: float) -> Estimate:
        return estimate(self.value, self.draws, self.units, confidence, percent=True)


def benchmark_scores(
    outcomes: Iterable[Outcome],
    *,
    subsets: Subsets = M_REWARD_BENCH,
    languages: Sequence[str] | None = None,
    allow_partial: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> BenchmarkScores:
    """Scores of every language, and of the benchmark.

    Args:
      outcomes: of one model.
      subsets: the benchmark's.
      languages: that there should be, such as `M_REWARD_BENCH_LANGUAGES`; None: those that there are.
      allow_partial: score sections by the subsets, languages by the sections and the benchmark by the languages that there are.
      resamples, confidence, seed: of the bootstrap.

    Raises:
      UserError: an unknown subset, or two outcomes of one instance.
    """
    outcomes = _checked(outcomes, subsets)
    found = sorted({outcome.language for outcome in outcomes})
    drawn = _subset_draws(outcomes, resamples, seed)
    sections: dict[str, dict[Section, _Drawn | None]] = {
        language: {section: _section(drawn[language], section, subsets, allow_partial) for section in SECTIONS}
        for language in found
    }
    scores = {language: _mean(list(sections[language].values()), allow_partial) for language in found}
    missing_languages = tuple(name for name in languages or () if name not in found)
    whole = allow_partial or not missing_languages
    by_section = {name: _mean([sections[language][name] for language in found], allow_partial) for name in SECTIONS}
    return BenchmarkScores(
        languages={
            language: _language(
                [o for o in outcomes if o.language == language], drawn[language], sections[language], scores[language],
                subsets, confidence,
            )
            for language in found
        },
        sections={name: _shown(part if whole else None, confidence) for name, part in by_section.items()},
        score=_shown(_mean(list(scores.values()), allow_partial) if whole else None, confidence),
        missing_languages=missing_languages,
    )  # fmt: skip


def reward_bench_v1(scores: LanguageScores, prior_sets: Mapping[str, float] | None = None) -> float | None:
    """RewardBench's overall score: four sections of weight 1 and, if given, the prior sets of weight 0.5.

    Args:
      scores: of English, with `subsets=REWARD_BENCH`.
      prior_sets: per cent accuracy of each of `PRIOR_SETS`; M-RewardBench has none.

    Returns:
      Per cent; None where a section has no score.

    Raises:
      UserError: other prior sets than those four.
    """
    sections = [scores.sections[name] for name in SECTIONS]
    if any(section is None for section in sections):
        return None
    values, weights = [section.value for section in sections], [1.0] * len(sections)
    if prior_sets is not None:
        if set(prior_sets) != set(PRIOR_SETS):
            raise UserError(f"prior sets {', '.join(sorted(prior_sets))}; all of {', '.join(PRIOR_SETS)} are needed")
        values.append(float(np.mean(list(prior_sets.values()))))
        weights.append(0.5)
    return float(np.average(values, weights=weights))


def _checked(outcomes: Iterable[Outcome], subsets: Subsets) -> list[Outcome]:
    outcomes = list(outcomes)
    for outcome in outcomes:
        if outcome.subset not in subsets:
            near = did_you_mean(near_names(outcome.subset, subsets))
            raise UserError(f"instance {outcome.id!r} ({outcome.language}): unknown subset {outcome.subset!r}{near}")
    counted = Counter((outcome.language, outcome.subset, outcome.id) for outcome in outcomes)
    for (language, _, name), count in counted.items():
        if count > 1:
            raise UserError(f"instance {name!r} ({language}) was judged {count} times")
    return outcomes


def _subset_draws(outcomes: Sequence[Outcome], resamples: int, seed: int) -> dict[str, dict[str, _Drawn]]:
    """Accuracy of each language and subset. Subsets are drawn one by one: their sizes are part of the benchmark."""
    by_subset: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_subset[outcome.subset].append(outcome)
    found: dict[str, dict[str, _Drawn]] = defaultdict(dict)
    for number, (subset, some) in enumerate(sorted(by_subset.items())):
        table = sums((o.language, o.id, 100.0 * o.credit, 1.0) for o in some)
        draws = ratio_draws(table, resamples, _seed_of(seed, number))
        for k, language in enumerate(table.groups):
            found[language][subset] = _Drawn(float(table.ratios[k]), draws[:, k], int(table.present[k].sum()))
    return found


def _seed_of(seed: int, number: int) -> int:
    """A seed of its own for each subset, so that their draws are independent."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _section(drawn: Mapping[str, _Drawn], section: Section, subsets: Subsets, allow_partial: bool) -> _Drawn | None:
    names = [name for name, subset in subsets.items() if subset.section == section]
    there = [name for name in names if name in drawn]
    if not there or (len(there) < len(names) and not allow_partial):
        return None
    weights = np.array([subsets[name].weight for name in there], np.float64)
    weights /= weights.sum()
    return _Drawn(
        float(weights @ [drawn[name].value for name in there]),
        weights @ np.stack([drawn[name].draws for name in there]),
        sum(drawn[name].units for name in there),
    )


def _mean(parts: Sequence[_Drawn | None], allow_partial: bool) -> _Drawn | None:
    """The plain mean; None if a part is None, or with partial scores if all are."""
    there = [part for part in parts if part is not None]
    if not there or (len(there) < len(parts) and not allow_partial):
        return None
    return _Drawn(
        float(np.mean([part.value for part in there])),
        np.mean([part.draws for part in there], axis=0),
        min(part.units for part in there),
    )


def _shown(part: _Drawn | None, confidence: float) -> Estimate | None:
    return None if part is None or math.isnan(part.value) else part.estimate(confidence)


def _language(
    outcomes: Sequence[Outcome],
    drawn: Mapping[str, _Drawn],
    sections: Mapping[Section, _Drawn | None],
    score: _Drawn | None,
    subsets: Subsets,
    confidence: float,
) -> LanguageScores:
    judged = Counter(outcome.subset for outcome in outcomes)
    unparsed: Counter[str] = Counter()
    for outcome in outcomes:
        unparsed[outcome.subset] += outcome.unparsed
    return LanguageScores(
        subsets={
            name: SubsetScore(
                accuracy=drawn[name].estimate(confidence),
                instances=judged[name],
                published=subset.instances,
                unparsed=unparsed[name],
            )
            for name, subset in subsets.items()
            if name in drawn
        },
        sections={name: _shown(part, confidence) for name, part in sections.items()},
        score=_shown(score, confidence),
        missing=tuple(name for name in subsets if name not in drawn),
        short={
            name: (judged[name], subset.instances)
            for name, subset in subsets.items()
            if 0 < judged[name] < subset.instances
        },
    )
