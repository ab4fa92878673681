"""`aya judge`: what a judge makes of answers, from its cost before it starts to scores and how far it can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from aya_jax.config import Resolved
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.judging import config as kinds
from aya_jax.evaluation.judging import tables
from aya_jax.evaluation.judging.bench import RememberingJudge, reward_function
from aya_jax.evaluation.judging.config import ImplicitRewardConfig, JudgeConfig
from aya_jax.evaluation.judging.grading import grade_work
from aya_jax.evaluation.judging.pairwise import labelled_work, pairwise_work
from aya_jax.evaluation.judging.safety import harm_work, transfer_work
from aya_jax.evaluation.judging.sitting import Sitting, Work
from aya_jax.evaluation.results import plain, write
from aya_jax.evaluation.reward_bench.work import reward_bench_2_work, reward_bench_work
from aya_jax.inference.generate import open_model
from aya_jax.inference.prompts import digest
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.synthesis.config import RewardModelConfig

FOLDER = "evaluations"

_WORK: Mapping[type, Callable[[JudgeConfig, Any], Work]] = {
    kinds.PairwiseConfig: pairwise_work,
    kinds.LabelledPairsConfig: labelled_work,
    kinds.RewardBenchConfig: reward_bench_work,
    kinds.RewardBench2Config: reward_bench_2_work,
    kinds.HarmConfig: harm_work,
    kinds.TransferConfig: transfer_work,
    kinds.GradeConfig: grade_work,
}


def run(resolved: Resolved[JudgeConfig]) -> None:
    """Judges, and writes `evaluations/<name>.json` and its records; replies that were given are not asked for again.

    Raises:
      UserError: a file is wrong or an answer missing, the judge is not to be had, or processes have other files.
    """
    from aya_jax.evaluation.subject import known_summary
    from aya_jax.parallel.distributed import check_same, process_info

    config, first = resolved.config, process_info().index == 0
    console = Console(quiet=not first)
    work = _WORK[type(config.what)](config, config.what)
    console.print(work.cost, highlight=False, soft_wrap=True)
    if config.dry_run:
        return
    file = Path(config.run_dir) / FOLDER / f"{config.name}.json"
    heading = {
        "kind": work.kind,
        "name": config.name,
        "fingerprint": resolved.fingerprint,
        "files": {name: digest(name) for name in work.files},
        "weights_digest": identity(config),
        "limit": None,
        "harness": None,
    }
    check_same(json.dumps(heading, sort_keys=True), "other files to judge, or another judge,")
    summary = known_summary(file, heading, console, of="files and this judge")
    if summary is None:
        with _sitting(config, file, work.calls, console) as sitting:
            found, samples = work.ask(sitting)
        summary = write(file, heading | plain(found), samples, first=first)
    tables.show(console, summary)


def identity(config: JudgeConfig) -> str:
    """Of the judge: an endpoint's model, or the digest of weights; of a policy and its reference both.

    Raises:
      UserError: there is no such model.
    """
    judge = config.judge
    if isinstance(judge, RemoteModelConfig):
        return f"{judge.base_url} {judge.model}"
    from aya_jax.interop.model_dir import find_model, weights_digest

    def of(path: str, adapter: str | None = None) -> str:
        return weights_digest(find_model(path, lambda text: None, adapter))

    digests = [of(judge.model_dir, getattr(judge, "adapter", None))]
    if isinstance(judge, ImplicitRewardConfig) and judge.reference_dir is not None:
        digests.append(of(judge.reference_dir))
    return " ".join(digests)


@contextmanager
def _sitting(config: JudgeConfig, file: Path, calls: int, console: Console) -> Iterator[Sitting]:
    from aya_jax.training.console import tracker

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    judge = config.judge
    models = 2 if isinstance(judge, ImplicitRewardConfig) and judge.reference_dir is not None else 1
    with tracker(console)("judgements", calls * models) as advance:
        if isinstance(judge, ImplicitRewardConfig):
            from aya_jax.evaluation.judging.implicit import implicit_rewards

            yield Sitting(config, None, implicit_rewards(judge, file, console, advance))
            return
        if isinstance(judge, RewardModelConfig):
            yield Sitting(config, None, reward_function(judge, say, advance))
            return
        together = not isinstance(judge, RemoteModelConfig)
        known = Answers(file.parent / "answers" / "judge.jsonl", together=together)
        with known as answers, open_model(judge, say) as generator:
            known_as = identity(config) if isinstance(judge, RemoteModelConfig) else generator.weights_digest
            yield Sitting(config, RememberingJudge(generator, known_as, answers, advance), None)
