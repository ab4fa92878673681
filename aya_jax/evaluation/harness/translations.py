"""What corpora of translations score, from the records of one run: chrF++, BLEU, spBLEU and COMET of each task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.comet import Comet, Segment
from aya_jax.evaluation.config import TranslationConfig
from aya_jax.evaluation.corpora import is_translation, translation
from aya_jax.evaluation.results import Sample
from aya_jax.evaluation.translation import (
    COMET,
    SPBLEU,
    corpus_scores,
    open_pieces,
    segment_mean,
    sentence_scores,
)
from aya_jax.training.console import Track


class TranslationScorer:
    """Scores the translations among a run's answers; where no task translates, nothing is looked for."""

    def __init__(self, config: TranslationConfig, tasks: Iterable[Any], say: Callable[[str], None]):
        """Opens what will be needed, before a model is asked anything.

        Args:
          config: what to score by.
          tasks: the harness's.
          say: takes what is missing.

        Raises:
          UserError: a file that is named is not there or is something else. Without one, spBLEU is left out where its pieces
            cannot be had; `missing` says why.
        """
        self._pieces, self._comet, self.missing = None, None, {}
        if not any(task.config.process_results is sentence_scores for task in tasks):
            return
        self._comet = Comet(config) if config.comet else None
        try:
            self._pieces = open_pieces(config.spm)
        except UserError as error:
            if config.spm:
                raise UserError(f"TranslationConfig.spm: {error}") from error
            self.missing[SPBLEU] = str(error)
            say(f"spBLEU is left out: {error}.")

    def score(self, samples: Sequence[Sample], answers: Answers, track: Track) -> tuple[list[Sample], dict[str, Any]]:
        """The records, those of translations with a score of COMET where it was asked for, and what each corpus scored.

        Args:
          samples: all that the run recorded.
          answers: what is known, and grows by COMET's scores.
          track: for progress.
        """
        if self._comet:
            samples = self._with_comet(self._comet, samples, answers, track)
        tasks: dict[str, list[Sample]] = {}
        for sample in filter(is_translation, samples):
            tasks.setdefault(sample.task, []).append(sample)
        found = {"corpus_scores": {task: self._corpus(task, of_task) for task, of_task in tasks.items()}}
        return list(samples), found | ({"corpus_scores_missing": self.missing} if self.missing else {})

    def _corpus(self, task: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        said, right = [translation(sample) for sample in samples], [sample.doc["reference"] for sample in samples]
        scores = corpus_scores(task.rsplit("_", 1)[-1], said, right, pieces=self._pieces)
        if self._comet:
            scores.append(segment_mean(COMET, self._comet.signature, [sample.metrics[COMET] for sample in samples]))
        return [dataclasses.asdict(score) for score in scores]

    def _with_comet(self, comet: Comet, samples: Sequence[Sample], answers: Answers, track: Track) -> list[Sample]:
        ours = [sample for sample in samples if is_translation(sample)]
        segments = [Segment(sample.doc["source"], translation(sample), sample.doc["reference"]) for sample in ours]
        scores = dict(zip((sample.id for sample in ours), comet.scores(segments, answers, track), strict=True))
        return [
            dataclasses.replace(sample, metrics={**sample.metrics, COMET: scores[sample.id]})
            if sample.id in scores
            else sample
            for sample in samples
        ]
