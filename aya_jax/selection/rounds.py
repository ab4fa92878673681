"""What earlier rounds of refinement leave to the next: rows that were taken, and what clusters weigh."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aya_jax.config import UserError
from aya_jax.selection.clusters import Clusters, shares_of
from aya_jax.selection.config import SelectConfig
from aya_jax.selection.kept import Workplace
from aya_jax.selection.quality import score
from aya_jax.selection.refine import cluster_gains, new_weights
from aya_jax.selection.results import PROMPTS, Round, read_answers, read_selection
from aya_jax.selection.rows import Row
from aya_jax.training.console import Track


def before(
    config: SelectConfig,
    rows: Sequence[Row],
    clusters: Clusters | None,
    at: Workplace,
    track: Track,
) -> Round:
    """What earlier rounds leave: nothing in the first."""
    nothing = np.zeros(len(rows), np.int64)
    if clusters is None:
        return Round(1, nothing, np.ones(1))
    if config.refine is None:
        shares = shares_of(config, clusters)
        return Round(1, nothing, shares / shares.sum())
    previous = Path(config.refine.previous)
    summary, records = read_selection(previous)
    numbers = {row.id: number for number, row in enumerate(rows)}
    alike = len(summary.get("weights", ())) == clusters.count
    taken, gains, of_row = nothing, [], []
    for record in records:
        number = numbers.get(record["id"])
        if not alike or number is None or clusters.labels[number] != record["cluster"]:
            raise UserError(
                f"{previous}: row {record['id']} is not there, or in another cluster; a further round needs the rows, the "
                "embedding, the number of clusters and the seed of the round before"
            )
        taken[number] = record["weight"]
    answered = read_answers(Path(config.refine.answers), previous / PROMPTS)
    asked = [numbers[one] for one in answered]
    replaced = [dataclasses.replace(rows[number], answer=answered[rows[number].id]) for number in asked]
    about = hashlib.sha256(json.dumps(answered, sort_keys=True).encode()).hexdigest()
    with track("answers", 2 * len(asked)) as advance:
        theirs, ours = (
            score(config.quality, some, f"{about} {whose}", at, advance)
            for whose, some in (("model's", replaced), ("rows'", [rows[number] for number in asked]))
        )
    for number, gain in zip(asked, np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), strict=True):
        if np.isfinite(gain):
            gains.append(gain)
            of_row.append(clusters.labels[number])
    if not gains:
        raise UserError(
            f"{config.refine.answers}: no answer has a score beside its row's, so that nothing tells the clusters apart"
        )
    means = cluster_gains(np.array(gains), np.array(of_row), clusters.count)
    weights = new_weights(np.array(summary["weights"]), means, config.refine.update)
    return Round(summary["round"] + 1, taken, weights, means)
