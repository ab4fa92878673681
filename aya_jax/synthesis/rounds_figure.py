"""Rounds as a picture: rewards of held-out prompts, by language, and how far the model is from where it began."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

_PREFIX = "reward/language/"


def draw(summaries: Sequence[Mapping[str, Any]]) -> bytes:
    """An SVG of a run's summaries, the model as it came first."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rounds = [each["round"] for each in summaries]
    held_out = [each["held_out"] for each in summaries]
    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    for language in sorted(key.removeprefix(_PREFIX) for key in held_out[0] if key.startswith(_PREFIX)):
        rewards = [each.get(f"{_PREFIX}{language}") for each in held_out]
        left.plot(
            rounds,
            [float("nan") if r is None else r for r in rewards],
            marker=".",
            linewidth=1,
            alpha=0.6,
            label=language,
        )
    start = held_out[0]["reward"]
    changes = [each["change"] for each in summaries[1:]]
    left.plot(rounds, [start, *(start + change["mean"] for change in changes)], color="black", marker="o", label="all")
    left.fill_between(
        rounds,
        [start, *(start + change["low"] for change in changes)],
        [start, *(start + change["high"] for change in changes)],
        color="black",
        alpha=0.12,
        linewidth=0,
    )
    left.axhline(start, color="black", linewidth=0.8, linestyle=":")
    left.set(xlabel="round", ylabel="reward of held-out prompts", xticks=rounds)
    left.legend(frameon=False, fontsize="small", ncols=2)
    right.plot(rounds, [0.0, *(each["kl"] for each in held_out[1:])], color="black", marker="o")
    right.set(xlabel="round", ylabel="KL, nats an answer", xticks=rounds)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()
