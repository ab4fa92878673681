"""Statistics of 100,000 multiple-choice records, on CPU: 4,000 questions in 25 languages, shared by all of them.

    python tools/bench/intervals.py [--questions 4000] [--rounds 3]

Seconds, medians: of means with intervals as `aya evaluate` writes them, of two models' differences as `aya compare` does, of
calibration, and of Global-MMLU's accuracies, spreads and rank changes of three models. Ends with an error where means with
intervals take longer than 10 s. No model is needed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from aya_jax.evaluation.analyses.global_mmlu import LANGUAGES, accuracy, spread, tabulate
from aya_jax.evaluation.analyses.rank_changes import rank_changes
from aya_jax.evaluation.harness.analyse import analyse, global_mmlu_records
from aya_jax.evaluation.results import Sample, summarize
from aya_jax.evaluation.results import tabulate as by_family
from aya_jax.evaluation.statistics import differences

LONGEST = 10.0
_FAMILY = "global_mmlu_full"


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    models = [invented(seed, arguments.questions) for seed in range(3)]
    scores = [by_family(model)[_FAMILY, "acc"] for model in models]
    answers = {f"model {k}": tabulate(global_mmlu_records(model)) for k, model in enumerate(models)}
    works: dict[str, Callable[[], object]] = {
        "means with intervals": lambda: summarize(models[0]),
        "differences of two models": lambda: differences(scores[0], scores[1]),
        "calibration and cultural sensitivity of one": lambda: analyse(models[0]),
        "accuracy and spread alone": lambda: (accuracy(answers["model 0"]), spread(answers["model 0"])),
        "rank changes of three": lambda: rank_changes(answers),
    }
    print(f"{len(models[0]):,} records")
    seconds = {name: median(timed(work) for _ in range(arguments.rounds)) for name, work in works.items()}
    for name, found in seconds.items():
        print(f"{name}: {found:.2f} s")
    if seconds["means with intervals"] > LONGEST:
        sys.exit(f"means with intervals took longer than {LONGEST:.0f} s")


def invented(seed: int, questions: int) -> list[Sample]:
    """A model's answers to four choices, half of them right, a fifth of the questions annotated."""
    rng = np.random.default_rng(seed)
    labels = ["CS" if n % 15 == 0 else "CA" if n % 5 == 0 else "-" for n in range(questions)]
    return [
        Sample(
            id=f"{_FAMILY}_{language}/{n}", task=f"{_FAMILY}_{language}", family=_FAMILY, item=f"{_FAMILY}/{n}",
            language=language, metrics={"acc": float(right)}, prediction=0, target=int(not right), prompt="",
            choices=("A", "B", "C", "D"), log_probs=(-0.5, -1.5, -2.5, -3.5),
            doc={
                "sample_id": f"law/test/{n}", "subject": "law", "subject_category": "Humanities",
                "is_annotated": labels[n] != "-", "cultural_sensitivity_label": labels[n],
            },
        )
        for language in LANGUAGES[:25]
        for n, right in enumerate(rng.random(questions) < 0.5)
    ]  # fmt: skip


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
