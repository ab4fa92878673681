"""`aya judge`: what a judge makes of answers, from its cost before it starts to scores and how far it can be trusted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.judging import tables
from aya_jax.evaluation.judging.agreement import judge_agreement, load_llmbar, pair_battles
from aya_jax.evaluation.judging.asking import judge_sampling
from aya_jax.evaluation.judging.audit import audit, audit_by_language
from aya_jax.evaluation.judging.battles import Battle, Game, make_battles
from aya_jax.evaluation.judging.bench import RememberingJudge, reward_function
from aya_jax.evaluation.judging.bradley_terry import bradley_terry
from aya_jax.evaluation.judging.config import (
    HarmConfig,
    JudgeConfig,
    LabelledPairsConfig,
    PairwiseConfig,
    RewardBenchConfig,
)
from aya_jax.evaluation.judging.harm import (
    Labelled,
    judge_labels,
    load_red_team,
    rates,
    relative_change,
    relative_changes_by,
)
from aya_jax.evaluation.judging.judge import RewardFunction, estimate_cost, judge_games, reward_games
from aya_jax.evaluation.judging.load import load_prompts
from aya_jax.evaluation.judging.scores import arena_hard_scores, battles_of, prompt_scores, win_tie_loss
from aya_jax.evaluation.judging.style import FEATURES
from aya_jax.evaluation.results import Sample, plain, read_summary, write
from aya_jax.evaluation.reward_bench.agreement import language_agreement
from aya_jax.evaluation.reward_bench.credit import judge_outcomes, reward_outcomes
from aya_jax.evaluation.reward_bench.instances import Outcome, load_instances
from aya_jax.evaluation.reward_bench.scores import benchmark_scores
from aya_jax.evaluation.reward_bench.subsets import M_REWARD_BENCH, REWARD_BENCH
from aya_jax.evaluation.rows import read_rows
from aya_jax.inference.generate import open_model
from aya_jax.inference.prompts import digest
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.synthesis.config import RewardModelConfig

FOLDER = "evaluations"


@dataclasses.dataclass(frozen=True)
class Sitting:
    """A judge at work.

    Attributes:
      config: what is asked for.
      judge: who writes verdicts; None where a reward model judges.
      reward: the reward model; None where verdicts are written.
    """

    config: JudgeConfig
    judge: RememberingJudge | None
    reward: RewardFunction | None

    @property
    def options(self) -> dict[str, Any]:
        """Of every bootstrap."""
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    @property
    def asking(self) -> dict[str, Any]:
        """Of every question."""
        sampling = judge_sampling(self.config.max_tokens, self.config.seed)
        return {"sampling": sampling, "name_language": self.config.name_language}

    def games(self, battles: list[Battle], margin: float, form: str) -> list[Game]:
        """Both orders of every battle."""
        if self.reward is not None:
            return list(reward_games(self.reward, battles, margin=margin))
        return list(judge_games(self.judge, battles, form=form, **self.asking))


def run(resolved: Resolved[JudgeConfig]) -> None:
    """Judges, and writes `evaluations/<name>.json` and its records; replies that were given are not asked for again.

    Raises:
      UserError: a file is wrong or an answer missing, or the judge is not to be had.
    """
    from aya_jax.evaluation.subject import tracker

    config, console = resolved.config, Console()
    ask, calls, files = _prepare(config, console)
    if config.dry_run:
        return
    file = Path(config.run_dir) / FOLDER / f"{config.name}.json"
    heading = {
        "kind": "benchmarks" if isinstance(config.what, PairwiseConfig) else "judged",
        "name": config.name,
        "fingerprint": resolved.fingerprint,
        "files": {name: digest(name) for name in files},
        "limit": None,
        "harness": None,
    }
    summary = read_summary(file)
    if summary and all(summary.get(name) == heading[name] for name in ("fingerprint", "files")):
        console.print(f"{file} is there for these files and this judge.")
    else:
        with _sitting(config, file, calls, tracker(console), console) as sitting:
            found, samples = ask(sitting)
        summary = write(file, heading | {"weights_digest": _identity(config)} | plain(found), samples)
    tables.show(console, summary)


def _prepare(config: JudgeConfig, console: Console) -> tuple[Callable[[Sitting], Any], int, tuple[str, ...]]:
    """What does the judging, how many replies it takes, and the files that it reads; says the cost."""
    what = config.what
    if isinstance(what, PairwiseConfig):
        battles = _battles(what)
        _say_cost(config, battles, what.form, console)
        return lambda sitting: _pairwise(sitting, battles, what), 2 * len(battles), (what.answers, what.baseline)
    if isinstance(what, LabelledPairsConfig):
        pairs = [pair for file in what.files for pair in load_llmbar(file)]
        battles = pair_battles(pairs)
        _say_cost(config, battles, "win_tie_loss", console)
        return lambda sitting: _labelled(sitting, pairs, battles, what), 2 * len(battles), what.files
    if isinstance(what, RewardBenchConfig):
        subsets = M_REWARD_BENCH if what.benchmark == "m_reward_bench" else REWARD_BENCH
        language = what.language or (what.english if what.benchmark == "reward_bench" else None)
        instances = [i for file in what.files for i in load_instances(file, subsets=subsets, language=language)]
        calls = (2 if what.both_orders or isinstance(config.judge, RewardModelConfig) else 1) * len(instances)
        console.print(f"{calls:,} judgements of {len(instances):,} pairs.", highlight=False)
        return lambda sitting: _reward_bench(sitting, instances, subsets, what), calls, what.files
    files = tuple(name for name in (what.answers, what.baseline, what.harmless) if name)
    texts = {name: answers_of(name, what.language) for name in files}
    calls = sum(map(len, texts.values()))
    console.print(f"{calls:,} answers to be judged, each alone.", highlight=False)
    return lambda sitting: _harm(sitting, texts, what), calls, files


@contextmanager
def _sitting(config: JudgeConfig, file: Path, calls: int, track: Any, console: Console) -> Iterator[Sitting]:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    with track("judgements", calls) as advance:
        if isinstance(config.judge, RewardModelConfig):
            yield Sitting(config, None, reward_function(config.judge, say, advance))
            return
        with (
            Answers(file.parent / "answers" / f"judge-{config.name}.jsonl") as answers,
            open_model(config.judge, say) as judge,
        ):
            identity = _identity(config) if isinstance(config.judge, RemoteModelConfig) else judge.weights_digest
            yield Sitting(config, RememberingJudge(judge, identity, answers, advance), None)


def _identity(config: JudgeConfig) -> str:
    """Of the judge, for people: an endpoint's model, or a directory."""
    judge = config.judge
    return f"{judge.base_url} {judge.model}" if isinstance(judge, RemoteModelConfig) else judge.model_dir


def _say_cost(config: JudgeConfig, battles: list[Battle], form: str, console: Console) -> None:
    if isinstance(config.judge, RewardModelConfig):
        console.print(f"{2 * len(battles):,} answers to be scored.", highlight=False)
        return
    sampling = judge_sampling(config.max_tokens, config.seed)
    cost = estimate_cost(battles, form=form, name_language=config.name_language, sampling=sampling)
    console.print(
        f"{cost.calls:,} calls with {cost.prompt_characters:,} characters of prompts ({cost.prompt_bytes:,} bytes), and at "
        f"most {cost.most_new_tokens:,} new tokens; replies that are known are not asked for again.",
        highlight=False,
        soft_wrap=True,
    )


def answers_of(file: str, language: str | None) -> dict[tuple[str, str], str]:
    """Answers by (language, id) from a file of `aya generate`: each row's first completion.

    Raises:
      UserError: a row has none; it names the line.
    """
    prompts, texts = load_prompts(file, language=language), []
    for row in read_rows(file):
        completions = row.fields.get("completions")
        if not isinstance(completions, list) or not completions or "text" not in completions[0]:
            raise row.problem("completions", "is missing: the file is to be written by `aya generate`")
        texts.append(completions[0]["text"])
    return {prompt.key: text for prompt, text in zip(prompts, texts, strict=True)}


def _battles(what: PairwiseConfig) -> list[Battle]:
    if Path(what.answers).resolve() == Path(what.baseline).resolve():
        raise UserError(f"{what.answers}: named as the model's answers and as the baseline's")
    return make_battles(
        load_prompts(what.answers, language=what.language),
        answers_of(what.answers, what.language),
        answers_of(what.baseline, what.language),
        model="model",
        baseline="baseline",
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
    sitting: Sitting, pairs: list[Any], battles: list[Battle], what: LabelledPairsConfig
) -> tuple[dict[str, Any], list[Sample]]:
    games = sitting.games(battles, what.margin, "win_tie_loss")
    by_file: dict[str, list[Game]] = {}
    for game in games:
        by_file.setdefault(game.prompt_id.partition(":")[0], []).append(game)
    agreements = {"all": judge_agreement(games, pairs, **sitting.options)} | {
        name: judge_agreement(found, [p for p in pairs if p.id.partition(":")[0] == name], **sitting.options)
        for name, found in by_file.items()
    }
    return {"agreement": agreements, "audit": {"all": audit(games)}}, [
        _record(f"labelled/{game.prompt_id}/{game.order}", game.language, dataclasses.asdict(game)) for game in games
    ]


def _reward_bench(
    sitting: Sitting, instances: list[Any], subsets: Any, what: RewardBenchConfig
) -> tuple[dict[str, Any], list[Sample]]:
    if sitting.reward is not None:
        outcomes: list[Outcome] = list(reward_outcomes(sitting.reward, instances))
    else:
        orders = "both" if what.both_orders else "hashed"
        asking = sitting.asking | {"orders": orders, "seed": sitting.config.seed}
        outcomes = list(judge_outcomes(sitting.judge, instances, **asking))
    options = {"subsets": subsets, "allow_partial": what.allow_partial, **sitting.options}
    found: dict[str, Any] = {"benchmark": what.benchmark, "scores": benchmark_scores(outcomes, **options)}
    languages = {outcome.language for outcome in outcomes}
    if what.english in languages and len(languages) > 1:
        found["agreement_with_english"] = language_agreement(outcomes, what.english, **sitting.options)
    return found, [
        _record(f"{what.benchmark}/{o.language}/{o.id}", o.language, dataclasses.asdict(o)) for o in outcomes
    ]


def _harm(
    sitting: Sitting, texts: dict[str, dict[tuple[str, str], str]], what: HarmConfig
) -> tuple[dict[str, Any], list[Sample]]:
    def labelled(file: str, form: str) -> list[Labelled]:
        prompts = load_red_team(file, language=what.language)
        return list(judge_labels(sitting.judge, prompts, texts[file], form=form, **sitting.asking))

    records = {"harm": labelled(what.answers, "harm")}
    found: dict[str, Any] = {"harm": rates(records["harm"], **sitting.options)}
    if what.baseline:
        records["baseline"] = labelled(what.baseline, "harm")
        found["baseline"] = rates(records["baseline"], **sitting.options)
        pair = records["harm"], records["baseline"]
        found["relative_change"] = {"all": relative_change(*pair, **sitting.options)} | {
            part: relative_changes_by(part, *pair, **sitting.options) for part in ("language", "category", "scope")
        }
    if what.harmless:
        records["refusal"] = labelled(what.harmless, "refusal")
        found["over_refusal"] = rates(records["refusal"], **sitting.options)
    return found, [
        _record(f"{name}/{r.language}/{r.prompt_id}", r.language, dataclasses.asdict(r))
        for name, part in records.items()
        for r in part
    ]


def _record(name: str, language: str, fields: Mapping[str, Any]) -> Sample:
    """A record of a judgement that is no model's score."""
    family = name.partition("/")[0]
    return Sample(
        id=name, task=family, family=family, item=name, language=language, metrics={}, prediction=None, target=None,
        prompt="", doc=plain(fields),
    )  # fmt: skip
