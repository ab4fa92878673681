"""Running benchmarks: lm-evaluation-harness's tasks over one of our models, in this process."""

from __future__ import annotations

import fnmatch
import functools
import logging
import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any

import jax
import lm_eval
from lm_eval.api.task import ConfigurableTask
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import HarnessConfig
from aya_jax.evaluation.harness.analyse import analyse
from aya_jax.evaluation.harness.language_model import HarnessModel, Score
from aya_jax.evaluation.harness.local_data import MissingRows, reading_from
from aya_jax.evaluation.harness.names import describe, item_name
from aya_jax.evaluation.harness.own_tasks import own_tasks
from aya_jax.evaluation.harness.task_index import TaskIndex
from aya_jax.evaluation.harness.translations import TranslationScorer
from aya_jax.evaluation.results import Sample, plain
from aya_jax.evaluation.scoring import Scorer
from aya_jax.evaluation.subject import Setting, Subject
from aya_jax.evaluation.tables import show
from aya_jax.inference.protocol import Generator
from aya_jax.training.console import Track, tracker


def run(setting: Setting) -> None:
    """Writes the summary and its samples, and prints the means.

    Answers that the model has given stand in `answers/` beside the file, by the digest of its weights: what was killed goes on
    where it was, and a question is not put twice.

    Raises:
      UserError: the model has no tokenizer, a task is unknown, or its rows are not to be had.
    """
    config = setting.resolved.config.measure
    subject, console = setting.subject(chat=config.chat), setting.console
    tasks = load_tasks(config, console.print)

    def ask(answers: Answers) -> tuple[dict[str, Any], list[Sample]]:
        first = jax.process_index() == 0
        translations = TranslationScorer(config.translation, tasks.values() if first else (), console.print)
        samples, reported = evaluate(config, tasks, subject, answers, console)
        samples, of_corpora = translations.score(samples, answers, tracker(console))
        return {"reported_by_harness": reported, **of_corpora} | analyse(samples), samples

    about = {"harness": version("lm_eval"), "limit": config.limit, "tasks": sorted(tasks)}
    show(console, setting.summary(subject, ask, **about))


def load_tasks(config: HarnessConfig, say: Callable[[str], None]) -> dict[str, Any]:
    """The tasks by name; of those that a pattern means, the ones whose rows the data folder has.

    Raises:
      UserError: a name or pattern means none, or the rows of one are not to be had.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    index, own = TaskIndex(config.task_dirs), own_tasks(config.data_dir)
    wanted: dict[str, bool] = {}  # by name, whether it was asked for by name
    for pattern in config.tasks:
        names = fnmatch.filter(own, pattern) or index.match(pattern)
        if not names:
            near = did_you_mean(near_names(pattern, [*index.names, *own]))
            raise UserError(f"HarnessConfig.tasks: no task {pattern!r}{near}")
        wanted |= {name: name == pattern or wanted.get(name, False) for name in names}
    load, tasks, missing = index.loader([name for name in wanted if name not in own]), {}, []
    with reading_from(config.data_dir):
        for name, by_name in wanted.items():
            try:
                tasks |= {name: ConfigurableTask(config=own[name]())} if name in own else load(name)
            except MissingRows:
                if by_name or config.data_dir is None:
                    raise
                missing.append(name)
            except UserError:
                raise
            except Exception as error:  # a task file is a program of its own
                raise UserError(
                    f"task {name}: the harness's own task file does not run here: {type(error).__name__}: {error}"
                ) from error
    if not tasks:
        raise UserError(f"HarnessConfig.tasks: {config.data_dir} has rows of none of {', '.join(missing)}")
    if missing:
        say(f"Left out, since {config.data_dir} has no rows of them: {', '.join(missing)}.")
    for task in tasks.values():
        if config.few_shot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=config.few_shot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=config.seed)
    return tasks


def evaluate(
    config: HarnessConfig, tasks: dict[str, Any], subject: Subject, answers: Answers, console: Console
) -> tuple[list[Sample], dict[str, Any]]:
    """As `ask_all`, of a model on disk."""
    max_length = subject.max_length(config.max_length)
    scorer = Scorer(subject.model, subject.mesh, max_length=max_length, batch_tokens=config.batch_tokens)
    return ask_all(
        config,
        tasks,
        lambda asked, answer: scorer.score(subject.params(), asked, answer),
        functools.partial(subject.generator, config.engine),
        subject.tokenizer,
        answers,
        tracker(console),
        max_length,
    )


def ask_all(
    config: HarnessConfig,
    tasks: dict[str, Any],
    score: Score,
    open_generator: Callable[[int, int], AbstractContextManager[Generator]],
    tokenizer: ChatTokenizer,
    answers: Answers,
    track: Track,
    max_length: int,
) -> tuple[list[Sample], dict[str, Any]]:
    """Records of every question, and what the harness makes of them itself.

    Args:
      config: how questions are put.
      tasks: from `load_tasks`.
      score, open_generator, tokenizer, answers, track, max_length: as `HarnessModel` takes them.
    """
    harness_model = HarnessModel(
        score,
        open_generator,
        tokenizer,
        answers,
        track,
        max_length=max_length,
        max_tokens=config.max_tokens,
        seed=config.seed,
        chat=config.chat,
    )
    with reading_from(config.data_dir):
        found = lm_eval.evaluate(
            harness_model,
            {"tasks": tasks},
            limit=config.limit,
            bootstrap_iters=0,
            system_instruction=config.system,
            apply_chat_template=config.chat,
            fewshot_as_multiturn=config.few_shot_as_turns,
        )
    samples = [sample for name, task in tasks.items() for sample in records(name, task, found["samples"].get(name, ()))]
    return samples, {name: plain(values) for name, values in found["results"].items()}


def records(name: str, task: Any, rows: Sequence[dict[str, Any]]) -> Iterator[Sample]:
    """A record for each question of a task; where several filters read an answer, each has its metrics."""
    family, language = describe(name, task.config.dataset_name)
    by_number: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        by_number.setdefault(row["doc_id"], []).append(row)
    items = [item_name(family, name, number, found[0]["doc"]) for number, found in by_number.items()]
    distinct = len(set(items)) == len(items)
    for item, (number, found) in zip(items, by_number.items(), strict=True):
        last = found[-1]
        metrics = {
            metric if row["filter"] == "none" or len(found) == 1 else f"{metric},{row['filter']}": float(row[metric])
            for row in found
            for metric in row["metrics"]
            if isinstance(row[metric], numbers.Real)
        }
        log_probs, choices, target = (), (), last["target"]
        if task.OUTPUT_TYPE == "multiple_choice":
            log_probs, choices = _log_probs(last["filtered_resps"]), tuple(map(str, task.doc_to_choice(last["doc"])))
            target = choices.index(target) if target in choices else target
        best = max(range(len(log_probs)), key=log_probs.__getitem__) if log_probs else None
        prompt = task.doc_to_text(last["doc"])
        yield Sample(
            id=f"{name}/{number}",
            task=name,
            family=family,
            item=item if distinct else f"{name}/{number}",
            language=language,
            metrics=metrics,
            prediction=best if log_probs else _answer(last["filtered_resps"]),
            target=plain(target),
            prompt=prompt if isinstance(prompt, str) else str(prompt),
            choices=choices,
            log_probs=log_probs,
            doc=plain(last["doc"]),
        )


def _log_probs(responses: Sequence[Any]) -> tuple[float, ...]:
    """Log-probabilities of the choices; none where they are not numbers."""
    try:
        return tuple(float(response[0]) for response in responses)
    except (TypeError, ValueError, IndexError):
        return ()


def _answer(responses: Sequence[Any]) -> str | None:
    first = responses[0] if responses else None
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return None if first is None else str(first)
