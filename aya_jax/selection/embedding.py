"""Rows as vectors: by hashed n-grams, by a model's states, by sentence-transformers, or given."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.config.files import file_checksum
from aya_jax.data.chat import ChatTokenizer
from aya_jax.interop.model_dir import ModelDir, find_model, load_params, weights_digest
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import replicated
from aya_jax.selection import hashed_ngrams
from aya_jax.selection.config import (
    Embedding,
    GivenEmbeddingsConfig,
    HashedNgramsConfig,
    ModelStatesConfig,
    SentenceTransformersConfig,
)
from aya_jax.selection.kept import Workplace, kept_parts
from aya_jax.selection.principal import principal
from aya_jax.selection.rows import Row
from aya_jax.synthesis.reward_scorer import whole_shards
from aya_jax.synthesis.token_batches import token_batches
from aya_jax.training.placement import place_whole
from aya_jax.training.state import abstract_params

_PART = 4096  # rows that are embedded before they are written
_HASHED = 1024  # dims of hashed n-grams before they are projected
_SAMPLE = 8192  # rows whose principal components they are projected on
Embed = Callable[[Sequence[str]], np.ndarray]


def embed(
    config: Embedding,
    rows: Sequence[Row],
    read: int,
    of: str,
    at: Workplace,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, str]:
    """Vectors of rows, float32 [N, D], and what they are known by.

    Args:
      config: how.
      rows: which.
      read: rows that there were, before some were left out.
      of: what the rows are known by.
      at: where it is kept, and what a model runs on.
      advance: told of how many more rows there is a vector.

    Raises:
      UserError: there is no such model or file; vectors are of another number, or not finite.
    """
    if isinstance(config, GivenEmbeddingsConfig):
        numbers = np.array([row.number for row in rows])
        vectors, digest = _given(config, read)[numbers], json.dumps([of, file_checksum(config.file)])
        advance(len(rows))
    else:
        texts = [row.text for row in rows]
        open_embedder, about = _embedder(config, texts, at)
        digest = hashlib.sha256(json.dumps([of, about]).encode()).hexdigest()[:16]
        opened = functools.cache(open_embedder)  # a model is loaded where something is left to embed

        def compute(some: slice) -> np.ndarray:
            return opened()(texts[some])

        vectors = kept_parts(at.folder / f"embeddings-{digest}", len(texts), _PART, compute, advance)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise UserError(
            f"the embedding of row {rows[bad[0]].id} is not finite, nor of {len(bad) - 1:,} others; use another model"
        )
    return vectors, digest


def _given(config: GivenEmbeddingsConfig, rows: int) -> np.ndarray:
    try:
        vectors = np.load(config.file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"GivenEmbeddingsConfig.file = {config.file!r}: {error}") from error
    if vectors.ndim != 2 or len(vectors) != rows or not np.issubdtype(vectors.dtype, np.floating):
        raise UserError(
            f"{config.file}: {vectors.dtype} {vectors.shape}; there are {rows:,} rows: numbers [{rows}, D] are needed"
        )
    return np.asarray(vectors, np.float32)


def _embedder(
    config: HashedNgramsConfig | ModelStatesConfig | SentenceTransformersConfig,
    texts: Sequence[str],
    at: Workplace,
) -> tuple[Callable[[], Embed], list[Any]]:
    """What opens what embeds, and what its vectors depend on."""
    if isinstance(config, HashedNgramsConfig):

        def of_ngrams() -> Embed:
            frequencies = hashed_ngrams.document_frequencies(texts, config.sizes)
            hashed = functools.partial(
                hashed_ngrams.embed, sizes=config.sizes, dims=_HASHED, frequencies=frequencies, total=len(texts)
            )
            sample = np.unique(np.linspace(0, len(texts) - 1, _SAMPLE).astype(np.int64))
            project = principal(hashed([texts[number] for number in sample]), config.dims)
            return lambda some: hashed_ngrams.unit(project(hashed(some)))

        return of_ngrams, ["hashed n-grams", config.sizes, config.dims]
    if isinstance(config, SentenceTransformersConfig):
        return functools.partial(_sentence_transformer, config), ["sentence-transformers", config.name]
    found = find_model(config.model_dir, at.say)
    about = ["states", weights_digest(found), config.pooling, config.max_tokens]
    return lambda: ModelStates(found, config, at.mesh, at.rules), about


def _sentence_transformer(config: SentenceTransformersConfig) -> Embed:
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise UserError("SentenceTransformersConfig needs its package: pip install sentence-transformers") from error
    try:
        model = SentenceTransformer(config.name)
    except Exception as error:  # of the hub, of files, of torch
        raise UserError(f"SentenceTransformersConfig.name = {config.name!r}: {error}") from error
    return lambda texts: np.asarray(model.encode(list(texts), batch_size=config.rows, normalize_embeddings=True))


class ModelStates:
    """Pooled outputs of a model's final norm, as unit vectors."""

    def __init__(self, found: ModelDir, config: ModelStatesConfig, mesh: Mesh, rules: LogicalAxes):
        """Loads the model.

        Raises:
          UserError: it has no tokenizer beside it.
        """
        if found.tokenizer is None:
            raise UserError(f"{found.path}: there is no tokenizer beside the weights")
        self._tokenizer, self._mesh, self._pooling = ChatTokenizer.open(found.tokenizer), mesh, config.pooling
        self._longest = min(config.max_tokens or found.config.max_sequence_length, found.config.max_sequence_length)
        self._model = Transformer(found.config, PrecisionConfig(), rules)
        self._params = load_params(found, abstract_params(self._model, mesh))
        self._rows = whole_shards(config.rows, mesh, rules)
        self._pool = jax.jit(self._pooled, out_shardings=replicated(mesh))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D]; a text without tokens is zero."""
        sequences = [self._tokenizer.encode_text(text)[: self._longest] for text in texts]
        some = [number for number, ids in enumerate(sequences) if ids]
        vectors = np.zeros((len(texts), self._model.config.embed_dim), np.float32)
        for chosen, tokens in token_batches([sequences[number] for number in some], self._rows):
            lengths = np.zeros((self._rows, 1), np.int32)
            lengths[: len(chosen), 0] = [len(sequences[some[number]]) for number in chosen]
            batch = place_whole({"tokens": tokens, "lengths": lengths}, self._mesh, self._model.rules)
            with jax.set_mesh(self._mesh):
                found = np.asarray(self._pool(self._params, batch))
            vectors[[some[number] for number in chosen]] = found[: len(chosen)]
        return vectors

    def _pooled(self, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        states = self._model.hidden(params, {"tokens": batch["tokens"]}).astype(jnp.float32)
        places, lengths = jnp.arange(states.shape[1])[None], batch["lengths"]
        taken = places == lengths - 1 if self._pooling == "last" else places < lengths
        pooled = (
            jnp.einsum("bs,bsd->bd", taken.astype(jnp.float32), states)
            / jnp.maximum(jnp.sum(taken, axis=1), 1)[:, None]
        )
        return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)
