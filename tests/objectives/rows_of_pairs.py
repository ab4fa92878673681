"""Rows of invented answers, as batches have them, and the same answers apart."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

S = 96


class Answer(NamedTuple):
    """One answer: log-probabilities of all of its text's tokens but the first, and which of those are predicted."""

    log_probs: np.ndarray
    predicted: np.ndarray
    reference: float
    margin: float


def make_answers(seed: int, pairs: int) -> list[Answer]:
    """Chosen and rejected in turn: prompts of 1 to 4 tokens and answers of 1 to 6."""
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(pairs):
        prompt, margin = int(rng.integers(1, 5)), float(rng.uniform(0, 2))
        for _ in range(2):
            length = int(rng.integers(1, 7))
            log_probs = -rng.uniform(0.1, 5.0, prompt + length - 1)
            predicted = np.arange(prompt + length - 1) >= prompt - 1
            answers.append(Answer(log_probs, predicted, -float(rng.uniform(0.5, 15)), margin))
    return answers


def pack(rows: list[list[Answer]]) -> dict[str, np.ndarray]:
    """A batch with `scores` [B, S], what a model says of each position."""
    fields = {
        name: np.zeros((len(rows), S), np.float32)
        for name in ("scores", "loss_weights", "reference_log_probs", "margins")
    }
    fields |= {name: np.zeros((len(rows), S), np.int32) for name in ("segment_ids", "task_ids")}
    for row, answers in enumerate(rows):
        at = 0
        fields["task_ids"][row] = row % 2
        for segment, answer in enumerate(answers, 1):
            size = len(answer.log_probs)
            fields["scores"][row, at : at + size] = answer.log_probs
            fields["scores"][row, at + size] = 7.0  # the last token predicts nothing
            fields["loss_weights"][row, at : at + size] = answer.predicted
            fields["segment_ids"][row, at : at + size + 1] = segment
            fields["reference_log_probs"][row, at], fields["margins"][row, at] = answer.reference, answer.margin
            at += size + 1
    return fields
