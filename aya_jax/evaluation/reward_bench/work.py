"""The reward benchmarks as work for `aya judge`."""

from __future__ import annotations

from typing import Any

from aya_jax.evaluation.judging.config import JudgeConfig, RewardBench2Config, RewardBenchConfig
from aya_jax.evaluation.judging.sitting import Sitting, Work, records
from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.reward_bench import best_of_four
from aya_jax.evaluation.reward_bench.agreement import language_agreement
from aya_jax.evaluation.reward_bench.credit import judge_outcomes, reward_outcomes
from aya_jax.evaluation.reward_bench.instances import Instance, load_instances
from aya_jax.evaluation.reward_bench.scores import benchmark_scores
from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, REWARD_BENCH, Subsets, cell_of
from aya_jax.evaluation.reward_bench.translation import translation_scores


def reward_bench_work(config: JudgeConfig, what: RewardBenchConfig) -> Work:
    """RewardBench or M-RewardBench.

    Raises:
      UserError: a file is wrong.
    """
    subsets = M_REWARD_BENCH if what.benchmark == "m_reward_bench" else REWARD_BENCH
    language = what.language or (what.english if what.benchmark == "reward_bench" else None)
    instances = [i for file in what.files for i in load_instances(file, subsets=subsets, language=language)]
    calls = (2 if what.both_orders or config.rewards else 1) * len(instances)
    return Work(
        calls=calls,
        cost=f"{calls:,} judgements of {len(instances):,} pairs.",
        files=what.files,
        ask=lambda sitting: _reward_bench(sitting, instances, subsets, what),
    )


def reward_bench_2_work(config: JudgeConfig, what: RewardBench2Config) -> Work:
    """RewardBench 2.

    Raises:
      UserError: a file is wrong.
    """
    del config
    choices = [choice for file in what.files for choice in best_of_four.load_choices(file)]
    calls = sum(len(choice.right) + len(choice.wrong) for choice in choices)

    def ask(sitting: Sitting) -> tuple[dict[str, Any], list[Sample]]:
        chosen = best_of_four.choose(sitting.reward, choices)
        found = best_of_four.scores(chosen, allow_partial=what.allow_partial, **sitting.options)
        return {"reward_bench_2": found}, records("reward_bench_2", chosen, lambda one: f"{one.subset}/{one.id}")

    return Work(
        calls=calls, cost=f"{calls:,} answers to {len(choices):,} questions to be scored.", files=what.files, ask=ask
    )


def _reward_bench(
    sitting: Sitting, instances: list[Instance], subsets: Subsets, what: RewardBenchConfig
) -> tuple[dict[str, Any], list[Sample]]:
    if sitting.reward is not None:
        outcomes = list(reward_outcomes(sitting.reward, instances))
    else:
        orders = "both" if what.both_orders else "hashed"
        asking = sitting.asking | {"orders": orders, "seed": sitting.config.seed}
        judged = judge_outcomes(sitting.judge, instances, **asking)
        outcomes = sorted(judged, key=lambda outcome: (outcome.language, outcome.subset, outcome.id))
    translated = [outcome for outcome in outcomes if cell_of(outcome.subset)]
    others = [outcome for outcome in outcomes if not cell_of(outcome.subset)]
    found: dict[str, Any] = {"benchmark": what.benchmark}
    if others:
        options = {"subsets": subsets, "allow_partial": what.allow_partial, **sitting.options}
        found["scores"] = benchmark_scores(others, **options)
    if translated:
        found["translation"] = translation_scores(translated, allow_partial=what.allow_partial, **sitting.options)
    languages = {outcome.language for outcome in others}
    if what.english in languages and len(languages) > 1:
        english = [outcome for outcome in others if outcome.language == what.english]
        found["agreement_with_english"] = language_agreement(others, english, **sitting.options)
    return found, records(what.benchmark, outcomes, lambda outcome: f"{outcome.language}/{outcome.subset}/{outcome.id}")
