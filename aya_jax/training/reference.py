"""Log-probabilities of stored answers under a reference model: computed once, kept beside the store, found by digest."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from aya_jax.data import arrays
from aya_jax.data.batches import ordered_batches
from aya_jax.data.rows import DocumentRows
from aya_jax.data.store import TokenStore
from aya_jax.interop.model_dir import find_model, load_params, weights_digest
from aya_jax.models.transformer import Transformer
from aya_jax.objectives.pairs import sum_segments
from aya_jax.parallel.distributed import agree
from aya_jax.parallel.sharding import replicated
from aya_jax.training.config import TrainConfig
from aya_jax.training.placement import in_reading_order, place, row_share
from aya_jax.training.state import abstract_params

FOLDER = "reference"


def reference_log_probs(
    config: TrainConfig, model: Transformer, mesh: Mesh, stores: Mapping[str, TokenStore], console: Console
) -> dict[str, np.ndarray]:
    """float32 [documents] of each store: log p(answer | prompt) under the run's reference.

    Args:
      config: the run; its objective has a reference.
      model: as the run has it.
      mesh: the reference is spread over it, and gone when this returns.
      stores: of pairs, by any name.
      console: is told what is computed.

    Raises:
      UserError: the reference is not there, or of another shape.
    """
    found = find_model(config.reference, console.print)
    names = {key: _file(config, weights_digest(found), opened) for key, opened in stores.items()}
    known = {key: _read(opened, names[key]) for key, opened in stores.items()}
    # One process decides for all: a file may be seen by one sooner than by another.
    missing = agree("".join("?" if known[key] is None else "." for key in stores))
    if "?" in missing:
        params = load_params(found, abstract_params(model, mesh))
        score = _make_score(model, mesh)
        for key, state in zip(stores, missing, strict=True):
            if state == "?":
                known[key] = _compute(functools.partial(score, params), config, model, mesh, stores[key], console)
                if jax.process_index() == 0:
                    _write(stores[key], names[key], known[key])
    return {key: _required(values, stores[key], names[key]) for key, values in known.items()}


def _make_score(model: Transformer, mesh: Mesh) -> Any:
    def score(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        learnt = jnp.where(batch["loss_weights"] > 0, model(params, batch).log_probs, 0.0)
        return sum_segments(learnt, batch["segment_ids"])

    return jax.jit(score, out_shardings=replicated(mesh))


def _compute(
    score: Any, config: TrainConfig, model: Transformer, mesh: Mesh, opened: TokenStore, console: Console
) -> np.ndarray:
    data, share = config.data, row_share(mesh, model.rules)
    rows = DocumentRows(opened, data.sequence_length, None, data.long_documents)
    found = np.zeros(opened.num_documents, np.float32)
    batches = ordered_batches(opened, data, process_index=share.index, process_count=share.count)
    label = f"reference log-probabilities of {opened.manifest.task} ({opened.manifest.split})"
    console.print(f"Computing the {label}: {opened.num_documents:,} answers.", highlight=False, soft_wrap=True)
    total = -(-rows.count // data.global_batch)
    for number, batch in enumerate(
        track(batches, label, total=total, console=console, transient=True, disable=not console.is_terminal)
    ):
        sums = in_reading_order(jax.device_get(score(place(batch, mesh, model.rules))), share)
        first = number * data.global_batch
        for row in range(first, min(first + data.global_batch, rows.count)):
            for at, piece in enumerate(rows.pieces(row)):
                found[piece.document] = sums[row - first, at]
    return found


# Files ----------------------------------------------------------------------------------------------------------------


def _file(config: TrainConfig, weights: str, opened: TokenStore) -> str:
    """The name of the file for these weights: what decides its numbers is in its digest."""
    decides = [
        weights,
        opened.manifest.digest,
        config.data.sequence_length,
        config.data.long_documents,
        config.precision.compute,
    ]
    return f"{FOLDER}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:24]}.npy"


def _read(opened: TokenStore, name: str) -> np.ndarray | None:
    content = arrays.read_bytes(opened.directory, name)
    if content is None:
        return None
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError:  # cut short: computed again
        return None
    return values if values.shape == (opened.num_documents,) else None


def _write(opened: TokenStore, name: str, values: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, values, allow_pickle=False)
    arrays.write_bytes(opened.directory, name, content.getvalue())


def _required(values: np.ndarray | None, opened: TokenStore, name: str) -> np.ndarray:
    if values is None:
        raise FileNotFoundError(
            f"{opened.directory}/{name}: process 0 has it and process {jax.process_index()} does not"
        )
    return values
