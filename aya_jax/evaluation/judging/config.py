"""Who judges, and what. Imports neither JAX nor httpx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from aya_jax.config.registry import Problem, configurable
from aya_jax.inference.config import LocalModelConfig
from aya_jax.inference.remote_config import RemoteModelConfig
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import MeshConfig
from aya_jax.synthesis.config import RewardModelConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class ImplicitRewardConfig:
    """The reward that a policy and its reference hold between them: log pi(answer) - log pi_ref(answer).

    Attributes:
      model_dir: the policy: a run directory, one of its checkpoints, or a Hugging Face directory. Bind JUDGE_DIR.
      adapter: a LoRA adapter in PEFT's format that is added to the policy's weights. Bind ADAPTER.
      reference_dir: the model that the policy was trained from; None leaves it out. Bind REFERENCE_DIR.
      reduce: over an answer's tokens: "sum" is DPO's own; "mean" does not favour short answers where there is no reference.
      batch_tokens: tokens that are scored at a time, padding included, over all devices.
      precision: number formats of both; None: those of each one's training run, or float32.
      mesh: the shape of the device mesh.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    model_dir: str
    adapter: str | None = None
    reference_dir: str | None = None
    reduce: Literal["sum", "mean"] = "sum"
    batch_tokens: int = 8192
    precision: PrecisionConfig | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields a missing directory, and numbers out of range."""
        if not self.model_dir:
            yield Problem("model_dir", "a policy: add --gin.JUDGE_DIR=...")
        if self.reference_dir == "":
            yield Problem(
                "reference_dir", "the model that the policy was trained from, or None for rewards without one"
            )
        if self.batch_tokens < 1:
            yield Problem("batch_tokens", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class PairwiseConfig:
    """Which of two models answers better: Arena-Hard's five verdicts, or win, tie and loss. Both orders are judged.

    Attributes:
      answers: the model's answers, as `aya generate` writes them over a benchmark's prompts: rows with the prompt, its id and
        language, and `completions`. Bind ANSWERS.
      baseline: another model's answers to the same prompts. Bind BASELINE.
      form: "arena_hard" (m-ArenaHard) or "win_tie_loss" (Dolly-200).
      language: of rows that name none.
      strong_weight: how often a game with a ">>" verdict counts.
      unparsed: "drop" leaves a prompt out whose judge gave no verdict in either order, and counts it; "tie" calls it one.
      ties: how ties enter the win rate of "win_tie_loss".
      style: how answers look is controlled for beside the plain score: length in UTF-8 bytes, headers, lists and bold type.
      margin: rewards that differ by no more than this are a tie, where a reward model judges.
    """

    answers: str
    baseline: str
    form: Literal["arena_hard", "win_tie_loss"] = "arena_hard"
    language: str | None = None
    strong_weight: int = 3
    unparsed: Literal["drop", "tie"] = "drop"
    ties: Literal["exclude", "half", "loss"] = "half"
    style: bool = True
    margin: float = 0.0

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing, or out of range."""
        for name in ("answers", "baseline"):
            if not getattr(self, name):
                yield Problem(name, f"a file of `aya generate`: add --gin.{name.upper()}=...")
        if self.strong_weight < 1:
            yield Problem("strong_weight", "at least 1")
        if self.margin < 0:
            yield Problem("margin", "0 or more")


@configurable
@dataclass(frozen=True, kw_only=True)
class LabelledPairsConfig:
    """How far a judge agrees with people, on pairs of which they have said which is better.

    Attributes:
      files: in LLMBar's layout: `input`, `output_1`, `output_2`, `label`; or `labels`, a list of several people's, and
        `language` and `subject` by which their agreement is told apart.
      margin: rewards that differ by no more than this are a tie, where a reward model judges.
    """

    files: tuple[str, ...]
    margin: float = 0.0

    def validate(self) -> Iterator[Problem]:
        """Yields no files."""
        if not self.files:
            yield Problem("files", "at least one file of labelled pairs")


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardBenchConfig:
    """RewardBench, or M-RewardBench in 23 languages, over a reward model or a judge.

    Attributes:
      files: rows with id, language, prompt, chosen, rejected and subset; one file or one for each language.
      benchmark: whose subsets and weights: "m_reward_bench" or "reward_bench".
      language: of rows that name none; RewardBench's are English.
      english: the language that others are compared with by Cohen's kappa.
      both_orders: a judge reads each pair twice; else once, in an order that a hash of its id decides.
      allow_partial: score what there is where subsets are missing; the summary says so.
    """

    files: tuple[str, ...]
    benchmark: Literal["m_reward_bench", "reward_bench"] = "m_reward_bench"
    language: str | None = None
    english: str = "eng_Latn"
    both_orders: bool = False
    allow_partial: bool = False

    def validate(self) -> Iterator[Problem]:
        """Yields no files."""
        if not self.files:
            yield Problem("files", "at least one file of the benchmark's rows")


@configurable
@dataclass(frozen=True, kw_only=True)
class RewardBench2Config:
    """RewardBench 2: one right answer among four, and questions with several right answers (Ties), over rewards.

    Attributes:
      files: rows with id, prompt, chosen (a list), rejected (a list) and subset.
      allow_partial: score the subsets that there are where others are missing; the summary says so.
    """

    files: tuple[str, ...]
    allow_partial: bool = False

    def validate(self) -> Iterator[Problem]:
        """Yields no files."""
        if not self.files:
            yield Problem("files", "at least one file of the benchmark's rows")


@configurable
@dataclass(frozen=True, kw_only=True)
class GradeConfig:
    """Answers graded alone from 1 to 10, turn by turn (MT-Bench).

    Attributes:
      answers: to the benchmark's rows, as `aya generate` writes them: `turns`, and `completions`, one for each turn. Bind
        ANSWERS.
      language: of rows that name none.
      references: categories in which the judge is shown the row's `reference`, where it has one; FastChat's.
    """

    answers: str
    language: str | None = None
    references: tuple[str, ...] = ("math", "reasoning", "coding")

    def validate(self) -> Iterator[Problem]:
        """Yields a missing file."""
        if not self.answers:
            yield Problem("answers", "a file of `aya generate`: add --gin.ANSWERS=...")


@configurable
@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """What training against some harms does about others: models by what they were trained on, prompts by what they are.

    Attributes:
      trained: files of answers to aya_redteaming's prompts, as `aya generate` writes them, by what each model was trained
        on: {'global': 'a.jsonl', 'local': 'b.jsonl'}. Bind TRAINED.
      baseline: answers of the model that all of them started from. Bind BASELINE.
      by: what columns are: "scope" (global and local harms) or "language".
      language: of rows that name none.
    """

    trained: Mapping[str, str]
    baseline: str
    by: Literal["scope", "language"] = "scope"
    language: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields missing files."""
        if not self.trained or not all(self.trained.values()):
            yield Problem(
                "trained", "files of answers by what the model was trained on: add --gin.TRAINED=\"{'global': ...}\""
            )
        if not self.baseline:
            yield Problem("baseline", "answers of the model that they started from: add --gin.BASELINE=...")


@configurable
@dataclass(frozen=True, kw_only=True)
class HarmConfig:
    """How many answers to red-team prompts are harmful, by language, category and scope; and how many to harmless ones refuse.

    Attributes:
      answers: answers to aya_redteaming's prompts, as `aya generate` writes them. Bind ANSWERS.
      baseline: another model's answers to the same prompts, for the relative change; "" for none.
      harmless: answers to harmless prompts, for over-refusal; "" for none.
      language: of rows that name none.
    """

    answers: str
    baseline: str = ""
    harmless: str = ""
    language: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields a missing file."""
        if not self.answers:
            yield Problem("answers", "a file of `aya generate`: add --gin.ANSWERS=...")


@configurable
@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Root of `aya judge`.

    Attributes:
      judge: who judges: a model on this machine, an endpoint on the network, a reward model of ours, or the reward that a
        policy and its reference hold between them.
      what: what is judged.
      run_dir: where `evaluations/<name>.json` and its records go. Bind RUN_DIR.
      name: of the results' files.
      name_language: tell the judge which language a prompt is in.
      max_tokens: of a reply.
      seed: of replies and of hashed orders.
      resamples: of prompts, for the intervals.
      dry_run: say what it would cost, and ask nothing.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = (
        "run_dir",
        "dry_run",
        "judge.batch_tokens",
        "judge.rows",
        "judge.mesh",
        "judge.engine",
        "judge.compilation_cache",
    )

    judge: LocalModelConfig | RemoteModelConfig | RewardModelConfig | ImplicitRewardConfig = field()
    what: (
        PairwiseConfig
        | LabelledPairsConfig
        | RewardBenchConfig
        | RewardBench2Config
        | HarmConfig
        | TransferConfig
        | GradeConfig
    ) = field()
    run_dir: str
    name: str = "judged"
    name_language: bool = False
    max_tokens: int = 4096
    seed: int = 0
    resamples: int = 1000
    dry_run: bool = False

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing or out of range, and what a reward model cannot judge."""
        if not self.run_dir:
            yield Problem("run_dir", "a directory for the results: add --gin.RUN_DIR=...")
        if not self.name or "/" in self.name:
            yield Problem("name", "a file name without folders")
        for name in ("max_tokens", "resamples"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.rewards and isinstance(self.what, HarmConfig | TransferConfig | GradeConfig):
            yield Problem(
                "judge", "a model that writes: rewards do not say whether an answer is harmful, nor how good it is"
            )
        if not self.rewards and isinstance(self.what, RewardBench2Config):
            yield Problem("judge", "rewards: add judge/reward.gin or judge/implicit.gin")

    @property
    def alone(self) -> str | None:
        """Why several processes cannot do this together; None: they can."""
        return "an endpoint is asked by one process" if isinstance(self.judge, RemoteModelConfig) else None

    @property
    def rewards(self) -> bool:
        """Whether rewards judge, and no model that writes."""
        return isinstance(self.judge, RewardModelConfig | ImplicitRewardConfig)
