"""Prompts with the answers to them: read from a file of `aya generate`, or written by a model now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aya_jax.config import UserError
from aya_jax.evaluation.answers import Answers, question
from aya_jax.evaluation.profile.config import ProfileConfig
from aya_jax.evaluation.rows import Row, read_rows
from aya_jax.evaluation.subject import Subject
from aya_jax.evaluation.writing import write_texts
from aya_jax.inference import prompts
from aya_jax.inference.protocol import Request, Response
from aya_jax.training.console import Track

_IDS = ("question_id", "uid", "source_id", "id")
"""As in `judging.load`: what translations of a prompt share comes first."""
_LANGUAGES = ("language", "lang")


@dataclass(frozen=True)
class Answered:
    """A prompt and the answers to it.

    Attributes:
      item: the prompt, by a name that its translations share; unique within a language.
      language: of the prompt, as its row says.
      prompt: what was asked; of a conversation, what was said last.
      texts: the answers; of a conversation that went on, one to each turn.
      cut_short: of each, whether it ended at the limit of tokens and not by itself; None where the file does not say.
    """

    item: str
    language: str
    prompt: str
    texts: tuple[str, ...]
    cut_short: tuple[bool | None, ...]


def read_answered(file: str, language: str | None, limit: int | None) -> list[Answered]:
    """The prompts and answers of a file that `aya generate` wrote.

    Args:
      file: of rows with `id`, `language` (or `lang`), the prompt and `completions`.
      language: of rows that name none.
      limit: at most so many rows; None takes all.

    Raises:
      UserError: a row has no answers or no language, or its prompt is there twice; it names line and field.
    """
    rows = list(read_rows(file))[:limit]
    if not rows:
        raise UserError(f"{file}: no rows")
    return [
        Answered(*name, _prompt_text(row), *_completions(row))
        for row, name in zip(rows, _names(rows, language), strict=True)
    ]


def ask(config: ProfileConfig, subject: Subject, answers: Answers, track: Track) -> list[Answered]:
    """What the model answers to the prompts of `config.input`, `config.samples` times; known answers are not asked for again.

    Raises:
      UserError: a row is wrong, or does not fit the model.
    """
    asked = prompts.read_rows(config.input, config.sampling, chat=config.chat)[: config.limit]
    rows = list(read_rows(config.input))[: config.limit]
    for row, shown in zip(asked, rows, strict=True):
        if row.later:
            raise shown.problem(
                "turns",
                "has several; let `aya generate` answer them one after the other, and name its file with --gin.ANSWERS",
            )
    names = _names(rows, config.language)
    requests = []
    for row, (item, language) in zip(asked, names, strict=True):
        sampling = dataclasses.replace(row.request.sampling, n=config.samples)
        request = Request(id=f"{language}/{item}", prompt=row.request.prompt, sampling=sampling)
        requests.append((_key(request), request))
    how = {"engine": config.engine, "max_length": config.max_length, "track": track, "label": "prompts answered"}
    written = write_texts(subject, requests, answers, keep=_kept, **how)
    return [
        Answered(*name, _prompt_text(row), tuple(found["texts"]), tuple(found["cut_short"]))
        for row, name, found in zip(rows, names, written, strict=True)
    ]


def _key(request: Request) -> str:
    prompt = request.prompt
    shown = prompt if isinstance(prompt, str) else [dataclasses.asdict(turn) for turn in prompt]
    return question("profile", shown, dataclasses.asdict(request.sampling))


def _kept(response: Response) -> dict[str, Any]:
    completions = response.completions
    return {"texts": [c.text for c in completions], "cut_short": [c.finish_reason == "length" for c in completions]}


def _names(rows: Sequence[Row], language: str | None) -> list[tuple[str, str]]:
    """(item, language) of each row; a row without an id is named by its place, from 0, as `aya generate` does."""
    lines: dict[tuple[str, str], int] = {}
    for place, row in enumerate(rows):
        named = any(row.fields.get(name) is not None for name in _IDS)
        item = row.id(*_IDS) if named else str(place)
        named = any(row.fields.get(name) is not None for name in _LANGUAGES)
        if not named and language is None:
            raise row.problem("language", "is missing; name one for such rows with --gin.ProfileConfig.language=en")
        name = (item, row.text(*_LANGUAGES) if named else language)
        if name in lines:
            raise row.problem("id", f"is {item!r} again, for {name[1]} as in line {lines[name]}")
        lines[name] = row.line
    return list(lines)


def _prompt_text(row: Row) -> str:
    """What is shown to people: the prompt's text, or the last turn's."""
    for name in ("prompt", "messages", "turns", "inputs"):
        value = row.fields.get(name)
        while isinstance(value, list) and value:
            value = value[-1]
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            return value
    return ""


def _completions(row: Row) -> tuple[tuple[str, ...], tuple[bool | None, ...]]:
    completions = row.fields.get("completions")
    if not isinstance(completions, list) or not completions:
        raise row.problem("completions", "is missing; the file is to be written by `aya generate`")
    texts, cut_short = [], []
    for place, found in enumerate(completions):
        if not isinstance(found, dict) or not isinstance(found.get("text"), str):
            raise row.problem(f"completions[{place}].text", "is missing, or no text")
        texts.append(found["text"])
        reason = found.get("finish_reason")
        cut_short.append(None if reason is None else reason == "length")
    return tuple(texts), tuple(cut_short)
