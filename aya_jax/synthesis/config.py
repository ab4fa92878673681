"""What online rounds are told: what is asked, what judges the answers, and how they are trained on. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from aya_jax.config.registry import Problem, configurable
from aya_jax.inference.config import EngineConfig, SamplingConfig
from aya_jax.inference.remote_config import address_problem
from aya_jax.objectives.config import PolicyGradientConfig, PreferenceConfig
from aya_jax.training.config import TrainConfig

FLAGS = ("empty", "refusal", "truncated", "template_leak", "wrong_language", "echo", "repetition", "translationese")
"""What a look at an answer may find wrong (`row_checks`)."""


@configurable
@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """Where prompts come from.

    Attributes:
      file: JSONL of rows with `prompt` or `messages`; bind INPUT.
      language_field: the field with a row's language, by which results are told apart.
      language: of rows without it.
      held_out: so many rows are never trained on; answers to them measure every round.
      per_round: rows whose answers one round is trained on; rounds go on through the rows, and begin again at their end.
      seed: rows are taken in an order that follows from it; the first are those held out.
    """

    file: str
    language_field: str = "lang"
    language: str = "und"
    held_out: int = 64
    per_round: int = 256
    seed: int = 0

    def validate(self) -> Iterator[Problem]:
        """Yields a missing file and numbers out of range."""
        if not self.file:
            yield Problem("file", "a JSONL file of prompts: add --gin.INPUT=...")
        if self.held_out < 2:
            yield Problem("held_out", "at least 2 rows, to have an interval")
        if self.per_round < 1:
            yield Problem("per_round", "at least 1 row")


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """Scores answers with a reward model of ours (gin/train/reward.gin), by its own tokenizer and chat template.

    Attributes:
      model_dir: a run directory or one of its checkpoints.
      rows: answers that are scored at the same time.
    """

    model_dir: str
    rows: int = 16

    def validate(self) -> Iterator[Problem]:
        """Yields a missing directory."""
        if not self.model_dir:
            yield Problem("model_dir", "a run directory of gin/train/reward.gin")
        if self.rows < 1:
            yield Problem("rows", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardFunctionConfig:
    """Scores answers with a Python function.

    Attributes:
      function: "module:function", called as function(messages, answer, fields, **options) and giving a number; `messages` are
        those of the prompt, `fields` the row's.
      options: further arguments.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def validate(self) -> Iterator[Problem]:
        """Yields a name that names no function."""
        if self.function.count(":") != 1:
            yield Problem("function", "'module:function'")


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardEndpointConfig:
    """Scores answers with a reward model behind an HTTP endpoint, as vLLM serves them.

    Attributes:
      base_url: the server's: "http://127.0.0.1:8000".
      model: its name there.
      endpoint: "pooling", for models with a reward head; "classify", for those with one label (serve them with softmax off).
      api_key_file: a file with the key on one line; None sends no key.
      concurrency: answers that are scored at the same time.
      timeout: seconds for one call.
      retries: how often a call that failed for a passing reason is made again.
    """

    base_url: str
    model: str
    endpoint: Literal["pooling", "classify"] = "pooling"
    api_key_file: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 6

    def validate(self) -> Iterator[Problem]:
        """Yields what is no address, a missing name, and numbers out of range."""
        if problem := address_problem(self.base_url):
            yield Problem("base_url", problem)
        if not self.model:
            yield Problem("model", "the model's name at the endpoint (GET /v1/models lists them)")
        if self.concurrency < 1:
            yield Problem("concurrency", "at least 1")
        if not self.timeout > 0:
            yield Problem("timeout", "above 0 seconds")
        if self.retries < 0:
            yield Problem("retries", "0 or more")


@configurable
@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """Root of `aya online`: rounds of sampling, scoring and training.

    Attributes:
      run_dir: where everything is written; bind RUN_DIR.
      train: one round's training. Where it writes, what it starts from and its data follow from the rounds.
      prompts: what is asked.
      scorer: what judges answers.
      rounds: how many.
      samples: answers to each prompt of a round, at least 2.
      sampling: how answers are drawn; n follows from `samples`.
      engine: the shape of the decode engine.
      unfinished_penalty: taken off the reward of an answer that reached max_tokens before its end.
      min_margin: prompts whose best and worst answer differ by less are not trained on; where all are equal never.
      validation_permille: prompts out of 1000 of a round, one of each language at least, that measure its training.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = (
        "run_dir",
        "rounds",
        "engine",
        *(f"train.{name}" for name in TrainConfig.NOT_IN_FINGERPRINT),
    )

    run_dir: str
    train: TrainConfig
    prompts: PromptsConfig
    scorer: RewardModelConfig | RewardFunctionConfig | RewardEndpointConfig
    rounds: int = 3
    samples: int = 8
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    unfinished_penalty: float = 0.0
    min_margin: float = 0.0
    validation_permille: int = 50

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and training that is not on pairs."""
        if self.rounds < 1:
            yield Problem("rounds", "at least 1")
        if self.samples < 2:
            yield Problem("samples", "at least 2: a pair is the best and the worst of them")
        for name in ("unfinished_penalty", "min_margin"):
            if getattr(self, name) < 0:
                yield Problem(name, "0 or more")
        if not 1 <= self.validation_permille <= 500:
            yield Problem("validation_permille", "between 1 and 500 of 1000 pairs")
        if not isinstance(self.train.objective, PreferenceConfig | PolicyGradientConfig):
            yield Problem("train.objective", "@PreferenceConfig() or @PolicyGradientConfig()")
        if not self.train.initialize_from:
            yield Problem("train.initialize_from", "the model that the first round samples: MODEL_DIR")
        if self.sampling.temperature == 0:
            yield Problem("sampling.temperature", "above 0: with 0 all answers to a prompt are the same")
