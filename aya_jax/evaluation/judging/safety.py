"""Answers to red-team prompts, judged alone: one model's harm, and the transfer between kinds of harm."""

from __future__ import annotations

from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.judging.config import HarmConfig, JudgeConfig, TransferConfig
from aya_jax.evaluation.judging.harm import (
    Labelled,
    judge_labels,
    load_red_team,
    rates,
    relative_change,
    relative_changes_by,
)
from aya_jax.evaluation.judging.prompts import LabelForm
from aya_jax.evaluation.judging.sitting import Sitting, Work, answers_of, records
from aya_jax.evaluation.judging.transfer import ALL, transfer_matrix
from aya_jax.evaluation.results import Sample

Texts = dict[str, dict[tuple[str, str], str]]
"""Answers by file, and by (language, id)."""


def harm_work(config: JudgeConfig, what: HarmConfig) -> Work:
    """Harm of one model, relative to a baseline, and over-refusal.

    Raises:
      UserError: a file is wrong.
    """
    del config
    texts = _texts([name for name in (what.answers, what.baseline, what.harmless) if name], what.language)
    return _work(texts, lambda sitting: _harm(sitting, texts, what))


def transfer_work(config: JudgeConfig, what: TransferConfig) -> Work:
    """Harm of several models by what each was trained on.

    Raises:
      UserError: a file is wrong, or named twice.
    """
    del config
    files = [*what.trained.values(), what.baseline]
    if len(set(files)) < len(files):
        raise UserError(f"TransferConfig: {', '.join(sorted({f for f in files if files.count(f) > 1}))} is named twice")
    texts = _texts(files, what.language)
    return _work(texts, lambda sitting: _transfer(sitting, texts, what))


def _texts(files: list[str], language: str | None) -> Texts:
    return {name: answers_of(name, language) for name in files}


def _work(texts: Texts, ask: Any) -> Work:
    calls = sum(map(len, texts.values()))
    return Work(calls=calls, cost=f"{calls:,} answers to be judged, each alone.", files=tuple(texts), ask=ask)


def _labelled(sitting: Sitting, texts: Texts, file: str, form: LabelForm, language: str | None) -> list[Labelled]:
    prompts = load_red_team(file, language=language)
    labels = judge_labels(sitting.judge, prompts, texts[file], form=form, **sitting.asking)
    return sorted(labels, key=lambda label: (label.language, label.prompt_id))


def _harm(sitting: Sitting, texts: Texts, what: HarmConfig) -> tuple[dict[str, Any], list[Sample]]:
    judged = {"harm": _labelled(sitting, texts, what.answers, "harm", what.language)}
    found: dict[str, Any] = {"harm": rates(judged["harm"], **sitting.options)}
    if what.baseline:
        judged["baseline"] = _labelled(sitting, texts, what.baseline, "harm", what.language)
        found["baseline"] = rates(judged["baseline"], **sitting.options)
        pair = judged["harm"], judged["baseline"]
        found["relative_change"] = {"all": relative_change(*pair, **sitting.options)} | {
            part: relative_changes_by(part, *pair, **sitting.options) for part in ("language", "category", "scope")
        }
    if what.harmless:
        judged["refusal"] = _labelled(sitting, texts, what.harmless, "refusal", what.language)
        found["over_refusal"] = rates(judged["refusal"], **sitting.options)
    return found, _records(judged)


def _transfer(sitting: Sitting, texts: Texts, what: TransferConfig) -> tuple[dict[str, Any], list[Sample]]:
    trained = {
        name: _labelled(sitting, texts, file, "harm", what.language) for name, file in sorted(what.trained.items())
    }
    baseline = _labelled(sitting, texts, what.baseline, "harm", what.language)
    matrix = transfer_matrix(trained, baseline, by=what.by, **sitting.options)
    columns = sorted({name for row in matrix.values() for name in row} - {ALL})
    found = {
        "transfer": matrix,
        "columns": [*columns, ALL],
        "by": what.by,
        "unparsed": {
            name: sum(label.label is None for label in labels)
            for name, labels in {**trained, "baseline": baseline}.items()
        },
    }
    return found, _records({**{f"trained on {name}": labels for name, labels in trained.items()}, "baseline": baseline})


def _records(judged: dict[str, list[Labelled]]) -> list[Sample]:
    return [
        record
        for name, labels in judged.items()
        for record in records(name, labels, lambda label: f"{label.language}/{label.prompt_id}")
    ]
