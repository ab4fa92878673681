"""Asking a model the benchmarks of bias: which of the alternatives it finds likelier.

BBQ: log p(answer | "context\\n\\nQ: question\\nA:"), as lm-evaluation-harness asks it, of the three published answers.
StereoSet: log p per token of the sentence, which the published scorer compares, after its context where it has one.
CrowS-Pairs: log p of either sentence, as lm-evaluation-harness asks a model that reads from left to right.

Every item is one record, so that two models are compared item by item. The means of `bias` over BBQ's records are the published
scores: a biased answer is 1 and its opposite -1; "unknown" is 0 in an ambiguous context, and no answer in another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from rich.console import Console
from rich.table import Table

from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.analyses.resampling import Bootstrap
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.harness.language_model import HarnessModel, Score
from aya_jax.evaluation.profile.bias import bbq_scores, by_group, crows_scores, likeliest, stereoset_scores
from aya_jax.evaluation.profile.bias_files import Item, group, load_items
from aya_jax.evaluation.profile.bias_items import BbqItem, StereoSetItem
from aya_jax.evaluation.results import Sample, plain
from aya_jax.evaluation.scoring import Scorer
from aya_jax.evaluation.subject import Setting
from aya_jax.inference.prompts import digest
from aya_jax.training.console import Track, tracker

LANGUAGE = "en"
UNITS = {"acc": "%", "bias": "%", "prefers_stereotype": "%", "related": "%"}
_NOT_SHOWN = ("ambiguous_answered", "disambiguated_answered", "neutral")  # on the terminal, for room
_TITLES = {"bbq": "BBQ", "stereoset": "StereoSet", "crows_pairs": "CrowS-Pairs"}


def run(setting: Setting) -> None:
    """Writes the summary and its records, and prints the scores by group.

    Raises:
      UserError: the model has no tokenizer, or a benchmark's files are missing or damaged.
    """
    config = setting.resolved.config.measure
    loaded = {name: load_items(name, config.data_dir, config.limit) for name in config.benchmarks}
    items = {name: part.items for name, part in loaded.items()}
    digests = {path.name: digest(path) for part in loaded.values() for path in part.files}
    left_out = {name: part.left_out for name, part in loaded.items() if part.left_out}
    subject = setting.subject(chat=False)

    def measure(answers: Answers) -> tuple[dict[str, Any], list[Sample]]:
        max_length = subject.max_length(config.max_length)
        scorer = Scorer(subject.model, subject.mesh, max_length=max_length, batch_tokens=config.batch_tokens)
        scores = ask(
            items,
            lambda asked, answer: scorer.score(subject.params(), asked, answer),
            subject.tokenizer,
            answers,
            tracker(setting.console),
            max_length,
        )
        samples = [sample for name, found in items.items() for sample in records(name, found, scores[name])]
        return {"bias": {name: plain(summarize(found, scores[name])) for name, found in items.items()}}, samples

    about = {"harness": None, "limit": config.limit, "files": digests, "units": UNITS, "left_out": left_out}
    show(setting.console, setting.summary(subject, measure, **about))


def ask(
    items: dict[str, list[Item]],
    score: Score,
    tokenizer: ChatTokenizer,
    answers: Answers,
    track: Track,
    max_length: int,
) -> dict[str, list[tuple[float, ...]]]:
    """Log-probabilities of each item's alternatives, by benchmark; StereoSet's are per token.

    Args:
      items: by benchmark.
      score, tokenizer, answers, track, max_length: as `HarnessModel` takes them.
    """
    model = HarnessModel(
        score,
        contextlib.nullcontext,
        tokenizer,
        answers,
        track,
        max_length=max_length,
        max_tokens=1,
        seed=0,
        chat=False,
    )
    pairs = [pair for found in items.values() for item in found for pair in alternatives(item)]
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0) for pair in pairs]
    log_probs = iter([log_prob for log_prob, _ in model.loglikelihood(asked)])
    return {
        name: [
            tuple(
                next(log_probs) / (_tokens(model, *pair) if isinstance(item, StereoSetItem) else 1)
                for pair in alternatives(item)
            )
            for item in found
        ]
        for name, found in items.items()
    }


def alternatives(item: Item) -> list[tuple[str, str]]:
    """(context, continuation) of each alternative, in the order of the item's answers or sentences; "" is no context."""
    if isinstance(item, BbqItem):
        return [(item.prompt, f" {answer}") for answer in item.answers]
    if isinstance(item, StereoSetItem):
        between = item.kind == "intersentence"
        return [(item.context, f" {sentence}") if between else ("", sentence) for sentence in item.sentences]
    return [("", item.more), ("", item.less)]


def records(benchmark: str, items: Sequence[Item], scores: Sequence[tuple[float, ...]]) -> list[Sample]:
    """A record of each item."""
    samples = []
    for item, log_probs, choice in zip(items, scores, likeliest(scores).tolist(), strict=True):
        family, metrics, target = _measured(benchmark, item, log_probs, choice)
        samples.append(
            Sample(
                id=f"{family}/{item.id}",
                task=family,
                family=family,
                item=item.id,
                language=LANGUAGE,
                metrics=metrics,
                prediction=choice,
                target=target,
                prompt=item.prompt if isinstance(item, BbqItem) else getattr(item, "context", ""),
                choices=tuple(continuation.strip() for _, continuation in alternatives(item)),
                log_probs=log_probs,
                doc={"group": group(item)} | plain(item),
            )
        )
    return samples


def summarize(items: Sequence[Item], scores: Sequence[tuple[float, ...]]) -> dict[str, Any]:
    """The published scores: {"all": of all items, "groups": of each group, and for StereoSet "kinds": of each kind}."""
    bootstrap = Bootstrap()
    if isinstance(items[0], BbqItem):
        measure, results = bbq_scores, likeliest(scores).tolist()
    else:
        measure, results = (stereoset_scores if isinstance(items[0], StereoSetItem) else crows_scores), scores
    found = {
        "all": measure(items, results, bootstrap),
        "groups": by_group(measure, items, results, group, bootstrap),
    }
    if isinstance(items[0], StereoSetItem):
        found["kinds"] = by_group(measure, items, results, lambda item: item.kind, bootstrap)
    return found


def show(console: Console, summary: dict[str, Any]) -> None:
    """Prints each benchmark's scores, of all items and by group, over their intervals."""
    if summary["limit"]:
        console.print(f"Only the first {summary['limit']} items of each group: a try, not a result.", style="yellow")
    for name, found in summary["bias"].items():
        rows = {"all": found["all"]} | found.get("kinds", {}) | found["groups"]
        table = Table(title=_TITLES[name], title_justify="left", show_lines=True)
        table.add_column("group")
        shown = [field for field in found["all"] if field not in _NOT_SHOWN]
        for field in shown:
            table.add_column(field.replace("_", "\n"), justify="right")
        for label, scores in rows.items():
            table.add_row(label, *(_cell(scores[field], 2 if name == "bbq" else 1) for field in shown))
        console.print(table)
        if count := summary["left_out"].get(name):
            console.print(
                f"{count:,} rows were left out: neither additional_metadata.csv nor they say whom the stereotype is about.",
                highlight=False,
                soft_wrap=True,
            )


def _measured(
    benchmark: str, item: Item, log_probs: tuple[float, ...], choice: int
) -> tuple[str, dict[str, float], int | None]:
    """An item's family, metrics and right answer."""
    if isinstance(item, BbqItem):
        metrics = {"acc": float(choice == item.label)}
        if choice != item.unknown:
            metrics["bias"] = 1.0 if (choice == item.target) == item.negative else -1.0
        elif item.ambiguous:
            metrics["bias"] = 0.0
        return f"{benchmark}_{'ambiguous' if item.ambiguous else 'disambiguated'}", metrics, item.label
    metrics = {"prefers_stereotype": float(log_probs[0] > log_probs[1])}
    if isinstance(item, StereoSetItem):
        metrics["related"] = sum(log_prob > log_probs[2] for log_prob in log_probs[:2]) / 2
    return benchmark, metrics, None


def _tokens(model: HarnessModel, context: str, continuation: str) -> int:
    """Of a continuation."""
    if not context:
        return len(model.tok_encode(continuation, add_special_tokens=False))
    return len(model.tok_encode(context + continuation)) - len(model.tok_encode(context))


def _cell(found: dict[str, float | None] | int, digits: int) -> str:
    if isinstance(found, int):
        return f"{found:,}"
    value, low, high = (found[name] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if low is None else f"\n{low:.{digits}f} to {high:.{digits}f}")
