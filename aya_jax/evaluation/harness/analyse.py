"""What the harness lacks, from the records of one run: calibration, and Global-MMLU's culturally sensitive part."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.analyses.calibration import calibration
from aya_jax.evaluation.analyses.global_mmlu import accuracy, counted, spread, tabulate
from aya_jax.evaluation.analyses.records import ChoiceRecord
from aya_jax.evaluation.results import Sample, plain

BINS = 10
_GLOBAL_MMLU, _LABEL = "global_mmlu", "cultural_sensitivity_label"


def analyse(samples: Iterable[Sample]) -> dict[str, Any]:
    """By name, what can be said of these records; nothing where none are of that kind.

    `calibration`: of each family of multiple-choice tasks, over all its languages: expected calibration error with ten bins of
    equal mass and with one, Brier score, and the reliability table. `global_mmlu`: accuracy on annotated (MA), culturally
    sensitive (CS) and agnostic (CA) questions by language, and mean and deviation over languages by resource level.
    """
    samples = list(samples)
    families: dict[str, list[ChoiceRecord]] = defaultdict(list)
    for sample in samples:
        record = _record(sample)
        if record is not None:
            families[sample.family].append(record)
    found: dict[str, Any] = {}
    calibrated = {name: _calibration(records) for name, records in families.items() if len(records) >= BINS}
    if calibrated:
        found["calibration"] = calibrated
    labelled = global_mmlu_records(samples)
    if labelled:
        found["global_mmlu"] = _global_mmlu(labelled)
    return found


def global_mmlu_records(samples: Iterable[Sample]) -> list[ChoiceRecord]:
    """Those of Global-MMLU whose rows say whether they are culturally sensitive, by the ids that all languages share."""
    return [
        dataclasses.replace(record, id=str(sample.doc["sample_id"]))
        for sample in samples
        if sample.family.startswith(_GLOBAL_MMLU) and _LABEL in sample.doc and "sample_id" in sample.doc
        if (record := _record(sample)) is not None
    ]


def _record(sample: Sample) -> ChoiceRecord | None:
    """Of a question with a log-probability for each choice and a number for the right one."""
    label = sample.target
    if not sample.log_probs or not isinstance(label, int) or not 0 <= label < len(sample.log_probs):
        return None
    right = bool(sample.metrics.get("acc", float(sample.prediction == label)))
    return ChoiceRecord(sample.item, sample.language, right, label, tuple(sample.log_probs), sample.doc)


def _calibration(records: list[ChoiceRecord]) -> dict[str, Any]:
    found = calibration(records, BINS)
    return {
        "n": found.count,
        "ece": plain(found.ece),
        "ece_one_bin": plain(found.ece_one_bin),
        "brier": plain(found.brier),
        "confidence": found.confidence.value,
        "accuracy": found.accuracy.value,
        "bins": [each._asdict() for each in found.bins],
    }


def _global_mmlu(records: list[ChoiceRecord]) -> dict[str, Any]:
    try:
        answers = tabulate(records, "Global-MMLU")
    except UserError as error:  # the scores stand; this part of the story is missing and says why
        return {"error": str(error)}
    return {
        "counts": {category: counts._asdict() for category, counts in counted(answers).items()},
        "accuracy": {
            subset: {language: plain(found) for language, found in languages.items()}
            for subset, languages in accuracy(answers).items()
        },
        "spread": {
            subset: {group: plain(found) for group, found in groups.items()}
            for subset, groups in spread(answers).items()
        },
    }
