"""What `aya select` is told: rows, how they are embedded, how good they are, and which to take. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from aya_jax.config.errors import near_names
from aya_jax.config.registry import Problem, configurable
from aya_jax.parallel.config import MeshConfig
from aya_jax.synthesis.config import FLAGS, RewardEndpointConfig, RewardFunctionConfig, RewardModelConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """The rows to choose from.

    Attributes:
      files: patterns of JSON lines (.jsonl, .gz, .zst) or Parquet files; bind ROWS.
      fields: what a row says, in this order: fields with a text or with a conversation's turns; the last is its answer.
      id_field: with what names a row; None: its file and line.
      language_field: with its language, by which shares are told.
      source_field: with where it is from, by which shares are told; None: its file.
    """

    files: tuple[str, ...]
    fields: tuple[str, ...] = ("prompt", "response")
    id_field: str | None = None
    language_field: str | None = "lang"
    source_field: str | None = None

    def validate(self) -> Iterator[Problem]:
        """Yields what is empty."""
        if not self.files:
            yield Problem("files", "files of rows: add --gin.ROWS=\"('FILE.jsonl',)\"")
        if not self.fields:
            yield Problem("fields", "at least one field with a text")


@configurable
@dataclass(frozen=True, kw_only=True)
class ChecksConfig:
    """What leaves a row out before any are chosen; what was left out is counted by cause and language.

    Attributes:
      flags: what is looked for in a row's answer: "empty", "refusal", "truncated", "template_leak", "wrong_language",
        "echo" (of the prompt), "repetition", "translationese".
      near_duplicates: the share of shingles (5 characters) in common from which on a row repeats an earlier one; None: whatever
        they share.
    """

    flags: tuple[str, ...] = ("empty", "refusal", "template_leak", "repetition")
    near_duplicates: float | None = 0.8

    def validate(self) -> Iterator[Problem]:
        """Yields flags that are none, and numbers out of range."""
        for flag in self.flags:
            if flag not in FLAGS:
                yield Problem("flags", f"of {', '.join(FLAGS)}; {flag!r} is none of these", near_names(flag, FLAGS))
        if self.near_duplicates is not None and not 0 < self.near_duplicates <= 1:
            yield Problem("near_duplicates", "a share above 0, at most 1, or None")


@configurable
@dataclass(frozen=True, kw_only=True)
class HashedNgramsConfig:
    """Embeds by hashed n-grams of characters, weighted by how rare they are among the rows: no model is needed.

    Attributes:
      sizes: of n-grams, in characters.
      dims: principal components that are kept of them (latent semantic analysis, Deerwester et al. 1990).
    """

    sizes: tuple[int, ...] = (2, 3, 4)
    dims: int = 64

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range."""
        if not self.sizes or min(self.sizes) < 1:
            yield Problem("sizes", "lengths of at least 1")
        if self.dims < 2:
            yield Problem("dims", "at least 2")


@configurable
@dataclass(frozen=True, kw_only=True)
class ModelStatesConfig:
    """Embeds by a model's last hidden states.

    Attributes:
      model_dir: a run directory, one of its checkpoints, or a Hugging Face directory; bind MODEL_DIR.
      pooling: "mean" of a row's tokens, or the "last" one's.
      max_tokens: of a row, its first ones; None: as many as the model reads.
      rows: that are embedded at the same time.
    """

    model_dir: str
    pooling: Literal["mean", "last"] = "mean"
    max_tokens: int | None = 512
    rows: int = 16

    def validate(self) -> Iterator[Problem]:
        """Yields a missing directory and numbers out of range."""
        if not self.model_dir:
            yield Problem("model_dir", "a model: add --gin.MODEL_DIR=...")
        if self.max_tokens is not None and self.max_tokens < 1:
            yield Problem("max_tokens", "at least 1, or None")
        if self.rows < 1:
            yield Problem("rows", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class SentenceTransformersConfig:
    """Embeds by a model of the sentence-transformers package, which has to be installed.

    Attributes:
      name: the model's on the Hugging Face hub, or its directory.
      rows: that are embedded at the same time.
    """

    name: str
    rows: int = 64

    def validate(self) -> Iterator[Problem]:
        """Yields a missing name."""
        if not self.name:
            yield Problem("name", "a model's name, such as 'intfloat/multilingual-e5-small'")
        if self.rows < 1:
            yield Problem("rows", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class GivenEmbeddingsConfig:
    """Takes embeddings that were made elsewhere.

    Attributes:
      file: a .npy file of numbers [N, D], the rows in the order of `RowsConfig.files`.
    """

    file: str

    def validate(self) -> Iterator[Problem]:
        """Yields a missing name."""
        if not self.file.endswith(".npy"):
            yield Problem("file", "a .npy file")


@configurable
@dataclass(frozen=True, kw_only=True)
class ColumnConfig:
    """Quality that stands in the rows.

    Attributes:
      field: with a number.
    """

    field: str


@configurable
@dataclass(frozen=True, kw_only=True)
class PerplexityConfig:
    """Quality by how likely a model finds a row: minus its bits per byte, so that more is better.

    Attributes:
      model_dir: a run directory, one of its checkpoints, or a Hugging Face directory.
      rows: that are scored at the same time.
    """

    model_dir: str
    rows: int = 16

    def validate(self) -> Iterator[Problem]:
        """Yields a missing directory and numbers out of range."""
        if not self.model_dir:
            yield Problem("model_dir", "a model")
        if self.rows < 1:
            yield Problem("rows", "at least 1")


@configurable
@dataclass(frozen=True, kw_only=True)
class RefineConfig:
    """A further round: clusters that the model has still to learn from get more ("Diversify and Conquer", section 3).

    Attributes:
      previous: the RUN_DIR of the round before, whose rows are kept and whose clusters are taken.
      answers: what the model, trained on these rows, answers to their prompts: the file that `aya generate` writes of the
        round's `prompts.jsonl`.
      update: how weights follow from gains: "ratio" (the paper's), "exponential", or "released" (as the published code does).
    """

    previous: str
    answers: str
    update: Literal["ratio", "exponential", "released"] = "ratio"

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing."""
        if not self.previous:
            yield Problem("previous", "the round before: add --gin.PREVIOUS=...")
        if not self.answers:
            yield Problem("answers", "a file of `aya generate`: add --gin.ANSWERS=...")


Embedding = HashedNgramsConfig | ModelStatesConfig | SentenceTransformersConfig | GivenEmbeddingsConfig
Quality = ColumnConfig | PerplexityConfig | RewardModelConfig | RewardFunctionConfig | RewardEndpointConfig


@configurable
@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Root of `aya select`: which rows to train on.

    Attributes:
      run_dir: where everything is written; bind RUN_DIR.
      kept_dir: where embeddings, clusters and qualities are kept, for other selections from the same rows; None: in `run_dir`.
      rows: what is chosen from.
      checks: what leaves rows out before; None: nothing.
      budget: rows to take; bind BUDGET. With `refine`, in this round.
      method: "random"; of k-means clusters "kmeans_random" rows, those "kmeans_closest" to the centres, or "kmq" (by quality);
        "k_center" (each farthest from the others); the best by "quality".
      embedding: of rows, where the method asks for one.
      quality: of rows, where the method asks for one; more is better.
      clusters: how many; or several, of which the silhouette picks one.
      sizes: what a cluster gives: "proportional" to its rows (the paper), or "equal" (the released code).
      weighing: chances within a cluster: "linear" in quality (the paper), or its "softmax" (the released code).
      again: whether a row may be drawn again ("with replacement", as the paper writes); it then stands there as often.
      refine: a further round.
      silhouette_rows: of a sample by which the number of clusters is picked.
      seed: of clusters and draws.
      mesh: what k-means and models are divided over.
    """

    NOT_IN_FINGERPRINT: ClassVar[tuple[str, ...]] = ("run_dir", "kept_dir", "mesh")

    run_dir: str
    rows: RowsConfig
    budget: int
    kept_dir: str | None = None
    method: Literal["random", "kmeans_random", "kmeans_closest", "k_center", "quality", "kmq"] = "kmq"
    checks: ChecksConfig | None = None
    embedding: Embedding = field(default_factory=HashedNgramsConfig)
    quality: Quality | None = None
    clusters: int | tuple[int, ...] = 64
    sizes: Literal["proportional", "equal"] = "proportional"
    weighing: Literal["linear", "softmax"] = "linear"
    again: bool = False
    refine: RefineConfig | None = None
    silhouette_rows: int = 10_000
    seed: int = 0
    mesh: MeshConfig = field(default_factory=MeshConfig)

    @property
    def clustered(self) -> bool:
        """Whether the method wants clusters."""
        return self.method in ("kmeans_random", "kmeans_closest", "kmq")

    def validate(self) -> Iterator[Problem]:
        """Yields what is missing, out of range, or does not go together."""
        if not self.run_dir:
            yield Problem("run_dir", "a directory: add --gin.RUN_DIR=...")
        if self.budget < 1:
            yield Problem("budget", "at least 1 row: add --gin.BUDGET=...")
        candidates = (self.clusters,) if isinstance(self.clusters, int) else self.clusters
        if not candidates or min(candidates) < (1 if isinstance(self.clusters, int) else 2):
            yield Problem("clusters", "at least 1; of several to pick from each at least 2")
        if self.method in ("quality", "kmq") and self.quality is None:
            yield Problem(
                "quality", f"{self.method!r} needs one: bind SelectConfig.quality, for instance @ColumnConfig()"
            )
        if self.again and not (self.clustered and self.method != "kmeans_closest"):
            yield Problem("again", f"only where rows are drawn from clusters, which {self.method!r} does not")
        if self.refine is not None and self.method != "kmq":
            yield Problem("refine", f"rounds are those of 'kmq', and the method is {self.method!r}")
        if self.refine is not None and isinstance(self.quality, ColumnConfig | PerplexityConfig):
            yield Problem("quality", "a round scores new answers: a reward model, function or endpoint is needed")
        if self.silhouette_rows < 2:
            yield Problem("silhouette_rows", "at least 2")
