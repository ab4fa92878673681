"""What an evaluation measures, and of which model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from aya_jax.config.registry import Problem, configurable
from aya_jax.evaluation.contamination.config import ContaminationConfig
from aya_jax.evaluation.include.config import IncludeConfig
from aya_jax.evaluation.measure_config import MeasureConfig
from aya_jax.evaluation.profile.config import BiasConfig, ProfileConfig
from aya_jax.inference.config import EngineConfig, SamplingConfig, unattended
from aya_jax.models.config import PrecisionConfig
from aya_jax.parallel.config import MeshConfig
from aya_jax.training.config import HookConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class HeldOutConfig(MeasureConfig):
    """Loss and bits per byte on held-out text, document by document.

    Attributes:
      tasks: names or patterns of the tasks to measure; every store with a held-out split may be named.
      store_dir: the token stores; None: those that the model was trained on. Bind STORE_DIR.
      sequence_length: tokens in a window; None: as in the training run, or where there is none the model's longest, at most
        2,048.
      batch: sequences scored at a time, rounded up to what the mesh divides; None: the training run's global batch, or 8.
      max_tokens: at most so many tokens of each task, from its start; None takes all.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.held_out:run"

    tasks: tuple[str, ...] = ("*",)
    store_dir: str | None = None
    sequence_length: int | None = None
    batch: int | None = None
    max_tokens: int | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, and numbers below 1."""
        if not self.tasks:
            yield Problem("tasks", "at least one name or pattern; ('*',) is every task")
        for name in ("sequence_length", "batch", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")


@configurable
@dataclass(frozen=True, kw_only=True)
class TranslationConfig:
    """What translations are scored by besides chrF++ and BLEU.

    Attributes:
      spm: the SentencePiece model of FLORES-200, for spBLEU; None: sacrebleu's own copy, which it downloads the first time.
      comet: the `checkpoints/model.ckpt` of a COMET or xCOMET model, `hparams.yaml` beside that folder; None: no COMET.
      comet_python: the Python of an environment with unbabel-comet; None: this one.
      comet_batch: segments that COMET scores at a time.
      comet_gpu: whether it does so on a GPU, of whose memory JAX must leave enough (XLA_PYTHON_CLIENT_MEM_FRACTION).
    """

    spm: str | None = None
    comet: str | None = None
    comet_python: str | None = None
    comet_batch: int = 16
    comet_gpu: bool = False

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and a Python that nothing asks for."""
        if self.comet_batch < 1:
            yield Problem("comet_batch", "at least 1")
        if self.comet_python and not self.comet:
            yield Problem("comet_python", "None without a checkpoint: add --gin.TranslationConfig.comet=FILE")


@configurable
@dataclass(frozen=True, kw_only=True)
class HarnessConfig(MeasureConfig):
    """Benchmarks as lm-evaluation-harness defines them, in this process.

    Attributes:
      tasks: names, groups, tags or patterns of the harness's tasks, or of those in `task_dirs`; bind TASKS.
      data_dir: a folder with copies of the benchmarks' rows, which are read in place of the Hugging Face hub's where it has
        them (docs/evaluate.md names the files); None: the hub's. Bind DATA_DIR.
      task_dirs: folders with more task files in the harness's format.
      few_shot: examples before each question; None: as each task says.
      limit: at most so many rows of each task, its first ones, for a try; the report says so. None takes all.
      chat: put questions to the model as a conversation, by its chat template.
      few_shot_as_turns: with `chat`, give each example as a turn of the user's and one of the assistant's.
      system: with `chat`, what the system says first.
      seed: what few-shot examples are drawn by, where a task draws them.
      max_tokens: of an answer, where a task does not say.
      max_length: tokens of a prompt and its answer together, of which older ones are cut; None: the model's longest sequence.
      batch_tokens: tokens that are scored at a time, an eighth more or less, padding included, over all devices.
      engine: what generates answers.
      translation: what translations are scored by.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.harness.benchmarks:run"

    tasks: tuple[str, ...]
    data_dir: str | None = None
    task_dirs: tuple[str, ...] = ()
    few_shot: int | None = None
    limit: int | None = None
    chat: bool = False
    few_shot_as_turns: bool = False
    system: str | None = None
    seed: int = 1234
    max_tokens: int = 256
    max_length: int | None = None
    batch_tokens: int = 2048
    engine: EngineConfig = field(default_factory=unattended)
    translation: TranslationConfig = field(default_factory=TranslationConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, numbers out of range, and what only a conversation has."""
        if not self.tasks:
            yield Problem("tasks", "at least one task: add --gin.TASKS=\"('xcopa_*',)\"")
        if self.few_shot is not None and self.few_shot < 0:
            yield Problem("few_shot", "0 or more, or None")
        for name in ("limit", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")
        for name in ("max_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if not self.chat:
            for name in ("few_shot_as_turns", "system"):
                if getattr(self, name):
                    yield Problem(name, f"{HarnessConfig.__dataclass_fields__[name].default} without chat = True")


@configurable
@dataclass(frozen=True, kw_only=True)
class CodeConfig(MeasureConfig):
    """Programs that a model writes, run in a sandbox against the tests of HumanEval and MBPP (docs/evaluate_code.md).

    Attributes:
      benchmarks: "humaneval", "mbpp" or both.
      data_dir: a folder with `eval/humaneval/humaneval.jsonl` and `eval/mbpp/sanitized-mbpp.jsonl`; bind DATA_DIR.
      k: of pass@k, the chance that one of k programs is right.
      samples: programs written for each problem, at least the largest k; one is the likeliest, of several each is drawn.
      sampling: how they are drawn, and their length; its seed, n and stop are set here.
      chat: put problems to the model as a conversation, by its chat template.
      limit: at most so many problems of each, its first ones, for a try; the report says so. None takes all.
      max_length: tokens of a problem and its program together; None: the model's longest sequence.
      seconds: that a program may run.
      memory_mib: that it may use.
      workers: programs that run at the same time.
      engine: what generates them.
    """

    RUN: ClassVar[str] = "aya_jax.evaluation.code.programs:run"

    benchmarks: tuple[str, ...] = ("humaneval", "mbpp")
    data_dir: str
    k: tuple[int, ...] = (1,)
    samples: int = 1
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(max_tokens=512, temperature=0.8, top_p=0.95)
    )
    chat: bool = False
    limit: int | None = None
    max_length: int | None = None
    seconds: float = 10.0
    memory_mib: int = 1024
    workers: int = 2
    engine: EngineConfig = field(default_factory=unattended)

    def validate(self) -> Iterator[Problem]:
        """Yields unknown benchmarks and numbers out of range."""
        if not self.benchmarks or set(self.benchmarks) - {"humaneval", "mbpp"}:
            yield Problem("benchmarks", "'humaneval', 'mbpp' or both")
        if not self.data_dir:
            yield Problem("data_dir", "a folder with the problems: DATA_DIR")
        if not self.k or min(self.k) < 1:
            yield Problem("k", "at least one number, each at least 1")
        elif self.samples < max(self.k):
            yield Problem("samples", f"at least {max(self.k)}, the largest k")
        for name in ("limit", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")
        for name in ("memory_mib", "workers"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.seconds <= 0:
            yield Problem("seconds", "above 0")
        if self.samples > 1 and not self.sampling.temperature:
            yield Problem("sampling.temperature", "above 0 where several programs are drawn")


@configurable
@dataclass(frozen=True, kw_only=True)
class BenchmarkHookConfig(HookConfig):
    """Benchmarks of a model while it trains: `TrainConfig.hooks = (@BenchmarkHookConfig(),)` (gin/train/benchmarks.gin).

    Attributes:
      every: steps between two times; None: after the last step only.
      benchmarks: which, and how.
    """

    HOOK: ClassVar[str] = "aya_jax.evaluation.harness.hook:BenchmarkHook"

    benchmarks: HarnessConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Root of `aya evaluate`: one measurement, of one model where what is measured `needs_model`.

    Attributes:
      model_dir: a run directory of `aya train`, one of its checkpoints, a converted model, or a Hugging Face directory; bind
        MODEL_DIR. None where the measurement is of texts.
      adapter: a LoRA adapter in PEFT's format that is added to the weights; bind ADAPTER.
      run_dir: where the results go, below `evaluations/`; None: the model's own directory, where there is one. Bind RUN_DIR.
      name: of the results' files.
      measure: what is measured.
      precision: number formats; None: those of the training run, or float32.
      mesh: the shape of the device mesh, whatever the model was trained on.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = (
        "model_dir",
        "adapter",
        "run_dir",
        "mesh",
        "measure.batch",
        "measure.batch_tokens",
        "measure.engine",
        "measure.workers",
        "measure.translation.comet_python",
        "measure.translation.comet_batch",
        "measure.translation.comet_gpu",
        "measure.input",
        "measure.answers",
        "compilation_cache",
    )

    model_dir: str | None = None
    adapter: str | None = None
    run_dir: str | None = None
    name: str = "held_out"
    measure: (
        HeldOutConfig | HarnessConfig | CodeConfig | IncludeConfig | ProfileConfig | BiasConfig | ContaminationConfig
    ) = field(default_factory=HeldOutConfig)
    precision: PrecisionConfig | None = None
    mesh: MeshConfig = field(default_factory=MeshConfig)
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty, and what is missing for what is measured."""
        if self.measure.needs_model and not self.model_dir:
            yield Problem("model_dir", "a trained model: add --gin.MODEL_DIR=...")
        if not self.measure.needs_model and not self.run_dir:
            yield Problem("run_dir", "where the results go, as there is no model's directory: add --gin.RUN_DIR=...")
        if not self.measure.needs_model and self.model_dir:
            yield Problem("model_dir", "None: what is measured here are texts that there are")
        if not self.name or "/" in self.name:
            yield Problem("name", "a file name without folders")

    @property
    def alone(self) -> str | None:
        """Why this cannot be done by several processes together; None if it can."""
        if not self.measure.needs_model:
            return "texts that there are are measured by one process"
        return None
