"""Two answers side by side: which model's is better, and whether a judge sees it as people do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.evaluation.judging.agreement import Agreement, LabelledPair, judge_agreement, load_llmbar, pair_battles
from aya_jax.evaluation.judging.asking import judge_sampling
from aya_jax.evaluation.judging.audit import audit, audit_by_language
from aya_jax.evaluation.judging.battles import Battle, Game, make_battles
from aya_jax.evaluation.judging.bradley_terry import bradley_terry
from aya_jax.evaluation.judging.config import JudgeConfig, LabelledPairsConfig, PairwiseConfig
from aya_jax.evaluation.judging.judge import estimate_cost
from aya_jax.evaluation.judging.krippendorff import krippendorff_alpha
from aya_jax.evaluation.judging.load import load_prompts
from aya_jax.evaluation.judging.scores import arena_hard_scores, battles_of, prompt_scores, win_tie_loss
from aya_jax.evaluation.judging.sitting import Sitting, Work, answers_of, records
from aya_jax.evaluation.judging.style import FEATURES
from aya_jax.evaluation.results import Sample, plain


def pairwise_work(config: JudgeConfig, what: PairwiseConfig) -> Work:
    """Win rates of a model against a baseline.

    Raises:
      UserError: a file is wrong, or an answer missing.
    """
    battles = load_battles(what)
    return Work(
        calls=2 * len(battles),
        cost=_cost(config, battles, what.form),
        files=(what.answers, what.baseline),
        ask=lambda sitting: _pairwise(sitting, battles, what),
        kind="benchmarks",
    )


def labelled_work(config: JudgeConfig, what: LabelledPairsConfig) -> Work:
    """A judge against people.

    Raises:
      UserError: a file is wrong.
    """
    pairs = [pair for file in what.files for pair in load_llmbar(file)]
    battles = pair_battles(pairs)
    return Work(
        calls=2 * len(battles),
        cost=_cost(config, battles, "win_tie_loss"),
        files=what.files,
        ask=lambda sitting: _labelled(sitting, pairs, battles, what),
    )


def load_battles(what: PairwiseConfig) -> list[Battle]:
    """A battle for every prompt.

    Raises:
      UserError: as `pairwise_work`.
    """
    if Path(what.answers).resolve() == Path(what.baseline).resolve():
        raise UserError(f"{what.answers}: named as the model's answers and as the baseline's")
    return make_battles(
        load_prompts(what.answers, language=what.language),
        answers_of(what.answers, what.language),
        answers_of(what.baseline, what.language),
    )


def _cost(config: JudgeConfig, battles: list[Battle], form: str) -> str:
    if config.rewards:
        return f"{2 * len(battles):,} answers to be scored."
    sampling = judge_sampling(config.max_tokens, config.seed)
    cost = estimate_cost(battles, form=form, name_language=config.name_language, sampling=sampling)
    return (
        f"{cost.calls:,} calls with {cost.prompt_characters:,} characters of prompts ({cost.prompt_bytes:,} bytes), and at "
        f"most {cost.most_new_tokens:,} new tokens; replies that are known are not asked for again."
    )


def _pairwise(sitting: Sitting, battles: list[Battle], what: PairwiseConfig) -> tuple[dict[str, Any], list[Sample]]:
    games = sitting.games(battles, what.margin, what.form)
    found: dict[str, Any] = {
        "model": Path(what.answers).stem,
        "baseline": Path(what.baseline).stem,
        "form": what.form,
        "audit": {"all": audit(games), **audit_by_language(games)},
        "unparsed": [(game.language, game.prompt_id, game.order, game.error) for game in games if not game.verdict][
            :20
        ],
    }
    rules = {"strong_weight": what.strong_weight, "unparsed": what.unparsed}
    if what.form == "arena_hard":
        found["scores"] = arena_hard_scores(games, **rules, **sitting.options)
        found["upstream_interval"] = arena_hard_scores(games, **rules, interval="arena_hard", **sitting.options).macro
    else:
        languages, macro = win_tie_loss(games, ties=what.ties, **sitting.options)
        found["scores"], rules = {"languages": languages, "macro": macro}, rules | {"strong_weight": 1}
    if what.style:
        fitted = bradley_terry(games, features=FEATURES, **rules, seed=sitting.config.seed)
        found["style_controlled"] = {"languages": fitted.languages, "macro": fitted.macro}
    return found, _pair_samples(battles, games, what, rules)


def _pair_samples(
    battles: list[Battle], games: list[Game], what: PairwiseConfig, rules: Mapping[str, Any]
) -> list[Sample]:
    """A record of each prompt: the model's score on it from both games, so that two models can be compared prompt by prompt."""
    scored = {(s.language, s.prompt_id): s.score / 100 for s in prompt_scores(games, **rules)}
    played = {key[2:]: [dataclasses.asdict(game) for game in pair.values()] for key, pair in battles_of(games).items()}
    return [
        Sample(
            id=f"{what.form}_{battle.language}/{battle.prompt_id}",
            task=f"{what.form}_{battle.language}",
            family=what.form,
            item=battle.prompt_id,
            language=battle.language,
            metrics={} if math.isnan(score) else {"win_rate": score},
            prediction=battle.model_answer,
            target=battle.baseline_answer,
            prompt=battle.messages[-1].content,
            doc={"games": plain(played[battle.language, battle.prompt_id])},
        )
        for battle in battles
        for score in [scored[battle.language, battle.prompt_id]]
    ]


def _labelled(
    sitting: Sitting, pairs: list[LabelledPair], battles: list[Battle], what: LabelledPairsConfig
) -> tuple[dict[str, Any], list[Sample]]:
    games = sitting.games(battles, what.margin, "win_tie_loss")
    groups: dict[str, list[LabelledPair]] = {"all": pairs}
    for pair in pairs:
        groups.setdefault(pair.id.partition(":")[0], []).append(pair)

    def of(some: list[LabelledPair]) -> Agreement:
        names = {pair.id for pair in some}
        return judge_agreement([game for game in games if game.prompt_id in names], some, **sitting.options)

    found: dict[str, Any] = {
        "agreement": {name: of(some) for name, some in groups.items()},
        "audit": {"all": audit(games)},
    }
    if any(len(pair.labels) > 1 for pair in pairs):
        found["raters"] = raters(games, pairs, **sitting.options)
    return found, records("labelled", games, lambda game: f"{game.prompt_id}/{game.order}")


def raters(games: Sequence[Game], pairs: Sequence[LabelledPair], **options: Any) -> dict[str, dict[str, Any]]:
    """Krippendorff's alpha of people, and of people and the judge, of all pairs and by language and subject.

    The judge's label is that of both of its games together; where they contradict each other it is a tie.
    """
    said: dict[str, list[int]] = {}
    for game in games:
        if game.strength is not None:
            said.setdefault(game.prompt_id, []).append(int(np.sign(game.strength)))
    judge = {name: {1: 1, 0: 0, -1: 2}[int(np.sign(sum(signs)))] for name, signs in said.items()}
    groups: dict[str, list[LabelledPair]] = {"all": list(pairs)}
    for part in ("language", "subject"):
        names = {getattr(pair, part) for pair in pairs}
        for name in sorted(names - {""}) if len(names) > 1 else ():
            groups[f"{part} {name}"] = [pair for pair in pairs if getattr(pair, part) == name]
    return {
        name: {
            "people": krippendorff_alpha([pair.labels for pair in some], **options),
            "with_judge": krippendorff_alpha([(*pair.labels, judge.get(pair.id)) for pair in some], **options),
            "pairs": len(some),
            "most_labels": max(len(pair.labels) for pair in some),
            "undecided": sum(pair.label is None for pair in some),
        }
        for name, some in groups.items()
    }
