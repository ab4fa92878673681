"""Loss and bits per byte on held-out documents, one record per document, summaries from the records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track
from rich.table import Table

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.data.batches import validation_batches
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.data.store import TokenStore
from aya_jax.evaluation.config import HeldOutConfig
from aya_jax.evaluation.weights import weights_digest
from aya_jax.interop.model_dir import ModelDir, load_params, trained_with, vocabulary_info
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.distributed import agree
from aya_jax.training.placement import batch_shards, check_divides, in_reading_order, place, row_share
from aya_jax.training.state import abstract_params
from aya_jax.training.validation import (
    HeldOut,
    Scored,
    ScoreFunction,
    check_tokenizer,
    combine,
    held_out_store,
    held_out_tasks,
    make_score,
    score_batches,
)

if TYPE_CHECKING:
    from aya_jax.evaluation.subject import Setting

_LENGTH, _BATCH = 2048, 8  # of a model without a training run


@dataclasses.dataclass(frozen=True)
class Sample:
    """One held-out document.

    Attributes:
      id: "<task>/<its number in the held-out split>"; the same document has the same id whatever model is judged.
      task: the task that it is from.
      language: of the task.
      domain: of the task.
      tokens: predicted tokens.
      bytes: UTF-8 bytes that they stand for.
      nll: nats, over all predicted tokens.
      entropy: nats, of the distributions that they were predicted by.
      correct: how many were the likeliest token.
    """

    id: str
    task: str
    language: str
    domain: str
    tokens: int
    bytes: int
    nll: float
    entropy: float
    correct: int

    @property
    def held_out(self) -> HeldOut:
        """Its sums."""
        return HeldOut(self.nll, self.tokens, self.bytes, self.entropy, self.correct)


def run(setting: Setting) -> None:
    """Writes the summary and its records; both stand if they are there for the same weights and text.

    Raises:
      UserError: no held-out documents, or stores of another tokenizer.
    """
    resolved, found, model, mesh = setting.resolved, setting.found, setting.model, setting.mesh
    measured, trained = resolved.config.measure, trained_with(found)
    with jax.set_mesh(mesh):
        data, tasks = held_out_data(measured, resolved.config.mesh, found, trained and trained.data, mesh)
        params = load_params(found, abstract_params(model, mesh))
        heading = {
            "name": resolved.config.name,
            "checkpoint_step": found.step,
            "weights_digest": weights_digest(params),
            "fingerprint": resolved.fingerprint,
            "stores": {task: held_out_store(data.store_dir, task).manifest.digest for task in tasks},
        }
        if agree("done" if is_done(setting.file, heading) else None):
            setting.console.print(f"{setting.file} is there for these weights.")
        else:
            samples = measure(data, tasks, measured.max_tokens, model, params, mesh, setting.console)
            if jax.process_index() == 0:
                write(setting.file, heading, samples)
    if jax.process_index() == 0:
        show(setting.console, json.loads(setting.file.read_text(encoding="utf-8")))


def write(file: Path, heading: Mapping[str, Any], samples: Iterable[Sample]) -> None:
    """Writes the samples and, last, what follows from them."""
    samples = list(samples)
    lines = (json.dumps(dataclasses.asdict(sample), ensure_ascii=False) for sample in samples)
    write_atomic(file.with_suffix(".samples.jsonl"), "".join(f"{line}\n" for line in lines))
    write_atomic(file, json.dumps({**heading, **summarize(samples)}, indent=2, ensure_ascii=False) + "\n")


def held_out_data(
    config: HeldOutConfig, shape: MeshConfig, found: ModelDir, trained: DataConfig | None, mesh: Mesh
) -> tuple[DataConfig, tuple[str, ...]]:
    """The batches to score, and the tasks that they are from.

    Always windows: they give the documents in the store's order.

    Args:
      config: what is asked for.
      shape: of the mesh.
      found: the model.
      trained: the batches of its training run, if it has one.
      mesh: what rows are divided over.

    Raises:
      UserError: there are no such documents, or they are of another tokenizer.
    """
    usual = trained or DataConfig(
        store_dir="", mixture=MixtureConfig(rates={"*": 1.0}), global_batch=_BATCH,
        sequence_length=min(found.config.max_sequence_length, _LENGTH),
    )  # fmt: skip
    shards = batch_shards(mesh, shape.logical_axes)
    rows = -(-(config.batch or usual.global_batch) // shards) * shards
    length = config.sequence_length or usual.sequence_length
    if length > found.config.max_sequence_length:
        raise UserError(
            f"{length} tokens in a window, and the model's longest sequence is {found.config.max_sequence_length}"
        )
    check_divides(mesh, shape.logical_axes, rows, length)
    store_dir = config.store_dir or usual.store_dir
    if not store_dir:
        raise UserError(
            f"{found.path}: no training run says which held-out text is the model's: add --gin.STORE_DIR=..., token stores of "
            "its tokenizer (`aya prepare`)"
        )
    data = dataclasses.replace(usual, store_dir=store_dir, sequence_length=length, global_batch=rows, packing="windows")
    tasks = held_out_tasks(data.store_dir, config.tasks)
    if not tasks:
        raise UserError(
            f"{data.store_dir}: no held-out documents of {', '.join(config.tasks)}; `aya prepare` writes them."
        )
    known = vocabulary_info(found)
    for task in tasks:
        check_tokenizer(held_out_store(data.store_dir, task), known)
    return data, tasks


def measure(
    data: DataConfig,
    tasks: Iterable[str],
    max_tokens: int | None,
    model: Transformer,
    params: Any,
    mesh: Mesh,
    console: Console,
    score: ScoreFunction | None = None,
) -> list[Sample]:
    """Scores every held-out document of the tasks; with `make_score(model, mesh)` of before, without compiling it again."""
    score, share = score or make_score(model, mesh), row_share(mesh, model.rules)
    samples: list[Sample] = []
    for task in track(tasks, "evaluating", console=console, disable=not console.is_terminal):
        held_out = held_out_store(data.store_dir, task)
        batches = validation_batches(
            data, task, max_tokens=max_tokens, process_index=share.index, process_count=share.count
        )
        placed = (place(batch, mesh, model.rules) for batch in batches)
        scored = score_batches(score, params, placed, held_out.token_bytes)
        in_order = (Scored(*(in_reading_order(field, share) for field in batch)) for batch in scored)
        samples += by_document(task, held_out, in_order)
    return samples


def by_document(task: str, held_out: TokenStore, scored: Iterable[Scored]) -> Iterator[Sample]:
    """Divides scores over documents.

    Every token but a document's first (and those that the task gives no weight) is predicted once, in the store's order,
    so each document owns the next of the predicted tokens; the last may have been cut short.

    Args:
      task: the task's name.
      held_out: its held-out store.
      scored: its batches in order.
    """
    parts = [
        tuple(field[batch.predicted] for field in (batch.nll, batch.bytes, batch.entropy, batch.correct))
        for batch in scored
    ]
    if not parts:
        return
    nll, num_bytes, entropy, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    ends = np.cumsum(predicted_tokens(held_out))
    manifest = held_out.manifest
    for number, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        tokens = len(nll[first:end])
        if tokens:
            yield Sample(
                id=f"{task}/{number}",
                task=task,
                language=manifest.language,
                domain=manifest.domain,
                tokens=tokens,
                bytes=int(num_bytes[first:end].sum()),
                nll=float(nll[first:end].sum()),
                entropy=float(entropy[first:end].sum()),
                correct=int(correct[first:end].sum()),
            )


def predicted_tokens(held_out: TokenStore) -> np.ndarray:
    """How many tokens of each document are predicted; int64 [documents]."""
    bounds = held_out.document_bounds(0, held_out.num_documents)
    if not held_out.manifest.loss_weights:
        return np.diff(bounds) - 1
    weights = held_out.read_ranges("loss_weights", bounds[:-1], bounds[1:])
    return np.array([np.count_nonzero(of_document[1:]) for of_document in weights], np.int64)


def summarize(samples: Iterable[Sample]) -> dict[str, Any]:
    """Sums by task, by language (of text) and by domain, and of all, each with loss, perplexity and bits per byte."""
    samples = list(samples)

    def group(key: Callable[[Sample], str], chosen: Iterable[Sample]) -> dict[str, Any]:
        groups: dict[str, list[HeldOut]] = {}
        for sample in chosen:
            groups.setdefault(key(sample), []).append(sample.held_out)
        return {name: combine(parts).summary() for name, parts in sorted(groups.items())}

    tags = {sample.task: {"language": sample.language, "domain": sample.domain} for sample in samples}
    tasks = {task: tags[task] | numbers for task, numbers in group(lambda sample: sample.task, samples).items()}
    return {
        "tasks": tasks,
        "languages": group(lambda sample: sample.language, (s for s in samples if s.domain == "text")),
        "domains": group(lambda sample: sample.domain, samples),
        "all": combine(sample.held_out for sample in samples).summary(),
    }


def show(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the summary by task."""
    step = summary["checkpoint_step"]
    table = Table(title="Held-out text" + (f", step {step:,}" if step else ""), title_justify="left")
    table.add_column("task")
    for column in ("tokens", "bytes", "loss", "perplexity", "bits per byte", "entropy", "token accuracy"):
        table.add_column(column, justify="right")
    for task, n in (*summary["tasks"].items(), ("all", summary["all"])):
        table.add_row(
            task,
            f"{n['tokens']:,}",
            f"{n['bytes']:,}",
            f"{n['loss']:.4f}",
            f"{n['perplexity']:,.2f}",
            f"{n['bits_per_byte']:.4f}",
            f"{n['entropy']:.4f}",
            f"{n['mean_token_accuracy']:.2%}",
        )
    console.print(table)


def is_done(file: Path, heading: Mapping[str, Any]) -> bool:
    """Whether the results are there, of the same question about the same text to the same weights."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all(found.get(name) == heading[name] for name in ("weights_digest", "fingerprint", "stores"))
