"""M-RewardBench's translation task: which of two translations is better, in eight cells (papers.md 4).

From MAPLE: easy and hard sentences, German and Chinese into English and back, about 100 pairs each. The score is the plain mean
of the eight cells, reported beside the benchmark's and no part of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aya_jax.config import UserError
from aya_jax.evaluation.judging.resampling import Estimate, estimates, sums
from aya_jax.evaluation.reward_bench.instances import Outcome
from aya_jax.evaluation.reward_bench.subsets import CELLS, cell_of


@dataclass(frozen=True, kw_only=True)
class TranslationScores:
    """Of one model.

    Attributes:
      cells: per cent right, of those that there are.
      instances: judged in each.
      unparsed: replies or rewards of each that could not be read.
      score: mean of the cells; None where one is missing, unless partial scores are asked for.
      missing: cells without any outcome.
    """

    cells: dict[str, Estimate]
    instances: dict[str, int]
    unparsed: dict[str, int]
    score: Estimate | None
    missing: tuple[str, ...]


def translation_scores(
    outcomes: Iterable[Outcome],
    *,
    allow_partial: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> TranslationScores:
    """Scores of outcomes whose subsets are cells (`cell_of`); intervals draw instances.

    Args:
      outcomes: of one model, of translations alone.
      allow_partial: the score is the mean of the cells that there are.
      resamples, confidence, seed: of the bootstrap.

    Raises:
      UserError: an instance of a cell comes twice.
    """
    rows = [(cell_of(outcome.subset), outcome) for outcome in outcomes]
    _once(rows)
    # An instance is a unit of its own cell: the easy sentences of one direction are not those of another.
    table = sums((cell, f"{cell}/{o.id}", 100.0 * o.credit, 1.0) for cell, o in rows if cell)
    found, mean = estimates(table, resamples=resamples, confidence=confidence, seed=seed)
    missing = tuple(cell for cell in CELLS if cell not in found)
    unparsed: Counter[str] = Counter()
    for cell, outcome in rows:
        unparsed[cell] += outcome.unparsed
    return TranslationScores(
        cells={cell: found[cell] for cell in CELLS if cell in found},
        instances={cell: sum(name == cell for name, _ in rows) for cell in CELLS if cell in found},
        unparsed={cell: unparsed[cell] for cell in CELLS if cell in found},
        score=mean if found and (allow_partial or not missing) else None,
        missing=missing,
    )


def _once(rows: Sequence[tuple[str | None, Outcome]]) -> None:
    for (cell, name), count in Counter((cell, outcome.id) for cell, outcome in rows).items():
        if count > 1:
            raise UserError(f"instance {name!r} of {cell} was judged {count} times")
