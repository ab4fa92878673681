"""What a round's answers say of the model that gave them, and when its rewards should not be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from aya_jax.synthesis.answers import Record

_BY_LANGUAGE = "reward/language/"
_BINS = 10
_LONGER, _SHORTER = 1.5, 0.5
_REPEATED = 0.5
_FAR = 50.0


def describe(records: Sequence[Record], reference: Sequence[float] | None = None) -> dict[str, Any]:
    """Numbers of scored answers.

    Args:
      records: from `answers.score`.
      reference: log-probability of each answer under the reference, over all records in order.

    Returns:
      `answers`, `scored`, `reward` (mean), `reward/language/<language>`, `tokens` (mean length), `finished` (share),
      `duplicates` (share of answers that another answer to the same prompt equals) and, with a reference, `kl`: the mean over
      answers of log p(answer) under the model less that under the reference, in nats; an estimate of the divergence where
      answers are drawn at temperature 1 without filters.
    """
    answers = [answer for record in records for answer in record["answers"]]
    rewards = [answer["reward"] for answer in answers if answer["reward"] is not None]
    found: dict[str, Any] = {
        "answers": len(answers),
        "scored": len(rewards),
        "reward": _mean(rewards),
        "tokens": _mean([len(answer["tokens"]) for answer in answers]),
        "finished": _mean([float(answer["finished"]) for answer in answers]),
        "duplicates": _mean(
            [1 - len({a["text"] for a in r["answers"]}) / len(r["answers"]) for r in records if r["answers"]]
        ),
    }
    if reference is not None:
        found["kl"] = _mean([answer["log_prob"] - other for answer, other in zip(answers, reference, strict=True)])
    for language in sorted({record["language"] for record in records}):
        own = [
            a["reward"] for r in records if r["language"] == language for a in r["answers"] if a["reward"] is not None
        ]
        found[f"{_BY_LANGUAGE}{language}"] = _mean(own)
    return found


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The mean of margins, and how they are spread: `counts` between `edges`."""
    counts, edges = np.histogram(values, _BINS)
    return {"mean": _mean(values), "counts": counts.tolist(), "edges": edges.tolist()}


def change(before: Sequence[Record], after: Sequence[Record]) -> dict[str, Any]:
    """By how much rewards have risen, prompt by prompt: the mean of the differences with its 95 % interval (Student's t).

    Prompts that have no judged answer on one side are left out. Also by language, without intervals.
    """
    differences: dict[str, list[float]] = {}
    for old, new in zip(before, after, strict=True):
        ends = [[a["reward"] for a in record["answers"] if a["reward"] is not None] for record in (old, new)]
        if all(ends):
            differences.setdefault(old["language"], []).append(statistics.fmean(ends[1]) - statistics.fmean(ends[0]))
    every = [value for values in differences.values() for value in values]
    found: dict[str, Any] = {"prompts": len(every), "mean": _mean(every)}
    if len(every) > 1 and np.ptp(every) > 0:
        interval = stats.ttest_1samp(every, 0.0).confidence_interval()
        found |= {"low": float(interval.low), "high": float(interval.high)}
    else:
        found |= {"low": found["mean"], "high": found["mean"]}
    return found | {f"language/{language}": _mean(values) for language, values in sorted(differences.items())}


def warnings(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Signs that a higher reward is no better answer, by what held-out answers were before training and are now."""
    found = []
    if first["tokens"] and now["tokens"]:
        drift = now["tokens"] / first["tokens"]
        if not _SHORTER <= drift <= _LONGER:
            found.append(
                f"answers are {drift:.2f} times as long as before training: does the reward follow their length?"
            )
    if now["duplicates"] > max(_REPEATED, first["duplicates"] + 0.25):
        found.append(f"{now['duplicates']:.0%} of the answers repeat another one: the model has narrowed")
    if now["finished"] < first["finished"] - 0.25:
        found.append(
            f"{now['finished']:.0%} of the answers come to an end, {first['finished']:.0%} did: raise the penalty"
        )
    if _rose(first, now, "reward"):
        for name in sorted(key for key in now if key.startswith(_BY_LANGUAGE)):
            if _rose(now, first, name):
                language = name.removeprefix(_BY_LANGUAGE)
                found.append(
                    f"the reward of {language} has fallen from {first[name]:.3f} to {now[name]:.3f} while it rose over all"
                )
    if now.get("kl", 0.0) > _FAR:
        found.append(f"the model is {now['kl']:.0f} nats an answer from where it began: raise PreferenceConfig.beta")
    return found


def _rose(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    ends = before.get(name), after.get(name)
    return None not in ends and ends[1] > ends[0]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
