"""Held-out loss: the same sums for validation during training and for `aya evaluate`."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.data import store
from aya_jax.data.batches import BatchLoader, ordered_batches
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.sharding import replicated
from aya_jax.training.config import TrainConfig
from aya_jax.training.placement import place, row_share

SPLIT = "validation"
_MEANS = ("bits_per_byte", "entropy", "mean_token_accuracy")
ScoreFunction = Callable[..., "Scored"]


@dataclass(frozen=True)
class HeldOut:
    """Sums over held-out text; adding two gives those of both texts.

    Attributes:
      nll: nats, over all predicted tokens.
      tokens: how many were predicted.
      bytes: UTF-8 bytes of text that they stand for (special tokens stand for none).
      entropy: nats, of the distributions that they were predicted by.
      correct: how many were the likeliest token.
    """

    nll: float = 0.0
    tokens: int = 0
    bytes: int = 0
    entropy: float = 0.0
    correct: int = 0

    def __add__(self, other: HeldOut) -> HeldOut:
        return HeldOut(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of text: comparable between tokenizers (Gao et al. 2020, The Pile, section 3.1)."""
        return self.nll / math.log(2) / self.bytes if self.bytes else math.nan

    def summary(self) -> dict[str, float]:
        """The sums and what follows from them."""
        return {
            "tokens": self.tokens,
            "bytes": self.bytes,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "entropy": self.entropy / self.tokens if self.tokens else math.nan,
            "mean_token_accuracy": self.correct / self.tokens if self.tokens else math.nan,
        }


class Scored(NamedTuple):
    """A scored batch on the host, all rows of all processes.

    Attributes:
      nll: float64 [B, S], nats, 0 where nothing is predicted.
      predicted: bool [B, S].
      bytes: int64 [B, S], of each target; 0 where nothing is predicted.
      entropy: float64 [B, S], nats; 0 where nothing is predicted.
      correct: bool [B, S], whether the target is the likeliest token; False where nothing is predicted.
    """

    nll: np.ndarray
    predicted: np.ndarray
    bytes: np.ndarray
    entropy: np.ndarray
    correct: np.ndarray

    def total(self) -> HeldOut:
        """The batch's sums."""
        return HeldOut(
            float(self.nll.sum()),
            int(self.predicted.sum()),
            int(self.bytes.sum()),
            float(self.entropy.sum()),
            int(self.correct.sum()),
        )


def make_score(model: Transformer, mesh: Mesh) -> ScoreFunction:
    """The compiled function (params, batch, token_bytes int32 [V]) -> `Scored` arrays, whole on every process."""

    def score(params: Any, batch: Mapping[str, jax.Array], token_bytes: jax.Array) -> Scored:
        predicted = batch["loss_weights"] > 0
        scores = model(params, batch)
        return Scored(
            nll=jnp.where(predicted, -scores.log_probs, 0.0),
            predicted=predicted,
            bytes=jnp.where(predicted, token_bytes[batch["targets"]], 0),
            entropy=jnp.where(predicted, scores.entropy, 0.0),
            correct=predicted & scores.correct,
        )

    return jax.jit(score, out_shardings=replicated(mesh))


def score_batches(
    score: ScoreFunction, params: Any, batches: Iterable[Mapping[str, jax.Array]], token_bytes: np.ndarray
) -> Iterator[Scored]:
    """Scores batches that lie on the devices, in order; the next is dispatched before one is fetched."""
    pending: Scored | None = None
    for batch in batches:
        ahead = score(params, batch, token_bytes)
        if pending is not None:
            yield _fetch(pending)
        pending = ahead
    if pending is not None:
        yield _fetch(pending)


def _fetch(scored: Scored) -> Scored:
    found = jax.device_get(scored)
    return found._replace(
        nll=found.nll.astype(np.float64), bytes=found.bytes.astype(np.int64), entropy=found.entropy.astype(np.float64)
    )


class Validator:
    """Measures the tasks of a run on their held-out splits.

    Attributes:
      tasks: those that have held-out documents.
    """

    def __init__(self, config: TrainConfig, model: Transformer, mesh: Mesh, loader: BatchLoader):
        self._config, self._mesh, self._rules = config, mesh, model.rules
        self._score = make_score(model, mesh)
        self.tasks = find_tasks(config, loader)

    def is_due(self, done: int) -> bool:
        """Whether step `done` is one to measure after: every so many, and the last."""
        return is_due(self._config, self.tasks, done)

    def measure(self, params: Any) -> dict[str, float]:
        """The numbers of a validation record."""
        results = {task: self._measure_task(params, task) for task in self.tasks}
        manifests = {task: held_out_store(self._config.data.store_dir, task).manifest for task in self.tasks}
        return record(results) | by_tag(results, {task: (m.language, m.domain) for task, m in manifests.items()})

    def _measure_task(self, params: Any, task: str) -> HeldOut:
        share = row_share(self._mesh, self._rules)
        opened = held_out_store(self._config.data.store_dir, task)
        batches = ordered_batches(
            opened,
            self._config.data,
            max_tokens=self._config.validation.max_tokens,
            process_index=share.index,
            process_count=share.count,
        )
        placed = (place(batch, self._mesh, self._rules) for batch in batches)
        scored = score_batches(self._score, params, placed, opened.token_bytes)
        return combine(part.total() for part in scored)


def find_tasks(config: TrainConfig, loader: BatchLoader) -> tuple[str, ...]:
    """The tasks that a run measures.

    Raises:
      UserError: none of those asked for has held-out documents, or one is of another tokenizer.
    """
    data = config.data
    found = held_out_tasks(data.store_dir, config.validation.tasks or loader.task_names)
    if config.validation.tasks and not found:
        raise UserError(
            f"ValidationConfig.tasks = {config.validation.tasks}: no such held-out documents in {data.store_dir}, which has "
            f"{', '.join(store.names(data.store_dir, SPLIT)) or 'none'}."
        )
    for task in found:
        check_tokenizer(held_out_store(data.store_dir, task), loader.vocabulary)
    return found


def is_due(config: TrainConfig, tasks: Sequence[str], done: int) -> bool:
    """Whether a run with these held-out tasks is measured after step `done`."""
    every = config.validation.every
    return bool(tasks) and done > 0 and (done == config.steps or bool(every and done % every == 0))


def held_out_tasks(store_dir: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The tasks that the names and patterns mean, of those that have a held-out split with documents in it."""
    available = [name for name in store.names(store_dir, SPLIT) if held_out_store(store_dir, name).num_documents]
    return tuple(name for name in available if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def held_out_store(store_dir: str, task: str) -> store.TokenStore:
    """The held-out documents of a task."""
    return store.TokenStore.open(store.store_path(store_dir, task, SPLIT))


def check_tokenizer(opened: store.TokenStore, vocabulary: store.VocabularyInfo) -> None:
    """Refuses a store of another tokenizer than the model's.

    Raises:
      UserError: its ids mean something else.
    """
    if opened.manifest.vocabulary.digest != vocabulary.digest:
        raise UserError(
            f"{opened.directory}: made with another tokenizer ({opened.manifest.vocabulary.spec}) than the model was "
            f"trained with ({vocabulary.spec}); prepare it with that one."
        )


def combine(parts: Iterable[HeldOut]) -> HeldOut:
    """The sums of all parts together."""
    return sum(parts, HeldOut())


def by_tag(results: Mapping[str, HeldOut], tags: Mapping[str, tuple[str, str]]) -> dict[str, float]:
    """Bits per byte, entropy and token accuracy of each language's text and of each domain.

    Args:
      results: of each task.
      tags: (language, domain) of each task.
    """
    groups: dict[str, list[HeldOut]] = {}
    for task, held_out in results.items():
        language, domain = tags[task]
        groups.setdefault(f"domain/{domain}", []).append(held_out)
        if domain == "text":
            groups.setdefault(f"language/{language}", []).append(held_out)
    summaries = {name: combine(parts).summary() for name, parts in groups.items()}
    return {f"{name}/{key}": summary[key] for name, summary in summaries.items() for key in _MEANS}


def record(results: Mapping[str, HeldOut]) -> dict[str, float]:
    """A validation record's numbers: all tasks together, then each."""
    total = combine(results.values())
    numbers = {name: total.summary()[name] for name in ("loss", "perplexity", *_MEANS)}
    for task, held_out in results.items():
        numbers |= {f"validation/{task}/{name}": value for name, value in held_out.summary().items()}
    return numbers
