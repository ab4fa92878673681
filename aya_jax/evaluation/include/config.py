"""What is asked of INCLUDE's exams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.evaluation.include.languages import unknown
from aya_jax.evaluation.include.prompts import STYLES
from aya_jax.evaluation.languages import NAMES
from aya_jax.evaluation.measure_config import MeasureConfig
from aya_jax.inference.config import EngineConfig, unattended

PROTOCOLS = ("few_shot", "reasoning", "likelihood")


@configurable
@dataclass(frozen=True, kw_only=True)
class IncludeConfig(MeasureConfig):
    """INCLUDE's exams (2411.19799) in its four prompt styles, by what a model writes or by the likeliest letter.

    Attributes:
      languages: names or patterns of the dataset's languages, such as 'Turkish'.
      styles: instructions in the question's language ("IL", which 20 of the 44 languages have) or in English ("Eng"), and both
        with the country of the exam ("Reg+IL", "Reg+Eng").
      protocols: "few_shot": a letter is written after `few_shot` answered questions; "reasoning": zero-shot, a chain of thought
        that ends in a letter; "likelihood": as few_shot, but the likeliest of the four letters is the answer.
      data_dir: a folder with `<dataset>/<language>/test.jsonl` and `validation.jsonl` (.jsonl.gz, .parquet); None: the Hugging
        Face hub's. Bind DATA_DIR.
      dataset: its name on the hub; `CohereLabs/include-lite-44` is the small one.
      few_shot: answered questions before each, the first of the language's validation split; fewer where the model reads less.
      trained_languages: ISO 639-1 codes of the languages that the model was trained on, for the split by training.
      chat: put questions to the model as a conversation, by its chat template.
      limit: at most so many questions of each language, its first ones, for a try; the report says so. None takes all.
      max_tokens: of an answer that is to be a letter.
      reasoning_tokens: of an answer with its reasoning.
      max_length: tokens of a prompt and its answer together; None: the model's longest sequence.
      batch_tokens: tokens that are scored at a time for "likelihood", padding included, over all devices.
      engine: what generates answers.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.include.run:run"

    languages: tuple[str, ...] = ("*",)
    styles: tuple[str, ...] = STYLES
    protocols: tuple[str, ...] = ("few_shot",)
    data_dir: str | None = None
    dataset: str = "CohereLabs/include-base-44"
    few_shot: int = 5
    trained_languages: tuple[str, ...] = ()
    chat: bool = False
    limit: int | None = None
    max_tokens: int = 32
    reasoning_tokens: int = 1024
    max_length: int | None = None
    batch_tokens: int = 2048
    engine: EngineConfig = field(default_factory=unattended)

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, unknown or out of range."""
        if not self.languages:
            yield Problem("languages", "at least one name or pattern; ('*',) is every language")
        for name, known in (("styles", STYLES), ("protocols", PROTOCOLS)):
            strange = [value for value in getattr(self, name) if value not in known]
            if strange or not getattr(self, name):
                near = near_names(strange[0], known) if strange else ()
                yield Problem(name, f"some of {', '.join(map(repr, known))}", near)
        strange = unknown(self.trained_languages)
        if strange:
            yield Problem("trained_languages", "ISO 639-1 codes, such as 'tr'", near_names(strange[0], NAMES))
        if self.few_shot < 0:
            yield Problem("few_shot", "0 or more")
        for name in ("max_tokens", "reasoning_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        for name in ("limit", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")
