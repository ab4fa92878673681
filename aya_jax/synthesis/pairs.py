"""Scored answers to pairs of the best and the worst, and those to token stores."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.data import prepare
from aya_jax.data.prepare_config import PrepareConfig, TaskConfig
from aya_jax.synthesis.answers import Asked, Record

TASK = "online_"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What came of a round's answers.

    Attributes:
      pairs: rows of prompt, chosen and rejected answer, margin and language.
      left_out: why → how many prompts gave no pair.
    """

    pairs: list[dict[str, Any]]
    left_out: dict[str, int]


def choose(asked: Sequence[Asked], records: Sequence[Record], min_margin: float) -> Chosen:
    """The best and the worst answer to each prompt as a pair; of equal rewards the first drawn counts.

    Left out are prompts with fewer than two answers that have a reward, with equal rewards, or with less than `min_margin`
    between them.
    """
    pairs, left_out = [], collections.Counter()
    for each, record in zip(asked, records, strict=True):
        usable = [answer for answer in record["answers"] if answer["reward"] is not None]
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
            pairs.append(
                {
                    "prompt": [dataclasses.asdict(message) for message in each.messages],
                    **{
                        side: [{"role": "assistant", "content": answer["text"]}]
                        for side, answer in (("chosen", best), ("rejected", worst))
                    },
                    "margin": margin,
                    "language": record["language"],
                    "row": each.number,
                }
            )
    return Chosen(pairs, dict(left_out))


def store_pairs(chosen: Chosen, folder: Path, vocabulary: str, permille: int) -> Path:
    """Writes the pairs, and a token store of each language with at least two; returns the stores' directory.

    Raises:
      UserError: no language has enough pairs, or a pair cannot be rendered.
    """
    file, stores = folder / "pairs.jsonl", folder / "stores"
    write_atomic(file, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in chosen.pairs))
    # The first document is held out, so one pair alone could not be trained on; prompts that are asked twice are one document.
    by_language: dict[str, set[str]] = {}
    for pair in chosen.pairs:
        by_language.setdefault(pair["language"], set()).add(
            json.dumps([pair["prompt"], pair["chosen"], pair["rejected"]])
        )
    languages = sorted(language for language, found in by_language.items() if len(found) > 1)
    if not languages:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in chosen.left_out.items()) or "no prompts"
        raise UserError(
            f"{file}: {len(chosen.pairs)} pairs, which are too few to train on ({reasons}); raise PromptsConfig.per_round, "
            "OnlineConfig.samples or SamplingConfig.temperature"
        )
    tasks = tuple(
        TaskConfig(
            name=f"{TASK}{language}",
            language=language,
            domain="preferences",
            form="preference",
            files=(str(file),),
            where=(("language", language),),
        )
        for language in languages
    )
    prepare.prepare(
        PrepareConfig(
            store_dir=str(stores),
            data_dir="sample",
            vocabulary=vocabulary,
            tasks=(),
            extra_tasks=tasks,
            validation_permille=permille,
        )
    )
    return stores
