"""What a training run is: model, data, optimizer, and what is written down on the way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from aya_jax.config.registry import Problem, configurable
from aya_jax.data.config import DataConfig
from aya_jax.models.config import AdapterConfig, PrecisionConfig, TransformerConfig
from aya_jax.objectives.config import REFERENCE, PolicyGradientConfig, PreferenceConfig, RewardConfig
from aya_jax.parallel.config import MeshConfig, as_tuple


@configurable
@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run, as a share of `OptimizerConfig.learning_rate` unless said otherwise.

    Attributes:
      kind: "constant"; "cosine": to the final rate along half a cosine; "linear": to it in a straight line (a cooldown is
        this without warm-up); "wsd": warm-up, stable, then in a straight line down over the last `decay_steps`.
      warmup_steps: steps over which the rate rises from 0 in a straight line, before all else.
      decay_steps: length of the final decay; "wsd" only.
      final_learning_rate: the rate after the last step, absolute (the code-in-pretraining paper cools down to 1e-6).
    """

    kind: Literal["constant", "cosine", "linear", "wsd"] = "cosine"
    warmup_steps: int = 0
    decay_steps: int = 0
    final_learning_rate: float = 0.0

    def validate(self) -> Iterator[Problem]:
        """Yields negative numbers, and decay steps that do not go with the kind."""
        for name in ("warmup_steps", "decay_steps", "final_learning_rate"):
            if getattr(self, name) < 0:
                yield Problem(name, "0 or more")
        if (self.kind == "wsd") != (self.decay_steps > 0):
            yield Problem("decay_steps", 'above 0 with kind = "wsd", and 0 with every other kind')


@configurable
@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with decoupled weight decay (Loshchilov and Hutter 2019) and clipping by the global norm.

    Attributes:
      learning_rate: the highest rate; bind LEARNING_RATE.
      schedule: the rate over the run.
      beta1: decay of the first moment.
      beta2: decay of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: per unit of learning rate, on matrices; norm weights never decay.
      decay_embeddings: whether the token table (and a separate output head) decays too.
      clip_norm: gradients are scaled down to this global norm; None does not clip.
    """

    learning_rate: float
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    decay_embeddings: bool = True
    clip_norm: float | None = 1.0

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and a final rate above the highest."""
        if not self.learning_rate > 0:
            yield Problem("learning_rate", "a number above 0")
        elif self.schedule.final_learning_rate > self.learning_rate:
            yield Problem("schedule.final_learning_rate", f"at most learning_rate = {self.learning_rate}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                yield Problem(name, "at least 0 and below 1")
        if not self.epsilon > 0:
            yield Problem("epsilon", "a number above 0")
        if self.weight_decay < 0:
            yield Problem("weight_decay", "0 or more")
        if self.clip_norm is not None and not self.clip_norm > 0:
            yield Problem("clip_norm", "a number above 0, or None for no clipping")


@configurable
@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When a step is skipped: its gradient is not finite, or its norm jumps.

    A skipped step leaves parameters and optimizer as they were and is counted.

    Attributes:
      spike_factor: a gradient norm above this many times its running mean is a spike; None skips only what is not finite.
      warmup_steps: steps before spikes are looked for, while the running mean settles.
      decay: of the running mean, per step.
      max_skipped: after this many skipped steps in a row the run stops and names the batches.
    """

    spike_factor: float | None = 10.0
    warmup_steps: int = 50
    decay: float = 0.98
    max_skipped: int = 10

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range."""
        if self.spike_factor is not None and not self.spike_factor > 1:
            yield Problem("spike_factor", "a number above 1, or None")
        if self.warmup_steps < 1:
            yield Problem("warmup_steps", "at least 1")
        if not 0 <= self.decay < 1:
            yield Problem("decay", "at least 0 and below 1")
        if self.max_skipped < 1:
            yield Problem("max_skipped", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When state is saved, and what is kept. The last step is always saved.

    Attributes:
      every: steps between saves; a kill loses at most so many.
      keep: newest checkpoints kept.
      keep_period: checkpoints at multiples of this step are kept for good; None keeps no others.
    """

    every: int = 500
    keep: int = 2
    keep_period: int | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields numbers below 1, and a single checkpoint kept."""
        if self.every < 1:
            yield Problem("every", "at least 1 step")
        if self.keep < 2:
            yield Problem("keep", "at least 2: one to fall back on when the newest is damaged")
        if self.keep_period is not None and self.keep_period < 1:
            yield Problem("keep_period", "at least 1 step, or None")


@configurable
@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Loss, perplexity and bits per byte on the held-out split of every task.

    Attributes:
      every: steps between validations; None validates after the last step only.
      tasks: names or patterns of tasks to validate on; () is the tasks of the mixture.
      max_tokens: at most so many tokens of each task, from its start; None takes all.
    """

    every: int | None = None
    tasks: tuple[str, ...] = ()
    max_tokens: int | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields numbers below 1."""
        for name in ("every", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield Problem(name, "at least 1, or None")


@configurable
@dataclass(frozen=True, kw_only=True)
class HookConfig:
    """Something that is done with the model while it trains, by a part of the code that training does not know: its own
    configuration class derives from this one.

    Attributes:
      every: steps between two times; None: after the last step only.
    """

    HOOK: ClassVar[str] = ""
    """ "module:function" that is called with this configuration and a `hooks.Setting`, and gives a `hooks.Hook`."""

    every: int | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields a number below 1, and a hook that is none."""
        if self.every is not None and self.every < 1:
            yield Problem("every", "at least 1, or None")
        if not self.HOOK:
            yield Problem("every", "a class that derives from HookConfig and does something: @BenchmarkHookConfig()")


@configurable
@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where numbers go besides `metrics.jsonl`, and how often.

    Attributes:
      every: steps between records; each is the mean over the steps since the last.
      tensorboard: writes `RUN_DIR/tensorboard` too.
      profile_steps: (first, last) of the steps to trace on the device, into `RUN_DIR/profile`; () traces none.
      wandb_project: sends records to this Weights & Biases project; None does not. Needs the package wandb.
      compilation_cache: directory in which compiled programs are kept between runs; None keeps none.
    """

    every: int = 10
    tensorboard: bool = True
    profile_steps: tuple[int, ...] = ()
    wandb_project: str | None = None
    compilation_cache: str | None = "~/.cache/aya_jax/compiled"

    def validate(self) -> Iterator[Problem]:
        """Yields an interval below 1."""
        if self.every < 1:
            yield Problem("every", "at least 1 step")
        if self.profile_steps and not (
            len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1]
        ):
            yield Problem("profile_steps", "(FIRST, LAST), counted from 1, or ()")


@configurable
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Root of `aya train`.

    Attributes:
      run_dir: where the run writes; bind RUN_DIR.
      steps: optimizer steps, skipped ones included; bind STEPS.
      model: the model's shape.
      data: the batches.
      optimizer: how parameters move.
      objective: what is learnt of judged answers: preferences or a reward from pairs, or an online round's advantages; None
        predicts the next token.
      adapter: low-rank changes that are trained in place of the model's matrices; None trains all parameters.
      seed: chooses the starting parameters; bind SEED.
      initialize_from: a run directory, one of its checkpoints, or a Hugging Face directory, whose parameters the run starts
        from with a fresh
        optimizer; None starts from random ones. Bind MODEL_DIR.
      accumulation: parts in which a batch is computed; the result is that of the whole batch.
      z_loss: weight of the squared log-sum-exp of the logits (Chowdhery et al. 2022, PaLM, section 5: 1e-4).
      label_smoothing: share of each target that is spread over the vocabulary (Szegedy et al. 2016, section 7).
      token_statistics: measure `entropy` and `mean_token_accuracy` of training batches too, for one more product of the
        token table a step; of held-out text they are measured in any case.
      guard: when a step is skipped.
      validation: what is measured on held-out text, and when.
      hooks: what else is done with the model on the way, such as benchmarks (gin/train/benchmarks.gin).
      checkpoints: what is saved, and when.
      mesh: the shape of the device mesh.
      precision: number formats and rematerialisation.
      tracking: where numbers go.
    """

    # What may change between sessions of one run: it does not decide which numbers come out, beyond rounding.
    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = (
        "run_dir",
        "mesh",
        "tracking",
        "checkpoints",
        "hooks",
        "precision.remat",
        "precision.unroll",
        "precision.attention",
        "precision.cross_entropy",
        "data.store_dir",
        "data.data_dir",
        "data.vocabulary",
        "data.read_threads",
        "data.prefetch",
    )

    run_dir: str
    steps: int
    model: TransformerConfig
    data: DataConfig
    optimizer: OptimizerConfig
    objective: PreferenceConfig | RewardConfig | PolicyGradientConfig | None = None
    adapter: AdapterConfig | None = None
    seed: int = 0
    initialize_from: str | None = None
    accumulation: int = 1
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    token_statistics: bool = False
    guard: GuardConfig = field(default_factory=GuardConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    hooks: tuple[HookConfig, ...] = ()
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range, and what does not fit together: sequence and model, batch and mesh, schedule and run."""
        if not self.run_dir:
            yield Problem("run_dir", "a directory for the run: add --gin.RUN_DIR=...")
        for name in ("steps", "accumulation"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if self.z_loss < 0:
            yield Problem("z_loss", "0 or more")
        if not 0 <= self.label_smoothing < 1:
            yield Problem("label_smoothing", "at least 0 and below 1")
        if not 0 <= self.seed < 2**32:
            yield Problem("seed", "between 0 and 2^32 - 1")
        if self.objective is not None:
            yield from self._validate_judged(self.objective)
            if self.token_statistics and isinstance(self.objective, RewardConfig):
                yield Problem("token_statistics", "False with objective = @RewardConfig(): it predicts no tokens")
        if self.adapter is not None and not self.initialize_from:
            yield Problem("initialize_from", "the model that the adapter is for: MODEL_DIR")
        yield from self._validate_sequence()
        yield from self._validate_batch()
        yield from self._validate_model()
        if self.steps >= 1:
            yield from self._validate_schedule()

    @property
    def reference(self) -> str | None:
        """The model that answers are measured against: the objective's, or else the one that the run starts from."""
        own = self.objective.reference if isinstance(self.objective, PreferenceConfig) else None
        return own or self.initialize_from

    def _validate_judged(self, objective: PreferenceConfig | RewardConfig | PolicyGradientConfig) -> Iterator[Problem]:
        for name in ("z_loss", "label_smoothing"):
            if getattr(self, name):
                yield Problem(name, f"0 with objective = @{type(objective).__name__}()")
        if self.data.packing != "documents":
            yield Problem("data.packing", "'documents': answers are packed whole")
        elif self.data.long_documents == "split":
            yield Problem("data.long_documents", "'truncate' or 'drop': answers are not split over rows")
        if REFERENCE in objective.fields and not self.reference:
            yield Problem("initialize_from", "the model to start from, which answers are measured against: MODEL_DIR")

    def _validate_sequence(self) -> Iterator[Problem]:
        length, longest = self.data.sequence_length, self.model.max_sequence_length
        if length > longest:
            yield Problem("data.sequence_length", f"at most the model's max_sequence_length = {longest}")
        # Context parallelism gives each of its devices two chunks, one early and one late (`kernels.attention.sharded`).
        shards = self._devices_over("sequence")
        parts = math.lcm(2 * shards if shards > 1 else 1, self._devices_over("residual"))
        if length % parts:
            yield Problem(
                "data.sequence_length", f"a multiple of {parts}, for the devices that the mesh divides it over"
            )

    def _validate_batch(self) -> Iterator[Problem]:
        batch = self.data.global_batch
        if self.accumulation >= 1 and batch % self.accumulation:
            yield Problem("data.global_batch", f"a multiple of accumulation = {self.accumulation}")
        elif self.accumulation >= 1:
            shards = self._devices_over("batch")
            if batch // self.accumulation % shards:
                yield Problem(
                    "data.global_batch",
                    f"a multiple of {self.accumulation * shards}: accumulation x the {shards} devices that the mesh "
                    "divides it over",
                )

    def _validate_model(self) -> Iterator[Problem]:
        model = self.model
        sizes = {
            "heads": ("num_heads", model.num_heads),
            "kv_heads": ("num_kv_heads", model.num_kv_heads),
            "mlp": ("mlp_dim", model.mlp_dim),
            "vocab": ("vocab_size", model.vocab_size),
            "embed": ("embed_dim", model.embed_dim),
        }
        for dim, (name, size) in sizes.items():
            shards = self._devices_over(dim)
            if size % shards:
                yield Problem(
                    f"model.{name}",
                    f"a multiple of the {shards} devices that the mesh divides it over, or LogicalAxes.{dim} = None",
                )

    def _devices_over(self, dim: str) -> int:
        """Over how many devices a dim of this logical name is divided, as far as the configuration says (-1 counts as 1)."""
        axes = as_tuple(getattr(self.mesh.logical_axes, dim))
        return math.prod(max(getattr(self.mesh, axis, 1), 1) for axis in axes)

    def _validate_schedule(self) -> Iterator[Problem]:
        schedule = self.optimizer.schedule
        if schedule.warmup_steps + schedule.decay_steps > self.steps:
            field_name = "decay_steps" if schedule.decay_steps else "warmup_steps"
            yield Problem(f"optimizer.schedule.{field_name}", f"warm-up and decay within the run's {self.steps} steps")
        for step, _ in self.data.mixture.schedule:
            if step >= self.steps:
                yield Problem("data.mixture.schedule", f"steps below the run's {self.steps}; {step} is never reached")
