"""Embeddings and qualities by models, against one row at a time through the plain model."""

from __future__ import annotations

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.selection.config import (
    GivenEmbeddingsConfig,
    HashedNgramsConfig,
    ModelStatesConfig,
    PerplexityConfig,
    SentenceTransformersConfig,
)
from aya_jax.selection.embedding import embed
from aya_jax.selection.kept import Workplace
from aya_jax.selection.quality import score
from aya_jax.selection.rows import Row
from aya_jax.training.state import abstract_params
from tools.random_model import shape, write_random_model

TEXTS = ["a", "Der Hund schläft.", "猫は窓のそばで寝ていました。" * 3, "x " * 40]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model"), shape(32, 2, 64))


def workplace(folder):
    mesh = MeshConfig()
    return Workplace(folder, make_mesh(mesh), mesh.logical_axes, print)


def opened(model_dir):
    found, mesh = find_model(model_dir, print), make_mesh(MeshConfig())
    model = Transformer(found.config)
    return model, load_params(found, abstract_params(model, mesh)), ChatTokenizer.open(found.tokenizer)


def embedded(config, folder, texts=TEXTS):
    told = []
    rows = [Row(str(n), (), text, "de", "here", {}, n) for n, text in enumerate(texts)]
    found, _ = embed(config, rows, len(rows), "of these", workplace(folder), told.append)
    assert sum(told) == len(texts)
    return found


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_states_are_those_of_each_text_alone(model_dir, tmp_path, pooling):
    model, params, tokenizer = opened(model_dir)
    found = embedded(ModelStatesConfig(model_dir=str(model_dir), pooling=pooling, max_tokens=40, rows=3), tmp_path)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = jnp.asarray([tokenizer.encode_text(text)[:40]])
        states = np.asarray(jax.jit(model.hidden)(params, {"tokens": ids}), np.float64)[0]
        expected = states.mean(0) if pooling == "mean" else states[-1]
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_what_is_kept_is_not_computed_again(model_dir, tmp_path, monkeypatch):
    config = ModelStatesConfig(model_dir=str(model_dir))
    first = embedded(config, tmp_path)
    monkeypatch.setattr("aya_jax.selection.embedding.load_params", None)  # would fail
    np.testing.assert_array_equal(embedded(config, tmp_path), first)
    with pytest.raises(TypeError):
        embedded(ModelStatesConfig(model_dir=str(model_dir), pooling="last"), tmp_path)
    assert len(list(tmp_path.glob("embeddings-*"))) == 1


def test_perplexity_is_bits_per_byte(model_dir, tmp_path):
    model, params, tokenizer = opened(model_dir)
    rows = [Row(str(n), (Message("user", text),), "ja", "de", "here", {}) for n, text in enumerate(TEXTS)]
    config = PerplexityConfig(model_dir=str(model_dir), rows=3)
    found = score(config, rows, "of these", workplace(tmp_path), lambda count: None)
    for row, value in zip(rows, found, strict=True):
        ids = tokenizer.encode_text(row.text)[:64]
        logits = np.asarray(jax.jit(model.logits)(params, {"tokens": jnp.asarray([ids])}), np.float64)[0, :-1]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nats = -log_probs[np.arange(len(ids) - 1), ids[1:]].sum()
        length = len(tokenizer.vocabulary.decode(ids[1:]).encode())
        assert value == pytest.approx(-nats / math.log(2) / length, rel=1e-4)


def test_rows_that_score_nothing_have_no_quality(model_dir, tmp_path):
    rows = [Row("1", (), "", "de", "here", {})]
    config = PerplexityConfig(model_dir=str(model_dir))
    found = score(config, rows, "these", workplace(tmp_path), lambda count: None)
    assert np.isnan(found[0])


def test_without_its_package_or_file_a_model_is_refused_with_what_to_do(tmp_path):
    with contextlib.suppress(ModuleNotFoundError):
        import sentence_transformers  # noqa: F401

        pytest.skip("sentence-transformers is installed")
    with pytest.raises(UserError, match="pip install sentence-transformers"):
        embedded(SentenceTransformersConfig(name="some/model"), tmp_path)
    with pytest.raises(UserError, match=r"GivenEmbeddingsConfig.file = .*nothing.npy"):
        embedded(GivenEmbeddingsConfig(file=str(tmp_path / "nothing.npy")), tmp_path)


def test_hashed_ngrams_are_kept_by_what_they_depend_on(tmp_path):
    first = embedded(HashedNgramsConfig(dims=64), tmp_path)
    assert first.shape == (len(TEXTS), 64)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-6)
    assert embedded(HashedNgramsConfig(dims=32), tmp_path).shape == (len(TEXTS), 32)
    np.testing.assert_array_equal(embedded(HashedNgramsConfig(dims=64), tmp_path), first)
    assert len(list(tmp_path.glob("embeddings-*"))) == 2
