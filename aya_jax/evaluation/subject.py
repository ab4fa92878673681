"""The model that is asked: its weights while somebody needs them, its tokenizer, and what it has answered already."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import Resolved, UserError
from aya_jax.data.chat import ChatTokenizer
from aya_jax.evaluation.answers import Answers
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.results import Sample, read_summary, write
from aya_jax.evaluation.weights import weights_digest
from aya_jax.inference.config import EngineConfig
from aya_jax.inference.local import LocalGenerator, generating
from aya_jax.interop.model_dir import ModelDir, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.distributed import agree_on, check_same
from aya_jax.training.state import abstract_params

ANSWERS = "answers"
_NAMES = ("model", "name")  # in a heading, what a person calls things: no part of the question
Ask = Callable[[Answers], tuple[Mapping[str, Any], Sequence[Sample]]]


class Subject:
    """A model on this machine that questions are put to."""

    def __init__(self, found: ModelDir, model: Transformer, mesh: Mesh, *, chat: bool):
        """Loads nothing but the tokenizer.

        Args:
          found: the model.
          model: its shape, as it is run.
          mesh: what the work is divided over.
          chat: whether questions are put as conversations.

        Raises:
          UserError: it has no tokenizer, or no chat template where one is needed.
        """
        if found.tokenizer is None:
            raise UserError(f"{found.path}: there is no tokenizer beside the weights; put its tokenizer.json there")
        self.found, self.model, self.mesh, self._params = found, model, mesh, None
        self.tokenizer = ChatTokenizer.open(found.tokenizer)
        if chat and not self.tokenizer.has_template:
            raise UserError(f"{found.path}: its tokenizer has no chat template, and chat = True asks for one")

    def params(self) -> Any:
        """The parameters, loaded where they are not there."""
        if self._params is None:
            with jax.set_mesh(self.mesh):
                self._params = load_params(self.found, abstract_params(self.model, self.mesh))
        return self._params

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the weights."""
        return weights_digest(self.params())

    def max_length(self, limit: int | None) -> int:
        """Tokens of a prompt and its answer together."""
        longest = self.model.config.max_sequence_length
        return min(limit or longest, longest)

    @contextlib.contextmanager
    def generator(self, config: EngineConfig, max_length: int, samples: int) -> Iterator[LocalGenerator]:
        """An engine over the weights, which it lays out its own way: while it is open, they are not in memory twice.

        Args:
          config: its shape.
          max_length: tokens of a prompt and its answer together, where the configuration does not say.
          samples: how many it will be asked for.
        """
        with generating(
            self.model,
            self._given_away(),
            config,
            self.tokenizer,
            self.mesh,
            self.found.name,
            max_length,
            samples,
            consume=True,
            digest=lambda: self.digest,
        ) as opened:
            yield opened

    def _given_away(self) -> Any:
        params, self._params = self.params(), None
        return params

    def answers(self, file: Path, console: Console) -> Answers:
        """What it has answered already in evaluations beside this one: by the digest of the weights and the number format."""
        name = f"{self.digest[:16]}-{self.model.precision.compute}.jsonl"
        known = Answers(file.parent / ANSWERS / name, together=True)
        if len(known):
            console.print(
                f"{len(known):,} answers of this model are known from {known.file}.", highlight=False, soft_wrap=True
            )
        return known

    def heading(self, resolved: Resolved[EvaluateConfig], **more: Any) -> dict[str, Any]:
        """The beginning of a summary: what was asked of which weights."""
        return {
            "kind": "benchmarks",
            "name": resolved.config.name,
            "model": self.found.name or str(self.found.path),
            "checkpoint_step": self.found.step,
            "weights_digest": self.digest,
            "fingerprint": resolved.fingerprint,
            **more,
        }


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a measurement of a model is given.

    Attributes:
      resolved: what is asked for.
      found: the model.
      model: its shape, as it is run.
      mesh: what the work is divided over.
      file: of the summary.
      console: for progress and tables.
    """

    resolved: Resolved[EvaluateConfig]
    found: ModelDir
    model: Transformer
    mesh: Mesh
    file: Path
    console: Console

    def subject(self, *, chat: bool) -> Subject:
        """As `Subject`."""
        return Subject(self.found, self.model, self.mesh, chat=chat)

    def summary(self, subject: Subject, ask: Ask, **heading: Any) -> dict[str, Any]:
        """The summary, from its file where it is there for the same weights and question, and else asked for and written
        there with its records. Every process must call it.

        Args:
          subject: the model.
          ask: measures, with what the model has answered already, which grows: what is found, and the records.
          heading: what the question is besides the configuration, such as digests of files.

        Raises:
          UserError: another process has other weights or another question; what `ask` raises.
        """
        about = subject.heading(self.resolved, **heading)
        same = {name: value for name, value in about.items() if name not in _NAMES}
        check_same(json.dumps(same, sort_keys=True), "another model, other settings or other files")
        known = known_summary(self.file, about, self.console)
        if known is not None:
            return known
        with subject.answers(self.file, self.console) as answers:
            found, samples = ask(answers)
        return write(self.file, {**about, **found}, samples, first=jax.process_index() == 0)


def known_summary(
    file: Path, heading: dict[str, Any], console: Console, *, of: str = "weights"
) -> dict[str, Any] | None:
    """The summary that is there, if it answers the same question about the same weights (or what else it is `of`); every
    process must call it."""
    known = agree_on(read_summary(file) if jax.process_index() == 0 else None)
    if known and all(known.get(name) == value for name, value in heading.items() if name not in _NAMES):
        console.print(f"{file} is there for these {of}.")
        return known
    return None
