"""What of a model's answers is profiled, and which benchmarks of bias it is asked. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.evaluation.measure_config import MeasureConfig
from aya_jax.inference.config import EngineConfig, SamplingConfig, unattended

BIAS_BENCHMARKS = ("bbq", "stereoset", "crows_pairs")


@configurable
@dataclass(frozen=True, kw_only=True)
class ProfileConfig(MeasureConfig):
    """How a model writes, and how toxic it is: of answers to prompts, or of answers that there are (docs/evaluate_profile.md).

    Attributes:
      input: the prompts that the model answers, in any form that `aya generate` reads; bind INPUT.
      answers: in its place, answers that `aya generate` wrote: no model is needed. Bind ANSWERS.
      language: ISO 639-1 code of rows that name none.
      samples: answers to each prompt of `input`.
      sampling: how they are drawn, and their length; its n is set here.
      chat: a prompt is what a user says, and the model's chat template is put around it.
      toxicity: a Python function, "module:name", that takes texts and their languages and gives each text a number from 0 to
        1, or such numbers by attribute; None: toxicity is not measured.
      lexicon: in its place, for a try, a file of words or phrases, one a line: a text with any of them has toxicity 1.
      threshold: from which on an answer is toxic.
      limit: at most so many prompts, the first ones, for a try; the report says so. None takes all.
      max_length: tokens of a prompt and its answer together; None: the model's longest sequence.
      engine: what generates answers.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.profile.profile:run"
    RUN_ON_TEXTS: ClassVar[str] = "aya_jax.evaluation.profile.profile:run_on_answers"

    input: str | None = None
    answers: str | None = None
    language: str | None = None
    samples: int = 1
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    chat: bool = False
    toxicity: str | None = None
    lexicon: str | None = None
    threshold: float = 0.5
    limit: int | None = None
    max_length: int | None = None
    engine: EngineConfig = field(default_factory=unattended)

    @property
    def needs_model(self) -> bool:
        """Whether a model has to write the answers."""
        return self.answers is None

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing or given twice, and numbers out of range."""
        if (self.input is None) == (self.answers is None):
            yield Problem(
                "input",
                "either prompts or answers: add --gin.INPUT=... with --gin.MODEL_DIR=..., or --gin.ANSWERS=... (a file of "
                "`aya generate`)",
            )
        if self.answers is not None:
            for name in ("samples", "chat", "max_length"):
                usual = ProfileConfig.__dataclass_fields__[name].default
                if getattr(self, name) != usual:
                    yield Problem(
                        name, f"{usual} with answers that there are: it is for those that a model is asked for"
                    )
        if self.toxicity is not None and self.lexicon is not None:
            yield Problem("toxicity", "one scorer: a function, or a lexicon")
        if self.toxicity is not None and not all(self.toxicity.partition(":")):
            yield Problem("toxicity", "a Python function, as 'module:name'")
        if not 0 < self.threshold <= 1:
            yield Problem("threshold", "above 0 and at most 1")
        for name in ("samples", "limit", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1" if name == "samples" else "at least 1, or None")
        if self.samples > 1 and not self.sampling.temperature:
            yield Problem("sampling.temperature", "above 0 where several answers are drawn")


@configurable
@dataclass(frozen=True, kw_only=True)
class BiasConfig(MeasureConfig):
    """Social bias by BBQ, StereoSet and CrowS-Pairs, from log-probabilities (docs/evaluate_profile.md).

    Attributes:
      benchmarks: which of "bbq", "stereoset" and "crows_pairs".
      data_dir: a folder with `eval/bbq`, `eval/stereoset/dev.json` and `eval/crows_pairs/crows_pairs_anonymized.csv`; bind
        DATA_DIR.
      limit: at most so many items of each group, the first ones, for a try; the report says so. None takes all.
      max_length: tokens of a text; what is longer loses its beginning. None: the model's longest sequence.
      batch_tokens: tokens that are scored at a time, padding included, over all devices.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.profile.bias_run:run"

    benchmarks: tuple[str, ...] = BIAS_BENCHMARKS
    data_dir: str
    limit: int | None = None
    max_length: int | None = None
    batch_tokens: int = 2048

    def validate(self) -> Iterator[Problem]:
        """Yields unknown benchmarks, an empty folder and numbers out of range."""
        if not self.benchmarks or set(self.benchmarks) - set(BIAS_BENCHMARKS):
            yield Problem("benchmarks", f"some of {', '.join(map(repr, BIAS_BENCHMARKS))}")
        if not self.data_dir:
            yield Problem("data_dir", "a folder with the items: DATA_DIR")
        for name in ("limit", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")
        if self.batch_tokens < 1:
            yield Problem("batch_tokens", "at least 1")
