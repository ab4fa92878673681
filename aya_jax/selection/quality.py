"""How good rows are: a number for each, of which more is better."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aya_jax.config import UserError
from aya_jax.config.snapshot import to_plain
from aya_jax.data.chat import ChatTokenizer
from aya_jax.interop.model_dir import find_model, weights_digest
from aya_jax.models.config import PrecisionConfig
from aya_jax.selection.config import ColumnConfig, PerplexityConfig, Quality
from aya_jax.selection.kept import Workplace, kept_parts
from aya_jax.selection.rows import Row
from aya_jax.synthesis.config import RewardModelConfig
from aya_jax.synthesis.reward_scorer import LogProbScorer
from aya_jax.synthesis.scorers import Answer, open_scorer

_PART = 256  # rows that are scored before they are written: calls to an endpoint cost
_PART_BY_MODEL = 4096  # whose weights are loaded for each
Score = Callable[[Sequence[Row]], Sequence[float]]


def score(
    config: Quality,
    rows: Sequence[Row],
    of: str,
    at: Workplace,
    advance: Callable[[int], None],
) -> np.ndarray:
    """The quality of rows, float32 [N]; not a number where there is none.

    Args:
      config: how.
      rows: which.
      of: what the rows are known by.
      at: where it is kept, and what a model runs on.
      advance: told of how many more rows there is a score.

    Raises:
      UserError: a row has no such field or no number there; there is no such model, function or endpoint.
    """
    if isinstance(config, ColumnConfig):
        advance(len(rows))
        return np.array([_number(row, config.field) for row in rows], np.float32)
    about: list[Any] = [type(config).__name__, to_plain(config)]
    if isinstance(config, PerplexityConfig | RewardModelConfig):
        about = [type(config).__name__, weights_digest(find_model(config.model_dir, at.say))]
    digest = hashlib.sha256(json.dumps([of, about], sort_keys=True).encode()).hexdigest()[:16]
    opened = functools.cache(lambda: _scorer(config, at))

    def compute(some: slice) -> np.ndarray:
        return np.array(opened()(rows[some]), np.float32)

    size = _PART_BY_MODEL if isinstance(config, PerplexityConfig) else _PART
    return kept_parts(at.folder / f"quality-{digest}", len(rows), size, compute, advance)


def _number(row: Row, name: str) -> float:
    value = row.fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"row {row.id}: field {name!r} is {value!r:.60}; ColumnConfig.field needs a number")
    return float(value)


def _scorer(config: Quality, at: Workplace) -> Score:
    if isinstance(config, PerplexityConfig):
        return _bits_per_byte(config, at)
    judge = open_scorer(config, at.mesh, at.rules, at.say)
    return lambda rows: judge.score([Answer(row.messages, row.answer, dict(row.fields)) for row in rows])


def _bits_per_byte(config: PerplexityConfig, at: Workplace) -> Score:
    """Minus a row's bits per byte; of a row that is longer than the model reads, those of its beginning."""
    found = find_model(config.model_dir, at.say)
    if found.tokenizer is None:
        raise UserError(f"{found.path}: there is no tokenizer beside the weights")
    tokenizer, longest = ChatTokenizer.open(found.tokenizer), found.config.max_sequence_length
    judge = LogProbScorer(found, PrecisionConfig(), at.mesh, at.rules, config.rows)

    def score_rows(rows: Sequence[Row]) -> list[float]:
        sequences = [tokenizer.encode_text(row.text)[:longest] for row in rows]
        some = [number for number, ids in enumerate(sequences) if len(ids) > 1]
        sums = judge.score([sequences[n][:1] for n in some], [sequences[n][1:] for n in some])
        scores = [math.nan] * len(rows)
        for number, found_sum in zip(some, sums, strict=True):
            read = tokenizer.vocabulary.decode(sequences[number][1:])
            scores[number] = found_sum / math.log(2) / max(1, len(read.encode()))
        return scores

    return score_rows
