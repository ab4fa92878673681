"""INCLUDE's rows, from a folder or from the Hugging Face hub."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from aya_jax.config import UserError
from aya_jax.config.errors import did_you_mean, near_names
from aya_jax.evaluation.harness.local_data import DATA_SUFFIXES, read_hub, read_rows
from aya_jax.evaluation.include.config import IncludeConfig
from aya_jax.evaluation.include.languages import LANGUAGES
from aya_jax.evaluation.include.prompts import Question, read_questions


@dataclass(frozen=True)
class Exams:
    """One language.

    Attributes:
      language: INCLUDE's name of it.
      questions: to be asked.
      shots: answered ones, which stand before them.
    """

    language: str
    questions: tuple[Question, ...]
    shots: tuple[Question, ...]


def load(config: IncludeConfig) -> list[Exams]:
    """The languages that are asked for, with as many answered questions as are wanted.

    Raises:
      UserError: a language or its rows are not there, a row is not INCLUDE's (with file, line and field), or there are fewer
        answered questions than are wanted.
    """
    return [_exams(config, language) for language in _languages(config)]


def _languages(config: IncludeConfig) -> list[str]:
    there = sorted(LANGUAGES)
    if config.data_dir is not None:
        home = Path(config.data_dir) / config.dataset
        there = [name for name in there if (home / name).is_dir()]
        if not there:
            raise UserError(
                f"{home}: no language of INCLUDE is there; put a copy of {config.dataset} at {home}/<Language>/test.jsonl, "
                "or read the Hugging Face hub's with --gin.DATA_DIR=None"
            )
    found: dict[str, None] = {}
    for pattern in config.languages:
        names = fnmatch.filter(there, pattern)
        if not names:
            raise UserError(
                f"IncludeConfig.languages: no {pattern!r}{did_you_mean(near_names(pattern, there))}; there are "
                f"{', '.join(there)}"
            )
        found |= dict.fromkeys(names)
    return list(found)


def _exams(config: IncludeConfig, language: str) -> Exams:
    questions = _split(config, language, "test")[: config.limit]
    needs_shots = config.few_shot and set(config.protocols) != {"reasoning"}
    shots = _split(config, language, "validation")[: config.few_shot] if needs_shots else []
    if needs_shots and len(shots) < config.few_shot:
        raise UserError(
            f"INCLUDE, {language}: its validation split has {len(shots)} questions, and {config.few_shot} are wanted as "
            "examples: bind IncludeConfig.few_shot to fewer"
        )
    for question in (*questions, *shots):
        if question.language != language:
            raise UserError(f"{question.id}: field 'language' is {question.language!r} in the rows of {language!r}")
    return Exams(language, tuple(questions), tuple(shots))


def _split(config: IncludeConfig, language: str, split: str) -> list[Question]:
    if config.data_dir is None:
        return read_questions(
            read_hub(config.dataset, language, split=split), f"{config.dataset} ({language}, {split})"
        )
    home = Path(config.data_dir) / config.dataset / language
    file = next((home / f"{split}{suffix}" for suffix in DATA_SUFFIXES if (home / f"{split}{suffix}").is_file()), None)
    if file is None:
        remedy = "; examples come from it: copy it there, or bind IncludeConfig.few_shot = 0"
        raise UserError(f"{home}: no {split}.jsonl is there{remedy if split == 'validation' else ''}")
    return read_questions(read_rows(file), file)
