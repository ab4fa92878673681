"""The whole model: golden logits of transformers, packing, precision, rematerialisation, the tree of parameters."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.transformer import Transformer
from tools.make_golden_logits import CONFIGS, unflatten

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def golden(name):
    """(model, params, tokens, logits) of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        prefix = "params/"
        flat = {key.removeprefix(prefix): jnp.asarray(file[key], jnp.float32) for key in file if prefix in key}
        assert str(file["config"]) == repr(dataclasses.asdict(CONFIGS[name])), "stale: run tools/make_golden_logits.py"
        return Transformer(CONFIGS[name]), unflatten(flat), jnp.asarray(file["tokens"]), file["logits"]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    peak = logits.max(-1, keepdims=True)
    return logits - peak - np.log(np.exp(logits - peak).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_those_of_transformers(name):
    model, params, tokens, logits = golden(name)
    assert np.abs(logits).max() > 0.3
    np.testing.assert_allclose(jax.jit(model.logits)(params, {"tokens": tokens}), logits, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_equal_those_of_transformers(name):
    model, params, tokens, logits = golden(name)
    targets = jnp.roll(tokens, -1, axis=1)
    scores = jax.jit(model)(params, {"tokens": tokens, "targets": targets})
    expected = np.take_along_axis(log_softmax(logits), np.asarray(targets)[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores.log_probs, expected, atol=1e-4)
    lse = np.log(np.exp(logits.astype(np.float64)).sum(-1))
    np.testing.assert_allclose(scores.lse, lse, atol=1e-4)
    assert scores.log_probs.dtype == scores.lse.dtype == jnp.float32


@pytest.mark.parametrize("unroll", [None, 1])
@pytest.mark.parametrize("name", CONFIGS)
def test_scores_at_places_equal_those_of_transformers(name, unroll):
    model, params, tokens, logits = golden(name)
    model = dataclasses.replace(model, precision=PrecisionConfig(unroll=unroll))
    rng = np.random.default_rng(0)
    for parts in (1, 2):  # the batch as one part of two rows, and each row for itself
        places = rng.integers(0, tokens.size // parts, (parts, 9))  # in no order, some of them twice
        targets = rng.integers(0, model.config.vocab_size, places.shape)
        scores = jax.jit(model.score_at)(params, {"tokens": tokens}, jnp.asarray(places), jnp.asarray(targets))
        there = log_softmax(logits).reshape(parts, -1, logits.shape[-1])[np.arange(parts)[:, None], places]
        np.testing.assert_allclose(
            scores.log_probs, np.take_along_axis(there, targets[..., None], -1)[..., 0], atol=1e-4
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_interleaved_read_as_half_is_noticed(name):
    model, params, tokens, logits = golden(name)
    other = {"interleaved": "half", "half": "interleaved"}[model.config.rope_layout]
    wrong = Transformer(dataclasses.replace(model.config, rope_layout=other))
    assert np.abs(wrong.logits(params, {"tokens": tokens}) - logits).max() > 1e-2


def packed(tokens, first, second):
    """Two rows of 24 as one packed row of `first` + `second` tokens and padding to 40."""
    pad = 40 - first - second
    row = jnp.concatenate([tokens[0, :first], tokens[1, :second], jnp.zeros(pad, jnp.int32)])[None]
    ids = jnp.array([[1] * first + [2] * second + [0] * pad], jnp.int32)
    positions = jnp.concatenate([jnp.arange(n, dtype=jnp.int32) for n in (first, second, pad)])[None]
    targets = jnp.roll(row, -1, axis=1)
    return {"tokens": row, "segment_ids": ids, "positions": positions, "targets": targets}


@pytest.mark.parametrize("name", ["cohere_qk_norm", "cohere2", "llama3"])
def test_packed_documents_equal_documents_alone(name):
    """Loss and every gradient."""
    model, params, tokens, _ = golden(name)
    first, second = 20, 11
    batch = packed(tokens, first, second)
    weights = jnp.zeros((1, 40)).at[0, : first - 1].set(1.0).at[0, first : first + second - 1].set(1.0)

    def packed_loss(params):
        return -jnp.sum(model(params, batch).log_probs * weights)

    def alone_loss(params):
        total = 0.0
        for row, length in ((0, first), (1, second)):
            piece = tokens[row : row + 1, :length]
            scores = model(params, {"tokens": piece[:, :-1], "targets": piece[:, 1:]})
            total -= jnp.sum(scores.log_probs)
        return total

    loss, grads = jax.jit(jax.value_and_grad(packed_loss))(params)
    expected, expected_grads = jax.jit(jax.value_and_grad(alone_loss))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        other = functools.reduce(lambda node, key: node[key.key], path, expected_grads)
        np.testing.assert_allclose(grad, other, atol=2e-4, rtol=1e-4, err_msg=str(path))


@pytest.mark.parametrize("name", ["cohere", "cohere2"])
def test_no_token_sees_another_document_or_the_future(name):
    model, params, tokens, _ = golden(name)
    batch = packed(tokens, 20, 11)
    run = jax.jit(model.hidden)
    before = run(params, batch)
    after = run(params, {**batch, "tokens": batch["tokens"].at[0, :20].set(5)})
    np.testing.assert_array_equal(before[:, 20:], after[:, 20:])
    after = run(params, {**batch, "tokens": batch["tokens"].at[0, 25:].set(5)})
    np.testing.assert_array_equal(before[:, :25], after[:, :25])


@functools.cache
def loss_and_gradients(name, precision):
    model, params, tokens, _ = golden(name)
    model = Transformer(model.config, precision)
    batch = {"tokens": tokens, "targets": jnp.roll(tokens, -1, axis=1)}
    return jax.jit(jax.value_and_grad(lambda params: -jnp.mean(model(params, batch).log_probs)))(params)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("llama3", PrecisionConfig(unroll=1)),
        ("llama3", PrecisionConfig(remat="dots", unroll=1)),
        ("llama3", PrecisionConfig(remat="full")),
        ("cohere2", PrecisionConfig(remat="full", unroll=1)),
        ("cohere2", PrecisionConfig(remat="offload", unroll=1)),
    ],
    ids=str,
)
def test_loops_and_rematerialisation_change_nothing(name, precision):
    expected = loss_and_gradients(name, PrecisionConfig())
    actual = loss_and_gradients(name, precision)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6, rtol=1e-5)


def test_offloaded_layer_inputs_wait_in_the_hosts_memory():
    """By the traced program: under "offload" the layers' inputs, and nothing else, are moved there and back."""
    model, params, tokens, _ = golden("llama3")
    batch = {"tokens": tokens, "targets": tokens}

    def moved(remat):
        offloading = Transformer(model.config, PrecisionConfig(remat=remat, unroll=1))
        text = str(jax.make_jaxpr(jax.grad(lambda params: jnp.mean(offloading(params, batch).log_probs)))(params))
        return sum("device_put" in line and "ost" in line for line in text.splitlines())

    assert moved("full") == 0
    assert moved("offload") >= 1


def test_bfloat16_compute_keeps_float32_parameters_gradients_and_scores():
    model, params, tokens, _ = golden("cohere")
    low = Transformer(model.config, PrecisionConfig(compute="bfloat16"))
    batch = {"tokens": tokens, "targets": jnp.roll(tokens, -1, axis=1)}
    assert jax.eval_shape(low.hidden, params, batch).dtype == jnp.bfloat16

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(params):
        scores = low(params, batch)
        return jnp.mean(scores.log_probs), scores

    grads, scores = run(params)
    assert scores.log_probs.dtype == jnp.float32
    np.testing.assert_allclose(scores.log_probs, jax.jit(model)(params, batch).log_probs, atol=0.05)
    assert {grad.dtype for grad in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


def test_initial_parameters():
    config = TransformerConfig(
        vocab_size=512, embed_dim=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16, mlp_dim=96, qk_norm=True
    )
    model = Transformer(config, PrecisionConfig(params="bfloat16", compute="bfloat16"))
    params = model.init(jax.random.key(0))
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "scale":
            assert jnp.all(leaf == 1)
        else:
            assert float(jnp.std(leaf.astype(jnp.float32))) == pytest.approx(0.02, rel=0.05)
    gate = params["layers"]["mlp"]["gate"]
    assert not jnp.array_equal(gate[0], gate[1])


def test_logical_axes_match_the_parameters():
    for config in CONFIGS.values():
        model = Transformer(config)
        names = model.logical_axes()
        shapes = model.shapes()
        leaves = jax.tree.leaves(names, is_leaf=lambda node: isinstance(node, tuple))
        assert [len(leaf) for leaf in leaves] == [len(shape.shape) for shape in jax.tree.leaves(shapes)]
        assert names["layers"]["mlp"]["down"] == ("layers", "mlp", "embed")
        assert hash(model) == hash(Transformer(config))
