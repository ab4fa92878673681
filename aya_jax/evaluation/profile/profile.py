"""The profile of a model's answers: how it writes, and how toxic it is (LLM See, LLM Do, 2407.01490).

Every prompt is one record, whose metrics are means over the answers to it; so intervals draw prompts with all of their answers,
and two models are compared prompt by prompt: a prompt that calls for a long answer does so for both. Passive inheritance
compares the student's answers before and after it was tuned on a teacher's text, and the teacher's own: `aya compare` with the
first of them in front. Languages are kept apart, as units of text differ between them (`words.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from aya_jax.config import Resolved, UserError
from aya_jax.evaluation.analyses.resampling import Bootstrap, Estimate, estimate
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.languages import short_code
from aya_jax.evaluation.profile.answered import Answered, ask, read_answered
from aya_jax.evaluation.profile.config import ProfileConfig
from aya_jax.evaluation.profile.text_metrics import METRICS, text_profile
from aya_jax.evaluation.profile.toxicity import Scorer, find_scorer, lexicon_scorer, score_answers, toxicity_metrics
from aya_jax.evaluation.results import Sample, plain, write
from aya_jax.evaluation.subject import ANSWERS, Setting, known_summary
from aya_jax.inference.prompts import digest
from aya_jax.parallel.distributed import agree_on
from aya_jax.training.console import tracker

FAMILY = "profile"
UNITS = {
    "characters": "characters",
    "bytes": "bytes",
    "words": "words",
    "sentences": "sentences",
    "distinct_words": "words",
    "mtld": "",
    "words_per_sentence": "words",
    "gunning_fog": "",
    "rix": "",
    "cut_short": "%",
}
"""What each metric is counted in: "%" for a share, "" for an index without a unit."""
_NOT_SHOWN = ("bytes", "distinct_words", "words_per_sentence")  # on the terminal, for room


def run(setting: Setting) -> None:
    """Has the model answer the prompts, writes the summary and its records, and prints the profile.

    Raises:
      UserError: a prompt is wrong or does not fit the model, or the scorer fails.
    """
    config = setting.resolved.config.measure
    scorer = _scorer(config)
    subject = setting.subject(chat=config.chat)

    def measure(answers: Answers) -> tuple[dict[str, Any], list[Sample]]:
        answered = ask(config, subject, answers, tracker(setting.console))
        return _measured(config, answered, scorer, setting.file, setting.console)

    about = {"harness": None, "limit": config.limit, "files": _digests(config)}
    show(setting.console, setting.summary(subject, measure, **about))


def run_on_answers(resolved: Resolved[EvaluateConfig], file: Path, console: Console) -> None:
    """As `run`, of answers that `aya generate` wrote; no model is needed.

    Raises:
      UserError: a row is wrong, or the scorer fails.
    """
    config = resolved.config.measure
    heading = {
        "kind": "benchmarks",
        "name": resolved.config.name,
        "model": Path(config.answers).stem,
        "weights_digest": "",
        "fingerprint": resolved.fingerprint,
        "harness": None,
        "limit": config.limit,
        "files": _digests(config),
    }
    summary = known_summary(file, heading, console, of="answers")
    if summary is None:
        answered = read_answered(config.answers, config.language, config.limit)
        found, samples = _measured(config, answered, _scorer(config), file, console)
        summary = write(file, heading | found, samples)
    show(console, summary)


def records(answered: Iterable[Answered], toxicity: Iterable[dict[str, np.ndarray]], threshold: float) -> list[Sample]:
    """A record of each prompt.

    Args:
      answered: prompts with their answers.
      toxicity: scores of each prompt's answers, attribute → float64 [k]; empty where nobody scores.
      threshold: from which on an answer is toxic.
    """
    samples = []
    for found, scores in zip(answered, toxicity, strict=True):
        language = short_code(found.language)
        each = [plain(text_profile(text, language)) for text in found.texts]
        for number, measured in enumerate(each):
            if found.cut_short[number] is not None:
                measured["cut_short"] = float(found.cut_short[number])
        samples.append(
            Sample(
                id=f"{FAMILY}_{found.language}/{found.item}",
                task=f"{FAMILY}_{found.language}",
                family=FAMILY,
                item=found.item,
                language=found.language,
                metrics=_means(each) | toxicity_metrics(scores, threshold),
                prediction=found.texts[0],
                target=None,
                prompt=found.prompt,
                doc={
                    "answers": list(found.texts),
                    "metrics": [m | {a: float(v[k]) for a, v in scores.items()} for k, m in enumerate(each)],
                },
            )
        )
    return samples


def medians(samples: Iterable[Sample], bootstrap: Bootstrap) -> dict[str, dict[str, Estimate]]:
    """Median of every metric over prompts by language, with its interval: language → metric → estimate.

    A model that writes on without end moves a mean a long way, and a median hardly.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        for metric, value in sample.metrics.items():
            values.setdefault(sample.language, {}).setdefault(metric, []).append(value)
    return {
        language: {metric: _median(np.array(found), bootstrap) for metric, found in metrics.items()}
        for language, metrics in sorted(values.items())
    }


def weighted_median(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median of each row's copies; values [N], counts [R, N] → [R]. The mean of the two in the middle of an even number."""
    order = np.argsort(values)
    ends = np.cumsum(counts[:, order], axis=1)
    middle = (ends[:, -1:] - 1) / 2  # position among the copies, from 0
    low = np.argmax(ends > np.floor(middle), axis=1)
    high = np.argmax(ends > np.ceil(middle), axis=1)
    return (values[order][low] + values[order][high]) / 2


def show(console: Console, summary: dict[str, Any]) -> None:
    """Prints means by language, each over its interval, the mean of languages last; toxicity in a table of its own."""
    if summary["limit"]:
        console.print(f"Only the first {summary['limit']} prompts: a try, not a result.", style="yellow")
    found, units = summary["families"][FAMILY], summary["units"]
    console.print(
        _table(f"Profile of {summary['model']}", found, units, [n for n in UNITS if n in found and n not in _NOT_SHOWN])
    )
    if toxic := [name for name in units if name not in UNITS]:
        console.print(_table("Toxicity", found, units, toxic))


def _table(title: str, found: dict[str, Any], units: dict[str, str], metrics: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", show_lines=True)
    for name in ("language", *metrics):
        table.add_column(name.replace("_", " "), justify="left" if name == "language" else "right")
    for language, first in found[metrics[0]]["languages"].items():
        cells = (_cell(found[name]["languages"].get(language), name, units[name]) for name in metrics)
        table.add_row(f"{language}\n{first['n']:,} prompts", *cells)
    if len(found[metrics[0]]["languages"]) > 1:
        table.add_row("mean of\nlanguages", *(_cell(found[name]["macro"], name, units[name]) for name in metrics))
    return table


def _measured(
    config: ProfileConfig,
    answered: Sequence[Answered],
    scorer: tuple[str, Scorer] | None,
    file: Path,
    console: Console,
) -> tuple[dict[str, Any], list[Sample]]:
    """What a summary says besides its heading, and the records. Every process must call it; process 0 has the scorer asked."""
    scores = [{} for _ in answered] if scorer is None else _toxicity(*scorer, answered, file, console)
    samples = records(answered, scores, config.threshold)
    measured = {metric for sample in samples for metric in sample.metrics}
    units = {name: unit for name, unit in UNITS.items() if name in measured}
    units |= {name: "%" if name.endswith("_probability") else "" for name in sorted(measured - set(UNITS))}
    more = {"answers": sum(len(found.texts) for found in answered), "units": units}
    return more | {"medians": plain(medians(samples, Bootstrap()))}, samples


def _scorer(config: ProfileConfig) -> tuple[str, Scorer] | None:
    """Of toxicity, with its name; looked for before a model has written for hours."""
    if config.toxicity is not None:
        return config.toxicity, find_scorer(config.toxicity)
    if config.lexicon is not None:
        scorer = lexicon_scorer(config.lexicon)  # which says what is wrong with the file
        return f"lexicon-{digest(config.lexicon)[:16]}", scorer
    return None


def _toxicity(
    name: str, scorer: Scorer, answered: Sequence[Answered], file: Path, console: Console
) -> list[dict[str, np.ndarray]]:
    """Scores of each prompt's answers; they are kept beside the results, so that no text is scored twice."""
    scores = None
    if jax.process_index() == 0:
        texts = len({(text, found.language) for found in answered for text in found.texts})
        with (
            Answers(file.parent / ANSWERS / f"toxicity-{name.replace(':', '.')}.jsonl") as known,
            tracker(console)("answers scored", texts) as advance,
        ):
            found = score_answers(answered, scorer, name, known, advance)
            scores = [{attribute: each.tolist() for attribute, each in of_prompt.items()} for of_prompt in found]
    return [{attribute: np.array(each) for attribute, each in of_prompt.items()} for of_prompt in agree_on(scores)]


def _digests(config: ProfileConfig) -> dict[str, str]:
    """SHA-256 of the files that decide the result.

    Raises:
      UserError: one cannot be read.
    """
    files = {"input": config.input, "answers": config.answers, "lexicon": config.lexicon}
    try:
        return {name: digest(file) for name, file in files.items() if file is not None}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _means(each: Sequence[dict[str, float | None]]) -> dict[str, float]:
    """Of each metric over the answers that it is defined for; without those that it is defined for none of."""
    found = {}
    for metric in (*METRICS, "cut_short"):
        values = [measured[metric] for measured in each if measured.get(metric) is not None]
        if values:
            found[metric] = float(np.mean(values))
    return found


def _median(values: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    return estimate(lambda counts: weighted_median(values, counts)[:, None], len(values), bootstrap).at(0)


def _cell(found: dict[str, float] | None, name: str, unit: str) -> str:
    if found is None:
        return "–"
    scale, digits = (100, 1) if unit == "%" else (1, 1 if unit else 2 if name in UNITS else 3)
    mean, low, high = (f"{scale * found[end]:,.{digits}f}" for end in ("mean", "low", "high"))
    return f"{mean}{'%' if unit == '%' else ''}\n{low}–{high}"
