"""Training and validation curves of compared models, their stages joined end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aya_jax.studies.comparison import Comparison
from aya_jax.studies.figures import Family
from aya_jax.studies.findings import group_title
from aya_jax.studies.runs import CODE_KINDS, Curve, Model, StudyRecord, TrainingRun, tags_of, validated_tasks

TRAINING, TEXT, CODE = "Training loss", "Validation bits per byte, text", "Validation bits per byte, code"


def families(record: StudyRecord, comparison: Comparison | None) -> list[Family]:
    """The curves of each compared group; of each training run where nothing can be compared."""
    if comparison:
        listed = [(group_title(comparison, group), list(group.models.values())) for group in comparison.groups]
    else:
        listed = [(run.name, [Model(run.name, {}, (run,), None)]) for run in record.runs]
    return [
        Family(
            name,
            {
                TRAINING: [joined(model.lineage, lambda run: run.curve("loss")) for model in models],
                TEXT: [joined(model.lineage, lambda run: validation_curve(run, code=False)) for model in models],
                CODE: [joined(model.lineage, lambda run: validation_curve(run, code=True)) for model in models],
            },
        )
        for name, models in listed
    ]


def validation_curve(run: TrainingRun, *, code: bool) -> Curve:
    """Bits per byte at each validation, the mean over the tasks of text or over those of code."""
    tokens, values = [], []
    for record in run.validation:
        bits = [
            record[f"validation/{task}/bits_per_byte"]
            for task in validated_tasks(record)
            if (tags_of(task)[1] in CODE_KINDS) == code
        ]
        if bits:
            tokens.append(float(record["tokens"]))
            values.append(float(np.mean(bits)))
    return Curve(np.array(tokens), np.array(values))


def joined(lineage: Sequence[TrainingRun], curve_of: Callable[[TrainingRun], Curve]) -> Curve:
    """One curve over all stages of a model's training, each stage's tokens counted on from the last's end."""
    tokens, values, before = [], [], 0
    for run in lineage:
        curve = curve_of(run)
        tokens.append(curve.tokens + before)
        values.append(curve.values)
        before += run.tokens
    return Curve(np.concatenate(tokens), np.concatenate(values))
