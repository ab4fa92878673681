"""What a merge says of itself beside its weights: merge.json for programs, README.md for people."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np

import aya_jax
from aya_jax.merging.preflight import Plan
from aya_jax.merging.values import Values, of_model

MERGE = "merge.json"
"""Says what a directory was merged from; a directory without it is never replaced."""

_PAPERS = {
    "linear": ("Model soups", "2203.05482"),
    "slerp": ("Animating rotation with quaternion curves, Shoemake 1985", ""),
    "model_stock": ("Model Stock", "2403.19522"),
    "task_arithmetic": ("Editing models with task arithmetic", "2212.04089"),
    "ties": ("TIES-Merging", "2306.01708"),
    "dare_linear": ("Language models are Super Mario (DARE)", "2311.03099"),
    "dare_ties": ("Language models are Super Mario (DARE)", "2311.03099"),
    "breadcrumbs": ("Model Breadcrumbs", "2312.06795"),
    "breadcrumbs_ties": ("Model Breadcrumbs", "2312.06795"),
    "della": ("DELLA-Merging", "2406.11617"),
    "della_linear": ("DELLA-Merging", "2406.11617"),
}


def record(plan: Plan, shard_gb: float) -> dict[str, Any]:
    """All that the bytes of the result follow from, for merge.json."""
    return {
        "recipe": plan.recipe.as_record(),
        "sources": [
            {
                "name": source.name,
                "path": str(source.found.whole),
                "kind": source.found.kind,
                "step": source.found.step,
                "digest": source.digest,
            }
            for source in plan.sources
        ],
        "dtype": plan.dtype.name,
        "vocab_size": plan.config.vocab_size,
        "shard_gb": shard_gb,
        "versions": {"aya_jax": aya_jax.__version__, "jax": jax.__version__, "numpy": np.__version__},
    }


def model_card(plan: Plan) -> str:
    """README.md, as the hub shows it."""
    recipe = plan.recipe
    front = ["---", "library_name: transformers", "tags: [merge, aya_jax]", "base_model:"]
    front += [f"  - {json.dumps(source.name)}" for source in plan.sources] + ["---", ""]
    paper, number = _PAPERS.get(recipe.method, ("", ""))
    link = f" ([{paper}](https://arxiv.org/abs/{number}))" if number else f" ({paper})" if paper else ""
    lines = [
        f"# A merge of {len(plan.sources)} models",
        "",
        f"By `{recipe.method}`{link}, with aya_jax {aya_jax.__version__}.",
        "",
    ]
    lines += ["| model | part | weight | density | SHA-256 of the weights |", "| --- | --- | --- | --- | --- |"]
    offset = 0 if recipe.base is None else 1
    for number, source in enumerate(plan.sources):
        base = number < offset
        weight, density = (
            ("", "") if base else (_shown(each, number - offset) for each in (recipe.weights, recipe.densities))
        )
        lines.append(
            f"| {source.name} | {'base' if base else 'merged'} | {weight} | {density} | `{source.digest[:16]}` |"
        )
    lines += [
        "",
        f"All of the recipe is in `{MERGE}`; with the same models on the same devices it gives the same bytes.",
        "",
    ]
    lines += [f"* {note}" for note in plan.notes]
    return "\n".join([*front, *lines]).rstrip() + "\n"


def _shown(values: Values, model: int) -> str:
    return f"{of_model(values, model)}"
