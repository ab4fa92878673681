"""INCLUDE over one of our models: from exams to the three accuracies, by style, language and what the paper splits them by.

Every question in every form is a record: `acc` is total accuracy, `answer_acc` is there where a letter could be read, and
`format_error` where an answer was written. Their means are the paper's three numbers, and `aya compare` compares two models
question by question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from aya_jax.config import UserError
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.include.asking import Answered, Form, Prompts, asked_in, forms, likelihoods, written
from aya_jax.evaluation.include.config import PROTOCOLS, IncludeConfig
from aya_jax.evaluation.include.languages import LANGUAGES
from aya_jax.evaluation.include.prompts import Style, prompt
from aya_jax.evaluation.include.rows import Exams, load
from aya_jax.evaluation.include.scores import parse_answer, score_choices, splits, summarize
from aya_jax.evaluation.results import Sample, plain
from aya_jax.evaluation.subject import Setting, Subject
from aya_jax.training.console import tracker

_SHOWN = ("language", "regional", "regional_feature", "domain", "level", "training")


def run(setting: Setting) -> None:
    """Writes the summary and its records, and prints the accuracies.

    Raises:
      UserError: rows are missing or damaged, or the model has no tokenizer.
    """
    config = cast(IncludeConfig, setting.resolved.config.measure)
    exams = load(config)
    _say_what_is_left_out(config, exams, setting.console)
    subject = setting.subject(chat=config.chat)
    _check_room(config, subject)

    def ask(answers: Answers) -> tuple[dict[str, Any], list[Sample]]:
        prompts = Prompts(config, subject)
        given = (config, exams, subject, prompts, answers, tracker(setting.console))
        answered = [*written(*given), *likelihoods(*given)]
        more = {"shortened": dataclasses.asdict(prompts.shortened), "include": scores(config, answered)}
        return more, records(config, answered)

    show(setting.console, setting.summary(subject, ask, harness=None, limit=config.limit, rows=_digest(exams)))


def records(config: IncludeConfig, answered: Iterable[tuple[Form, Answered]]) -> list[Sample]:
    """A record of every question in every form."""
    return [_record(config, form, one) for form, one in answered]


def scores(config: IncludeConfig, answered: Iterable[tuple[Form, Answered]]) -> dict[str, Any]:
    """By form: total accuracy, answer accuracy and format errors, of all and split."""
    by_form: dict[Form, list[Answered]] = {}
    for form, one in answered:
        by_form.setdefault(form, []).append(one)
    found = {}
    for form, of_form in by_form.items():
        read = score_choices([one.question for one in of_form], [_choice(one) for one in of_form])
        groups = splits(read, config.trained_languages)
        found[form.name] = {**form._asdict(), "all": plain(summarize(read)), "splits": plain(groups)}
    return found


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the three numbers of each form, then total accuracy by group."""
    if summary["limit"]:
        console.print(
            f"Only the first {summary['limit']} questions of each language: a try, not a result.", style="yellow"
        )
    shortened = summary["shortened"]
    if any(shortened.values()):
        console.print(
            f"Longer than the model reads: {shortened['examples']:,} prompts have fewer examples, and "
            f"{shortened['questions']:,} lost their beginning.",
            highlight=False,
            style="yellow",
        )
    found = summary["include"]
    table = Table(title="INCLUDE", title_justify="left")
    table.add_column("form")
    for column in ("questions", "total accuracy", "answer accuracy", "format errors"):
        table.add_column(column, justify="right")
    for form, of_form in found.items():
        of_all = of_form["all"]
        numbers = (_interval(of_all[name]) for name in ("total_accuracy", "answer_accuracy", "format_error"))
        table.add_row(form, f"{of_all['count']:,}", *numbers)
    console.print(table)
    for protocol in PROTOCOLS:
        of_protocol = [of_form for of_form in found.values() if of_form["protocol"] == protocol]
        if of_protocol:
            console.print(_groups(of_protocol))


def _groups(found: Sequence[Mapping[str, Any]]) -> Table:
    """Total accuracy of each group, the styles of one protocol across; countries are in the file only."""
    table = Table(title=f"Total accuracy by group, {found[0]['protocol'].replace('_', ' ')}", title_justify="left")
    for column in ("split", "group"):
        table.add_column(column)
    for column in ("questions", *(of_form["style"] for of_form in found)):
        table.add_column(column, justify="right")
    for split in _SHOWN:
        of_split = [of_form["splits"].get(split, {}) for of_form in found]
        for group in sorted(set().union(*of_split)):
            count = max(groups[group]["count"] for groups in of_split if group in groups)
            cells = (_percent(groups[group]["total_accuracy"]) if group in groups else "–" for groups in of_split)
            table.add_row(split.replace("_", " "), group, f"{count:,}", *cells)
        table.add_section()
    return table


def _record(config: IncludeConfig, form: Form, one: Answered) -> Sample:
    asked, choice = one.question, _choice(one)
    right = float(choice == asked.answer)
    metrics = {"acc": right}
    if not one.log_probs:
        metrics |= {"format_error": float(choice is None)} | ({} if choice is None else {"answer_acc": right})
    family = f"{config.dataset.rpartition('/')[2].replace('-', '_')}_{form.name}"
    code = LANGUAGES[asked.language]
    labels = ("question", "country", "domain", "subject", "level", "regional_feature")
    doc = {name: getattr(asked, name) for name in labels} | ({} if one.log_probs else {"answer": one.text})
    return Sample(
        id=f"{family}_{code}/{asked.id}",
        task=f"{family}_{code}",
        family=family,
        item=f"{family}/{asked.id}",
        language=code,
        metrics=metrics,
        prediction=one.text if choice is None else choice,
        target=asked.answer,
        prompt=prompt(asked, cast(Style, form.style), reasoning=form.protocol == "reasoning"),
        choices=asked.choices,
        log_probs=one.log_probs,
        doc=doc,
    )


def _choice(one: Answered) -> int | None:
    if one.log_probs:
        return max(range(len(one.log_probs)), key=one.log_probs.__getitem__)
    return parse_answer(one.text)


def _check_room(config: IncludeConfig, subject: Subject) -> None:
    longest = subject.max_length(config.max_length)
    for protocol, name in (("few_shot", "max_tokens"), ("reasoning", "reasoning_tokens")):
        if protocol in config.protocols and getattr(config, name) >= longest:
            raise UserError(
                f"IncludeConfig.{name} is {getattr(config, name):,}, and the model has room for {longest:,} tokens of a prompt "
                f"and its answer together: bind a smaller {name}"
            )


def _say_what_is_left_out(config: IncludeConfig, exams: Sequence[Exams], console: Console) -> None:
    """Names languages for which a style has no words.

    Raises:
      UserError: nothing is left.
    """
    silent = sorted({exam.language for form in forms(config) for exam in exams if exam not in asked_in(form, exams)})
    if silent:
        console.print(
            f"Left out of the styles IL and Reg+IL, which have no instruction in them: {', '.join(silent)}.",
            highlight=False,
            soft_wrap=True,
        )
    if not any(exam.questions for form in forms(config) for exam in asked_in(form, exams)):
        raise UserError("INCLUDE: no question is left; the styles 'Eng' and 'Reg+Eng' are for every language")


def _digest(exams: Sequence[Exams]) -> str:
    """SHA-256 of the rows."""
    rows = [dataclasses.asdict(exam) for exam in exams]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def _interval(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    return f"{_percent(found)} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _percent(found: Mapping[str, Any]) -> str:
    return "–" if found["value"] is None else f"{100 * found['value']:.1f}"
