"""What is trained on: a mixture of tasks, the token stores that hold them, and how batches are cut from these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aya_jax.config.registry import Problem, configurable


@configurable
@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Which tasks are trained on, and at what rates.

    A rate's key is a task's name or a pattern with `*`, `?` or `[...]` ("text_*"). A pattern's rate is divided over its
    tasks in proportion to tokens^(1/temperature), where tokens are those of each task's training store; a task named
    alone takes its own rate and leaves the patterns. Rates are relative: they need not sum to one.

    Attributes:
      rates: name or pattern → rate; or the name of one task or of a registered SeqIO mixture.
      temperature: 1 divides a pattern's rate in proportion to the tokens, a large number evenly.
      schedule: (step, rates) pairs in order of step: the rates that hold from that step on. `rates` holds before.
    """

    rates: dict[str, float] | str
    temperature: float = 1.0
    schedule: tuple[tuple[int, dict[str, float]], ...] = ()

    def validate(self) -> Iterator[Problem]:
        """Yields rates that are not positive, a temperature that is not, and a schedule out of order."""
        yield from _rate_problems("rates", self.rates)
        if not self.temperature > 0:
            yield Problem("temperature", "a number above 0; 1 is in proportion to the tokens")
        steps = [step for step, _ in self.schedule]
        if any(later <= earlier for earlier, later in zip([0, *steps], steps, strict=False)):
            yield Problem("schedule", "steps above 0, each above the one before; `rates` holds from step 0")
        for _, rates in self.schedule:
            yield from _rate_problems("schedule", rates)


def _rate_problems(field: str, rates: Mapping[str, float] | str) -> Iterator[Problem]:
    if not rates:
        yield Problem(field, "at least one task: {'text_*': 1.0} is all text")
    if isinstance(rates, str):
        return
    for name, rate in rates.items():
        if not 0 < rate < float("inf"):
            yield Problem(field, f"a rate above 0 for {name!r}, not {rate!r}; leave a task out to not train on it")


@configurable
@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The batches of a run. Everything but `read_threads` and `prefetch` decides which tokens are in batch i.

    Attributes:
      store_dir: directory (local, gs:// or s3://) of the token stores, one below it for each task and split.
      mixture: the tasks and their rates.
      sequence_length: tokens in a row, S.
      global_batch: rows in a batch, over all processes.
      seed: chooses the order of each task's sequences; 0 to 2^32 - 1.
      packing: "windows" cuts S tokens anywhere from the run of documents (pre-training); "documents" fills rows with
        whole documents and pads what is left (tuning).
      long_documents: with "documents", what becomes of one longer than a row: "split" into several, "truncate" to its
        beginning, or "drop"; how many there are is shown when a run starts.
      data_dir: corpus from which training prepares stores that are missing and small; None: they must be there.
      vocabulary: tokenizer for those: "bytes", a tokenizer.json or a SentencePiece .model.
      read_threads: batches read at the same time.
      prefetch: batches held ready.
    """

    store_dir: str
    mixture: MixtureConfig
    sequence_length: int
    global_batch: int
    seed: int = 0
    packing: Literal["windows", "documents"] = "windows"
    long_documents: Literal["split", "truncate", "drop"] = "split"
    data_dir: str | None = None
    vocabulary: str | None = None
    read_threads: int = 2
    prefetch: int = 4

    def validate(self) -> Iterator[Problem]:
        """Yields an empty directory name and sizes out of range."""
        if not self.store_dir:
            yield Problem("store_dir", "the directory that `aya prepare` wrote, or is to write")
        for name in ("sequence_length", "global_batch", "read_threads", "prefetch"):
            if getattr(self, name) < 1:
                yield Problem(name, "at least 1")
        if not 0 <= self.seed < 2**32:
            yield Problem("seed", "between 0 and 2^32 - 1")
        if self.long_documents != "split" and self.packing != "documents":
            yield Problem("long_documents", "'split', or packing = 'documents': windows are cut anywhere")
        if self.data_dir is not None and self.vocabulary is None:
            yield Problem(
                "vocabulary", 'a tokenizer to prepare data_dir with: "bytes", a tokenizer.json or a .model file'
            )


@configurable
@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Root of `aya inspect`: shows what a batch holds.

    Attributes:
      data: the batches of the run that is looked at.
      step: the batch to show, counted from 0.
      rows: how many of its rows to show.
      steps: length of the run for which the table plans tokens and epochs.
      max_tokens: tokens shown of each row; 0 shows all.
    """

    data: DataConfig
    step: int = 0
    rows: int = 4
    steps: int = 1000
    max_tokens: int = 0

    def validate(self) -> Iterator[Problem]:
        """Yields numbers out of range."""
        for name, least in (("step", 0), ("rows", 1), ("steps", 1), ("max_tokens", 0)):
            if getattr(self, name) < least:
                yield Problem(name, f"at least {least}")


def mixture_keys(mixture: MixtureConfig) -> tuple[str, ...]:
    """Every name and pattern of a mixture and of its schedule, once, in order."""
    keys: dict[str, Any] = {}
    for rates in (mixture.rates, *(rates for _, rates in mixture.schedule)):
        keys |= dict.fromkeys([rates] if isinstance(rates, str) else rates)
    return tuple(keys)
