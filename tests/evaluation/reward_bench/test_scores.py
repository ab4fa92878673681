"""Scores of subsets, sections, languages and the benchmark; what is missing is said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.evaluation.reward_bench.credit import by_rewards
from aya_jax.evaluation.reward_bench.instances import Instance
from aya_jax.evaluation.reward_bench.scores import benchmark_scores, reward_bench_v1
from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, PRIOR_SETS, REWARD_BENCH, SECTIONS

LANGUAGES = ("arb_Arab", "deu_Latn")


def instances(table=M_REWARD_BENCH, languages=LANGUAGES, cut=None):
    """Every instance of a benchmark, or the first `cut` of each subset."""
    for language in languages:
        for subset, described in table.items():
            for k in range(min(described.instances, cut or described.instances)):
                yield Instance(
                    id=f"{subset}/{k}", language=language, subset=subset, prompt="?", chosen="a", rejected="b"
                )


def outcomes(reward, **which):
    return [by_rewards(each, *reward(each)) for each in instances(**which)]


def random_outcomes(seed=0, **which):
    rng = np.random.default_rng(seed)
    return outcomes(lambda each: (rng.normal(0.8), rng.normal()), **which)


def values(sections):
    return {name: part and part.value for name, part in sections.items()}


@pytest.mark.parametrize(
    ("reward", "score"), [(lambda i: (1.0, 0.0), 100.0), (lambda i: (0.0, 1.0), 0.0), (lambda i: (1.0, 1.0), 0.0)]
)
def test_perfect_inverted_and_constant_rewards(reward, score):
    found = benchmark_scores(outcomes(reward), languages=LANGUAGES, resamples=10)
    assert found.score.value == pytest.approx(score)
    assert values(found.sections) == pytest.approx(dict.fromkeys(SECTIONS, score))
    for scores in found.languages.values():
        assert scores.score.value == pytest.approx(score)
        assert (scores.missing, scores.short, scores.partial) == ((), {}, False)
    assert found.missing_languages == ()


@pytest.mark.parametrize("table", [M_REWARD_BENCH, REWARD_BENCH])
def test_sections_weigh_subsets_by_hand(table):
    """Rewards by chance: a section is Σ accuracy · weight / Σ weight, and a language their plain mean."""
    given = random_outcomes(table=table)
    found = benchmark_scores(given, subsets=table, resamples=2)
    by_language = []
    for language in LANGUAGES:
        sections = {}
        for section in SECTIONS:
            above = below = 0.0
            for name, subset in table.items():
                if subset.section == section:
                    credits = [o.credit for o in given if (o.language, o.subset) == (language, name)]
                    assert found.languages[language].subsets[name].accuracy.value == pytest.approx(
                        100 * np.mean(credits)
                    )
                    above += subset.weight * np.mean(credits)
                    below += subset.weight
            sections[section] = 100 * above / below
        assert values(found.languages[language].sections) == pytest.approx(sections)
        by_language.append(np.mean(list(sections.values())))
        assert found.languages[language].score.value == pytest.approx(by_language[-1])
    assert found.score.value == pytest.approx(np.mean(by_language))


def test_mathematics_is_half_of_reasoning():
    given = outcomes(lambda each: (float(each.subset == "math-prm"), 0.0))
    assert benchmark_scores(given, resamples=2).languages["arb_Arab"].sections["Reasoning"].value == 50.0


def test_half_credit_counts_half():
    given = [dataclasses.replace(o, credit=0.5, unparsed=1) for o in outcomes(lambda each: (1.0, 0.0))]
    found = benchmark_scores(given, resamples=2)
    assert found.score.value == pytest.approx(50.0)
    assert found.languages["arb_Arab"].subsets["hep-go"].unparsed == 164


def test_a_missing_subset_leaves_its_section_without_a_score():
    given = [o for o in random_outcomes() if not (o.subset == "mt-bench-easy" and o.language == "deu_Latn")]
    whole, partial = (benchmark_scores(given, allow_partial=allow, resamples=5) for allow in (False, True))
    for found in (whole, partial):
        assert found.languages["deu_Latn"].missing == ("mt-bench-easy",)
        assert found.languages["deu_Latn"].partial
        assert not found.languages["arb_Arab"].partial
        assert found.languages["arb_Arab"].score is not None
    german = whole.languages["deu_Latn"]
    assert {name for name, part in german.sections.items() if part is None} == {"Chat"}
    assert (german.score, whole.score, whole.sections["Chat"]) == (None, None, None)
    assert whole.sections["Safety"] is not None
    by_hand = {n: [o.credit for o in given if (o.language, o.subset) == ("deu_Latn", n)] for n in M_REWARD_BENCH}
    names = [n for n, s in M_REWARD_BENCH.items() if s.section == "Chat" and by_hand[n]]
    chat = np.average([np.mean(by_hand[n]) for n in names], weights=[M_REWARD_BENCH[n].weight for n in names])
    assert partial.languages["deu_Latn"].sections["Chat"].value == pytest.approx(100 * chat)
    assert partial.score.value == pytest.approx(np.mean([s.score.value for s in partial.languages.values()]))


def test_a_section_without_any_subset_has_no_score_even_in_part():
    given = [o for o in random_outcomes(languages=["arb_Arab"]) if M_REWARD_BENCH[o.subset].section != "Safety"]
    found = benchmark_scores(given, allow_partial=True, resamples=2).languages["arb_Arab"]
    assert found.sections["Safety"] is None
    assert found.score.value == pytest.approx(np.mean([found.sections[n].value for n in SECTIONS if n != "Safety"]))


def test_too_few_instances_are_said():
    found = benchmark_scores(random_outcomes(cut=30), resamples=2).languages["arb_Arab"]
    assert found.missing == ()
    assert found.partial
    assert found.short["math-prm"] == (30, 447)
    assert "mt-bench-easy" not in found.short  # it has 24
    assert (found.subsets["hep-go"].instances, found.subsets["hep-go"].published) == (30, 164)


def test_a_missing_language_leaves_the_benchmark_without_a_score():
    given = random_outcomes()
    found = benchmark_scores(given, languages=(*LANGUAGES, "tur_Latn"), resamples=2)
    assert found.missing_languages == ("tur_Latn",)
    assert found.score is None
    assert set(values(found.sections).values()) == {None}
    part = benchmark_scores(given, languages=(*LANGUAGES, "tur_Latn"), allow_partial=True, resamples=2)
    assert (part.missing_languages, part.score.value) == (
        ("tur_Latn",),
        benchmark_scores(given, resamples=2).score.value,
    )
    assert benchmark_scores([], languages=LANGUAGES).score is None


def test_what_is_not_the_benchmark_s_is_refused():
    (one,) = [by_rewards(next(instances()), 1.0, 0.0)]
    with pytest.raises(UserError, match=r"unknown subset 'hep-pyton'; did you mean hep-python"):
        benchmark_scores([dataclasses.replace(one, subset="hep-pyton")])
    with pytest.raises(UserError, match=r"was judged 2 times"):
        benchmark_scores([one, one])


def test_the_interval_is_that_of_independent_subsets():
    """A section's standard error: the root of Σ w² p (1 - p) / n; a language's that of four sections by 4."""
    found = benchmark_scores(random_outcomes(languages=["arb_Arab"]), resamples=1500).languages["arb_Arab"]
    variances = []
    for section in SECTIONS:
        names = [n for n, s in M_REWARD_BENCH.items() if s.section == section]
        weights = np.array([M_REWARD_BENCH[n].weight for n in names]) / sum(M_REWARD_BENCH[n].weight for n in names)
        p = np.array([found.subsets[n].accuracy.value / 100 for n in names])
        n = np.array([M_REWARD_BENCH[n].instances for n in names])
        variances.append(np.sum(weights**2 * p * (1 - p) / n))
        part = found.sections[section]
        assert (part.high - part.low) / 3.92 == pytest.approx(100 * math.sqrt(variances[-1]), rel=0.1)
    assert (found.score.high - found.score.low) / 3.92 == pytest.approx(100 * math.sqrt(sum(variances)) / 4, rel=0.1)


def test_subsets_are_drawn_independently():
    """Right in the same places of every subset: were places drawn for all at once, errors would add up, not their squares."""
    given = outcomes(lambda each: (float(int(each.id.split("/")[1]) % 2), 0.5), languages=["arb_Arab"])
    part = benchmark_scores(given, resamples=2000).languages["arb_Arab"].sections["Reasoning"]
    names = [n for n, s in M_REWARD_BENCH.items() if s.section == "Reasoning"]
    shares = np.array([M_REWARD_BENCH[n].weight for n in names]) / sum(M_REWARD_BENCH[n].weight for n in names)
    error = 100 * math.sqrt(sum(w**2 * 0.25 / M_REWARD_BENCH[n].instances for w, n in zip(shares, names, strict=True)))
    assert (part.high - part.low) / 3.92 == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize(("shared", "ratio"), [(True, 1.0), (False, 1 / math.sqrt(2))])
def test_an_instance_is_drawn_in_all_languages_at_once(shared, ratio):
    arabic = random_outcomes(languages=["arb_Arab"])
    german = [dataclasses.replace(o, language="deu_Latn", id=o.id if shared else f"own {o.id}") for o in arabic]
    found = benchmark_scores([*arabic, *german], resamples=800)
    one = found.languages["arb_Arab"].score
    assert (found.score.high - found.score.low) / (one.high - one.low) == pytest.approx(ratio, abs=0.08)


def test_reward_bench_v1():
    scores = benchmark_scores(
        random_outcomes(table=REWARD_BENCH, languages=["eng_Latn"]), subsets=REWARD_BENCH, resamples=2
    )
    english = scores.languages["eng_Latn"]
    four = [english.sections[name].value for name in SECTIONS]
    assert reward_bench_v1(english) == pytest.approx(np.mean(four))
    prior = dict(zip(PRIOR_SETS, (70.0, 80.0, 60.0, 50.0), strict=True))
    assert reward_bench_v1(english, prior) == pytest.approx((sum(four) + 0.5 * 65.0) / 4.5)
    with pytest.raises(UserError, match="all of anthropic_helpful, anthropic_hhh, shp, summarize"):
        reward_bench_v1(english, {"shp": 1.0})
    assert reward_bench_v1(dataclasses.replace(english, sections={**english.sections, "Chat": None})) is None
