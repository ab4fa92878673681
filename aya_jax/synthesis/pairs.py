"""Scored answers to what a round is trained on, pairs or answers with advantages, and that to token stores."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from aya_jax.config import UserError
from aya_jax.data import prepare, store
from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from aya_jax.objectives.config import PolicyGradientConfig
from aya_jax.objectives.policy_gradient import advantages
from aya_jax.parallel import shared_files
from aya_jax.synthesis.answers import Asked, Record

TASK = "online_"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a round is trained on, and why prompts gave nothing.

    Attributes:
      form: what the rows are, as `TaskConfig.form`.
      rows: records with a prompt and a language: pairs of the best and the worst answer, or answers with their advantages.
      margins: of each prompt that gave something, the best reward less the worst.
      left_out: why → how many prompts gave nothing.
    """

    form: Literal["preference", "scored"]
    rows: list[dict[str, Any]]
    margins: list[float]
    left_out: dict[str, int]


def choose(
    asked: Sequence[Asked],
    records: Sequence[Record],
    min_margin: float,
    policy: PolicyGradientConfig | None = None,
    reference: Sequence[float] = (),
) -> Chosen:
    """The best and the worst answer to each prompt as a pair, or with `policy` all of them with their advantages.

    Of equal rewards the first drawn counts. Left out are prompts with fewer than two answers that have a reward, with equal
    rewards, or with less than `min_margin` between them.

    Args:
      asked: the prompts.
      records: their scored answers.
      min_margin: see above.
      policy: says how advantages are made.
      reference: with `policy`, the log-probability of every answer of `records`, in order, under the model as it came.
    """
    rows: list[dict[str, Any]] = []
    margins, left_out, behind = [], collections.Counter(), iter(reference)
    for each, record in zip(asked, records, strict=True):
        answers = [answer | {"reference": next(behind)} if policy else answer for answer in record["answers"]]
        usable = [answer for answer in answers if answer["reward"] is not None]
        if len(usable) < 2:
            left_out["too few answers that can be judged"] += 1
            continue
        best, worst = (pick(usable, key=lambda answer: answer["reward"]) for pick in (max, min))
        margin = best["reward"] - worst["reward"]
        if margin == 0 or best["text"] == worst["text"]:
            left_out["all answers equally good"] += 1
        elif margin < min_margin:
            left_out["margin below min_margin"] += 1
        else:
            head = {
                "prompt": [dataclasses.asdict(m) for m in each.messages],
                "language": record["language"],
                "row": each.number,
            }
            made = _pair(best, worst) if policy is None else _advantages(usable, policy)
            rows += [head | row for row in made]
            margins.append(margin)
    return Chosen("preference" if policy is None else "scored", rows, margins, dict(left_out))


def _pair(best: Mapping[str, Any], worst: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"chosen": _said(best), "rejected": _said(worst), "margin": best["reward"] - worst["reward"]}]


def _advantages(usable: Sequence[Mapping[str, Any]], policy: PolicyGradientConfig) -> list[dict[str, Any]]:
    penalised = [answer["reward"] - policy.beta * (answer["log_prob"] - answer["reference"]) for answer in usable]
    values = advantages(penalised, policy).tolist()
    return [{"answer": _said(answer), "value": value} for answer, value in zip(usable, values, strict=True)]


def _said(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer["text"]}]


def store_rows(chosen: Chosen, folder: Path, vocabulary: str, permille: int) -> Path:
    """Writes the rows, and a token store of each language with at least two prompts; returns the stores' directory.

    Of each language the first prompts, `permille` of a thousand and at least one, are held out. Of several processes, all of
    which must call it, process 0 writes.

    Raises:
      UserError: no language has enough prompts, or a row cannot be rendered.
    """
    prompts: dict[str, dict[int, None]] = {}
    for row in chosen.rows:
        prompts.setdefault(row["language"], {})[row["row"]] = None
    prompts = {language: found for language, found in sorted(prompts.items()) if len(found) > 1}
    if not prompts:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in chosen.left_out.items()) or "no prompts"
        raise UserError(
            f"{folder}: {len(chosen.rows)} rows, which are too few to train on ({reasons}); raise PromptsConfig.per_round, "
            "OnlineConfig.samples or SamplingConfig.temperature"
        )
    held_out = {number for found in prompts.values() for number in list(found)[: max(1, len(found) * permille // 1000)]}
    train, validation, stores = folder / "trained.jsonl", folder / "validation.jsonl", folder / "stores"
    for file, kept in ((train, False), (validation, True)):
        rows = [row for row in chosen.rows if row["language"] in prompts and (row["row"] in held_out) == kept]
        shared_files.write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tasks = tuple(
        TaskConfig(
            name=f"{TASK}{language}",
            language=language,
            domain="preferences",
            form=chosen.form,
            files=(str(train),),
            validation_files=(str(validation),),
            where=(("language", language),),
        )
        for language in prompts
    )
    config = PrepareConfig(store_dir=str(stores), data_dir="sample", vocabulary=vocabulary, tasks=(), extra_tasks=tasks)
    if jax.process_index() == 0:
        prepare.prepare(config)
    for task in tasks:
        shared_files.await_file(Path(store.store_path(str(stores), task.name, "train")))
    return stores
