"""Transfer of safety: models by what they were trained against, prompts by what they ask for (papers.md 9).

A cell is the relative change of the harm rate against the model that all started from, (h - h_0) / h_0 in per cent, over the
prompts of its column that both answered. It shows whether training against global harms helps against local ones, and the
other way round, and the same of languages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from aya_jax.config import UserError
from aya_jax.evaluation.judging.harm import Labelled, RelativeChange, relative_change, relative_changes_by

ALL = "all"
"""The column of all prompts."""


def transfer_matrix(
    trained: Mapping[str, Iterable[Labelled]],
    baseline: Iterable[Labelled],
    *,
    by: Literal["scope", "language"] = "scope",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, RelativeChange]]:
    """Relative change of harm by what a model was trained on (rows) and tested on (columns, and `ALL` at the end).

    Args:
      trained: records of each model, by what it was trained on.
      baseline: records of the model that they started from.
      by: what columns are.
      resamples, confidence, seed: of the bootstrap, which draws a prompt for both models and in all languages at once.

    Raises:
      UserError: a record has no scope, where columns are scopes; or models were judged on other prompts than the baseline.
    """
    rows, base = {name: list(records) for name, records in trained.items()}, list(baseline)
    if by == "scope":
        for record in [record for records in [*rows.values(), base] for record in records]:
            if not record.scope:
                raise UserError(f"prompt {record.prompt_id!r} ({record.language}) is neither global nor local")
    for name, records in rows.items():
        _check_same_prompts(name, records, base)
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    return {
        name: {
            **relative_changes_by(by, records, base, **options),
            ALL: relative_change(records, base, **options),
        }
        for name, records in rows.items()
    }


def _check_same_prompts(name: str, records: Sequence[Labelled], base: Sequence[Labelled]) -> None:
    mine, theirs = ({(r.language, r.prompt_id) for r in some} for some in (records, base))
    if mine != theirs:
        language, prompt_id = min(mine ^ theirs)
        whose = "the baseline" if (language, prompt_id) in mine else name
        raise UserError(
            f"{whose} has no answer to prompt {prompt_id!r} ({language}), one of {len(mine ^ theirs):,} that only one of "
            f"{name} and the baseline answered: cells of a matrix are comparable on the same prompts alone"
        )
