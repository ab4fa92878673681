"""The fused head and loss against NumPy in float64: values and gradients through both results."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aya_jax.config import UserError
from aya_jax.kernels.cross_entropy import choose, linear_cross_entropy, linear_statistics, mean_logit, pallas_tpu

BATCH, LENGTH, WIDTH, VOCAB = 2, 13, 16, 57
ALL = [("dense", None), ("tiled", 5), ("tiled", 1), ("tiled", 64), ("reference", None), ("pallas_tpu", None)]


def operation(hidden, table, targets, name, tile=None, scale=1.0):
    """The operation; kernels for a TPU by Pallas' interpreter."""
    options = {"tile": tile, "implementation": name, "interpret": name == "pallas_tpu"}
    return linear_cross_entropy(hidden, table, targets, logit_scale=scale, **options)


def inputs(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden = scale * rng.normal(size=(BATCH, LENGTH, WIDTH))
    return hidden, rng.normal(size=(VOCAB, WIDTH)), rng.integers(0, VOCAB, (BATCH, LENGTH)).astype(np.int32)


def oracle(hidden, table, targets, scale, grad_log_probs, grad_lse):
    """Values and gradients in closed form, float64."""
    logits = scale * hidden @ table.T
    peak = logits.max(-1, keepdims=True)
    lse = (peak + np.log(np.exp(logits - peak).sum(-1, keepdims=True)))[..., 0]
    probs = np.exp(logits - lse[..., None])
    onehot = np.eye(len(table))[targets]
    log_probs = (logits * onehot).sum(-1) - lse
    grad = grad_log_probs[..., None] * (onehot - probs) + grad_lse[..., None] * probs
    return log_probs, lse, scale * grad @ table, scale * np.einsum("bsv,bsd->vd", grad, hidden)


@pytest.mark.parametrize(("name", "tile"), ALL)
@pytest.mark.parametrize("scale", [1.0, 0.0625])
def test_values_and_gradients(name, tile, scale):
    hidden, table, targets = inputs()
    rng = np.random.default_rng(1)
    cotangents = rng.normal(size=(2, BATCH, LENGTH))
    log_probs, lse, grad_hidden, grad_table = oracle(hidden, table, targets, scale, *cotangents)

    def run(hidden, table):
        return operation(hidden, table, targets, name, tile, scale)

    values, back = jax.vjp(run, jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32))
    np.testing.assert_allclose(values[0], log_probs, atol=1e-5)
    np.testing.assert_allclose(values[1], lse, atol=1e-5)
    grads = back(tuple(jnp.asarray(c, jnp.float32) for c in cotangents))
    np.testing.assert_allclose(grads[0], grad_hidden, atol=1e-5)
    np.testing.assert_allclose(grads[1], grad_table, atol=3e-5)


@pytest.mark.parametrize(("name", "tile"), ALL)
def test_large_logits_do_not_overflow(name, tile):
    hidden, table, targets = inputs(scale=100.0)
    log_probs, lse, *_ = oracle(hidden, table, targets, 1.0, np.zeros((2, 13)), np.zeros((2, 13)))
    values = operation(jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32), targets, name, tile)
    np.testing.assert_allclose(values[0], log_probs, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(values[1], lse, rtol=1e-5)


@pytest.mark.parametrize("table_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("name", "tile"), [("dense", None), ("tiled", 5), ("pallas_tpu", None)])
def test_the_table_gradient_is_accumulated_in_float32(name, tile, table_dtype):
    """With activations in bfloat16 the table's gradient keeps what bfloat16 sums over tiles would lose."""
    rng = np.random.default_rng(2)
    hidden = jnp.asarray(1 + 0.1 * rng.normal(size=(1, 8192, 4)), jnp.bfloat16)
    targets = jnp.zeros((1, 8192), jnp.int32)
    table = jnp.zeros((3, 4), table_dtype)
    grad = jax.grad(lambda table: operation(hidden, table, targets, name, tile)[0].sum())(table)
    exact = np.einsum("v,sd->vd", np.array([2 / 3, -1 / 3, -1 / 3]), np.asarray(hidden[0], np.float64))
    assert grad.dtype == table_dtype
    # Each term is rounded to 8 bits, as is the result where the table is in bfloat16; the sum of 8,192 is not.
    np.testing.assert_allclose(np.asarray(grad, np.float64), exact, rtol=5e-3)
    in_bfloat16 = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros(4, jnp.bfloat16), -hidden[0] / 3)[0]
    assert np.abs(in_bfloat16.astype(jnp.float32) / exact[1] - 1).max() > 0.5


def test_padding_of_the_last_tile_carries_no_gradient():
    hidden, table, targets = (jnp.asarray(a) for a in inputs())
    hidden, table = hidden.astype(jnp.float32), table.astype(jnp.float32)

    def grad(tile):
        return jax.grad(lambda t: linear_cross_entropy(hidden, t, targets, tile=tile, implementation="tiled")[1].sum())(
            table
        )

    np.testing.assert_allclose(grad(13), grad(8), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("tokens", "vocab"), [(300, 700), (128, 1024), (5, 40)])
def test_kernels_over_several_blocks_with_ragged_edges(tokens, vocab, dtype, monkeypatch):
    """Pallas kernels with blocks of 128 tokens and 128 rows, against the closed form in float64 of the same inputs.

    The table's gradient comes in as many pieces as divide it, up to four of 700 rows and eight of 1,024.
    """
    monkeypatch.setattr(pallas_tpu, "GRADIENT_PIECE", 128 * 32 * 4)
    monkeypatch.setattr(pallas_tpu, "_BUDGET", 13 * 128 * 128 + 2 * 14 * 128 * 32 * dtype.dtype.itemsize)
    rng = np.random.default_rng(5)
    hidden = jnp.asarray(rng.normal(size=(1, tokens, 32)), dtype)
    table = jnp.asarray(rng.normal(size=(vocab, 32)), dtype)
    targets = jnp.asarray(rng.integers(0, vocab, (1, tokens)), jnp.int32).at[0, -1].set(vocab - 1)
    cotangents = rng.normal(size=(2, 1, tokens))
    exact = oracle(np.asarray(hidden, np.float64), np.asarray(table, np.float64), targets, 1.0, *cotangents)
    run = functools.partial(operation, targets=targets, name="pallas_tpu")
    values, back = jax.vjp(run, hidden, table)
    for value, expected in zip(values, exact[:2], strict=True):
        np.testing.assert_allclose(value, expected, atol=2e-5)  # products of bfloat16 are exact in float32
    for grad, expected in zip(back(tuple(jnp.float32(c) for c in cotangents)), exact[2:], strict=True):
        bound = 2e-6 if dtype == jnp.float32 else 1e-2
        assert np.abs(np.asarray(grad, np.float64) - expected).max() < bound * np.abs(expected).max()


def test_kernels_with_very_low_logits_and_a_ragged_edge():
    """exp(0 - lse) of a row past the end overflows where every logit is about -200."""
    hidden, table = jnp.ones((1, 4, 32)), jnp.full((40, 32), -6.25)
    run = functools.partial(operation, table=table, targets=jnp.zeros((1, 4), jnp.int32), name="pallas_tpu")
    (log_probs, lse), back = jax.vjp(lambda hidden: run(hidden), hidden)
    np.testing.assert_allclose(lse, -200 + np.log(40), rtol=1e-6)
    grad = back((jnp.ones_like(log_probs), jnp.ones_like(lse)))[0]
    np.testing.assert_allclose(grad, jnp.full_like(hidden, -6.25), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_kernels_lower_for_a_tpu_at_full_size(dtype):
    """8,192 tokens of width 4,096 over 256,000 rows; what Mosaic makes of them, the next test says."""
    arguments = (
        jax.ShapeDtypeStruct((1, 8192, 4096), dtype),
        jax.ShapeDtypeStruct((256_000, 4096), dtype),
        jax.ShapeDtypeStruct((1, 8192), jnp.int32),
    )

    def both(hidden, table, targets):
        scores, kept = pallas_tpu.forward(hidden, table, targets)
        return scores, pallas_tpu.backward(
            hidden, table, targets, kept, scores[1], *scores, share=lambda rows: rows, multiple=1
        )

    text = jax.export.export(jax.jit(both), platforms=["tpu"])(*arguments).mlir_module()
    assert text.count("tpu_custom_call") == 3
    assert "8192x256000x" not in text
    assert "256000x8192x" not in text


@pytest.mark.tpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_compiled_for_a_tpu_the_choice_holds_no_logits(topology):
    """Needs libtpu (extra `tpu`), no TPU: temporary memory at 8,192 tokens x 4,096 x 256,000 in bfloat16."""
    pytest.importorskip("libtpu")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[:1]
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    shapes = ((1, 8192, 4096), jnp.bfloat16), ((256_000, 4096), jnp.bfloat16), ((1, 8192), jnp.int32)
    arguments = [jax.ShapeDtypeStruct(*each, sharding=whole) for each in shapes]

    def loss(hidden, table, targets):
        return linear_cross_entropy(hidden, table, targets)[0].sum()

    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=whole).lower(*arguments).compile()
    # A copy of the table by pieces and a piece of its float32 gradient; without kernels the whole of it and a tile of logits.
    sums, tile = (256_000 * 4096 * 4, 2**30) if topology[:2] == "v4" else (256_000 * 4096 * 2 + 2**29, 0)
    assert ("tpu_custom_call" in compiled.as_text()) == (tile == 0)
    assert compiled.memory_analysis().temp_size_in_bytes < 1.01 * sums + tile


def test_a_width_that_no_block_holds_is_refused():
    arguments = jnp.zeros((1, 8, 2**17)), jnp.zeros((8, 2**17)), jnp.zeros((1, 8), jnp.int32)
    with pytest.raises(UserError, match=r"the width 131,072 .* bind PrecisionConfig\.cross_entropy = 'tiled'"):
        jax.eval_shape(functools.partial(operation, name="pallas_tpu"), *arguments)


@pytest.mark.parametrize("scale", [1.0, 0.0625])
def test_mean_logit(scale):
    hidden, table, _ = inputs()
    value, back = jax.vjp(functools.partial(mean_logit, logit_scale=scale), jnp.float32(hidden), jnp.float32(table))
    np.testing.assert_allclose(value, scale * (hidden @ table.T).mean(-1), atol=1e-5)
    cotangent = np.random.default_rng(1).normal(size=value.shape)
    grad_hidden, grad_table = back(jnp.float32(cotangent))
    np.testing.assert_allclose(grad_hidden, scale * cotangent[..., None] * table.mean(0), atol=1e-5)
    row = scale * np.einsum("bs,bsd->d", cotangent, hidden) / VOCAB
    np.testing.assert_allclose(grad_table, np.broadcast_to(row, table.shape), atol=1e-5)


def test_choice():
    assert choose(tokens=2048, vocab_size=8192) == "dense"
    assert choose(tokens=8192, vocab_size=256_000) == "tiled"
    assert choose(tokens=8192, vocab_size=256_000, implementation="dense") == "dense"
    assert choose(tokens=8192, vocab_size=256_000, platform="gpu") == "tiled"
    assert choose(tokens=8192, vocab_size=256_000, platform="tpu") == "pallas_tpu"
    assert choose(tokens=8192, vocab_size=256_000, width=2**15, platform="tpu") == "tiled"
    assert choose(tokens=2048, vocab_size=8192, platform="tpu", implementation="pallas_tpu") == "pallas_tpu"
    with pytest.raises(UserError, match=r"no cross-entropy 'fused'; there are dense, tiled, pallas_tpu, reference"):
        choose(tokens=1, vocab_size=1, implementation="fused")
    with pytest.raises(UserError, match=r"'pallas_tpu' is for tpu and this is cpu; .* = 'tiled'"):
        choose(tokens=1, vocab_size=1, implementation="pallas_tpu")


@pytest.mark.parametrize("tile", [None, 1, 5, 64])
@pytest.mark.parametrize("scale", [1.0, 0.0625, 100.0])
def test_entropy_and_the_likeliest_token(tile, scale):
    hidden, table, targets = inputs()
    logits = scale * hidden @ table.T
    targets[0] = logits[0].argmax(-1)
    found = linear_statistics(jnp.float32(hidden), jnp.float32(table), targets, logit_scale=scale, tile=tile)
    expected = scipy.stats.entropy(scipy.special.softmax(logits, axis=-1), axis=-1)
    np.testing.assert_allclose(found.entropy, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.correct, logits.argmax(-1) == targets)


def test_of_equally_likely_tokens_the_first_counts():
    found = linear_statistics(jnp.ones((1, 4, 3)), jnp.ones((8, 3)), jnp.array([[0, 1, 7, 0]], jnp.int32))
    np.testing.assert_allclose(found.entropy, np.log(8), rtol=1e-6)
    assert found.correct.tolist() == [[True, False, False, True]]


def test_statistics_have_no_gradient():
    hidden, table, targets = inputs()
    arguments = jnp.float32(hidden), jnp.float32(table)
    gradients = jax.grad(lambda *a: jnp.sum(linear_statistics(*a, targets).entropy), argnums=(0, 1))(*arguments)
    assert not any(np.any(gradient) for gradient in gradients)


@pytest.mark.parity
def test_statistics_equal_trl():
    """The head of TRL's trainers, and its correct tokens: both take the first of equals."""
    torch = pytest.importorskip("torch")
    trl = pytest.importorskip("trl.kernels.chunked_logprob")
    hidden, table, targets = inputs()
    table[5:9] = table[5]
    targets[0] = (hidden[0] @ table.T).argmax(-1)
    hidden[1], targets[1] = 3 * table[5], np.arange(LENGTH) % 4 + 5
    flat = [torch.tensor(a, dtype=torch.float32) for a in (hidden.reshape(-1, WIDTH), table)]
    outputs = ("log_probs", "entropy", "is_top1")
    labels = torch.tensor(targets.reshape(-1)).long()
    theirs = trl.ChunkedLogProbFunction.apply(*flat, None, labels, 1.0, 16, None, 1.0, outputs)
    found = linear_statistics(jnp.float32(hidden), jnp.float32(table), targets)
    np.testing.assert_allclose(found.entropy.reshape(-1), theirs[1].numpy(), atol=1e-5)
    np.testing.assert_array_equal(found.correct.reshape(-1), theirs[4].numpy())
