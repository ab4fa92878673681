"""Linear layer and cross-entropy as Pallas kernels for TPUs: logits live in VMEM, a tile at a time, and never reach HBM.

The functions are as in `xla`. Forward, a block of tokens stays while tiles of the vocabulary pass by, with log-sum-exp
kept online (Milakov and Gimelshein 2018, Online normalizer calculation for softmax). Backward makes logits again in two
kernels: for the gradient of hidden a block of tokens stays, for that of the table, summed in float32, a block of rows.
Five matrix products in all, where `tiled` has four and reads and writes every logit.

Tiles hold [rows, tokens]: what is known of a token is then a row vector, dense in memory, and sums over the vocabulary
add whole registers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from aya_jax.config.errors import UserError
from aya_jax.kernels.cross_entropy.operation import GRADIENT_PIECE
from aya_jax.kernels.cross_entropy.xla import Kept, Scores, Share

# What blocks may take of VMEM, and the limit told to the compiler: TPU v5p has 64 MiB, v5e and v6e 128 MiB.
_BUDGET = 40 * 2**20
_LIMIT = 60 * 2**20
_LANES = 128
_MASKED = -1e30


def forward(hidden: jax.Array, table: jax.Array, targets: jax.Array, *, interpret: bool = False) -> tuple[Scores, Kept]:
    """Keeps nothing for the backward pass.

    Raises:
      UserError: if the width is too large for VMEM.
    """
    (batch, length), (vocab_size, width), size = targets.shape, table.shape, hidden.dtype.itemsize
    tokens, rows = _blocks(width, batch * length, vocab_size, lambda held, passing: 2 * (held + passing) * width * size)
    hidden, targets = _flat(hidden, tokens), _row(targets, tokens)
    per_token = pl.BlockSpec((1, tokens), lambda n, v: (0, n))
    target, lse = pl.pallas_call(
        functools.partial(_forward_kernel, vocab_size=vocab_size),
        grid=(hidden.shape[0] // tokens, pl.cdiv(vocab_size, rows)),
        in_specs=[per_token, pl.BlockSpec((tokens, width), lambda n, v: (n, 0)), _table_spec(rows, width, 1)],
        out_specs=[per_token, per_token],
        out_shape=[jax.ShapeDtypeStruct(targets.shape, jnp.float32)] * 2,
        scratch_shapes=[pltpu.VMEM((1, tokens), jnp.float32)] * 2,
        compiler_params=_PARAMS,
        interpret=interpret,
    )(targets, hidden, table)
    return tuple(score[0, : batch * length].reshape(batch, length) for score in (target, lse)), ()


def backward(
    hidden,
    table,
    targets,
    kept: Kept,
    lse,
    grad_target,
    grad_lse,
    *,
    share: Share,
    multiple: int,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Two kernels, one for each gradient; that of the table by pieces of the vocabulary, each shared before the next is made.

    Args:
      multiple: pieces are of a multiple of so many rows.

    Raises:
      UserError: if the width is too large for VMEM.
    """
    del kept
    per_token = targets, lse, grad_target, grad_lse
    grad_hidden = _grad_hidden(hidden, table, per_token=per_token, interpret=interpret)
    count = _pieces(*table.shape, multiple)
    pieces = table.reshape(count, -1, table.shape[1])
    first = jnp.arange(count, dtype=targets.dtype) * pieces.shape[1]

    def piece(rows):
        table, first = rows
        own = (targets - first, lse, grad_target, grad_lse)  # a target of another piece is no row of this one
        return share(_grad_table(hidden, table, per_token=own, interpret=interpret))

    grad_table = jax.lax.map(piece, (pieces, first))
    return grad_hidden, grad_table.reshape(-1, grad_table.shape[2])


def _pieces(rows: int, width: int, multiple: int) -> int:
    """Into how many equal pieces a gradient is cut: of GRADIENT_PIECE bytes or less, and of a multiple of rows."""
    count = 1
    while 4 * rows * width > count * GRADIENT_PIECE and rows % (2 * count * multiple) == 0:
        count *= 2
    return count


def _grad_hidden(hidden, table, *, per_token, interpret: bool) -> jax.Array:
    (vocab_size, width), shape, size = table.shape, hidden.shape, hidden.dtype.itemsize
    tokens, rows = _blocks(
        width,
        shape[0] * shape[1],
        vocab_size,
        # Both operands and the result twice (one is moved while one is worked on), the sum and the product once.
        lambda held, passing: width * (2 * (2 * held + passing) * size + 8 * held),
    )
    flat = _flat(hidden, tokens)
    spec = pl.BlockSpec((tokens, width), lambda n, v: (n, 0))
    gradient = pl.pallas_call(
        functools.partial(_grad_hidden_kernel, vocab_size=vocab_size),
        grid=(flat.shape[0] // tokens, pl.cdiv(vocab_size, rows)),
        in_specs=[pl.BlockSpec((1, tokens), lambda n, v: (0, n))] * 4 + [spec, _table_spec(rows, width, 1)],
        out_specs=spec,
        out_shape=jax.ShapeDtypeStruct(flat.shape, hidden.dtype),
        scratch_shapes=[pltpu.VMEM((tokens, width), jnp.float32)],
        compiler_params=_PARAMS,
        interpret=interpret,
    )(*(_row(array, tokens) for array in per_token), flat, table)
    return gradient[: shape[0] * shape[1]].reshape(shape)


def _grad_table(hidden, table, *, per_token, interpret: bool) -> jax.Array:
    (vocab_size, width), size = table.shape, hidden.dtype.itemsize
    rows, tokens = _blocks(
        width,
        vocab_size,
        hidden.shape[0] * hidden.shape[1],
        lambda held, passing: width * (2 * (held + passing) * size + 12 * held),
    )
    flat = _flat(hidden, tokens)
    return pl.pallas_call(
        functools.partial(_grad_table_kernel, vocab_size=vocab_size),
        grid=(pl.cdiv(vocab_size, rows), flat.shape[0] // tokens),
        in_specs=[pl.BlockSpec((1, tokens), lambda v, n: (0, n))] * 4
        + [pl.BlockSpec((tokens, width), lambda v, n: (n, 0)), _table_spec(rows, width, 0)],
        out_specs=_table_spec(rows, width, 0),
        out_shape=jax.ShapeDtypeStruct(table.shape, jnp.float32),
        compiler_params=_PARAMS,
        interpret=interpret,
    )(*(_row(array, tokens) for array in per_token), flat, table)


# Kernels -------------------------------------------------------------------------------------------------------------


def _forward_kernel(targets, hidden, table, target, lse, peak, total, *, vocab_size: int):
    tile = pl.program_id(1)

    @pl.when(tile == 0)
    def _():
        peak[...] = jnp.full_like(peak, _MASKED)
        total[...] = jnp.zeros_like(total)
        target[...] = jnp.zeros_like(target)

    logits, index = _tile(table[...], hidden[...], tile)
    target[...] += jnp.sum(jnp.where(index == targets[...], logits, 0.0), axis=0, keepdims=True)
    if vocab_size % logits.shape[0]:
        logits = jnp.where(index < vocab_size, logits, _MASKED)
    highest = jnp.maximum(peak[...], jnp.max(logits, axis=0, keepdims=True))
    weights = jnp.sum(jnp.exp(logits - highest), axis=0, keepdims=True)
    total[...] = total[...] * jnp.exp(peak[...] - highest) + weights
    peak[...] = highest

    @pl.when(tile == pl.num_programs(1) - 1)
    def _():
        lse[...] = peak[...] + jnp.log(total[...])


def _grad_hidden_kernel(targets, lse, grad_target, grad_lse, hidden, table, gradient, total, *, vocab_size: int):
    tile, rows = pl.program_id(1), table[...]

    @pl.when(tile == 0)
    def _():
        total[...] = jnp.zeros_like(total)

    if vocab_size % rows.shape[0]:
        # What lies past the end may be anything, and 0 * NaN is NaN.
        index = tile * rows.shape[0] + jax.lax.broadcasted_iota(jnp.int32, rows.shape, 0)
        rows = jnp.where(index < vocab_size, rows, jnp.zeros_like(rows))
    grad_logits = _grad_tile(rows, hidden[...], tile, targets, lse, grad_target, grad_lse, vocab_size)
    total[...] += jax.lax.dot_general(grad_logits, rows, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)

    @pl.when(tile == pl.num_programs(1) - 1)
    def _():
        gradient[...] = total[...].astype(gradient.dtype)


def _grad_table_kernel(targets, lse, grad_target, grad_lse, hidden, table, gradient, *, vocab_size: int):
    @pl.when(pl.program_id(1) == 0)
    def _():
        gradient[...] = jnp.zeros_like(gradient)

    grad_logits = _grad_tile(table[...], hidden[...], pl.program_id(0), targets, lse, grad_target, grad_lse, vocab_size)
    gradient[...] += jnp.dot(grad_logits, hidden[...], preferred_element_type=jnp.float32)


def _tile(table: jax.Array, hidden: jax.Array, tile: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits float32 [rows, tokens], and the row of the table that each is of."""
    logits = jax.lax.dot_general(table, hidden, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    return logits, tile * table.shape[0] + jax.lax.broadcasted_iota(jnp.int32, logits.shape, 0)


def _grad_tile(table, hidden, tile, targets, lse, grad_target, grad_lse, vocab_size: int) -> jax.Array:
    """g * onehot + e * p, [rows, tokens] in the dtype of hidden; 0 in rows past the end."""
    logits, index = _tile(table, hidden, tile)
    gradient = grad_lse[...] * jnp.exp(logits - lse[...]) + jnp.where(index == targets[...], grad_target[...], 0.0)
    if vocab_size % table.shape[0]:
        gradient = jnp.where(index < vocab_size, gradient, 0.0)
    return gradient.astype(hidden.dtype)


# Blocks --------------------------------------------------------------------------------------------------------------

_PARAMS = pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=_LIMIT)


def _blocks(width: int, held: int, passing: int, cost: Callable[[int, int], int]) -> tuple[int, int]:
    """The block that stays and the one that passes by, of so many tokens or rows: the largest that fit, the first first.

    Each byte that passes by serves as many products as the block that stays has entries.
    """
    for block in (1024, 512, 256, 128):
        for tile in (512, 256, 128):
            if cost(block, tile) + 12 * block * tile <= _BUDGET:
                return min(block, _round_up(held)), min(tile, _round_up(passing))
    raise UserError(
        f"cross-entropy 'pallas_tpu' keeps rows of the width {width:,} in VMEM and they do not fit; "
        "bind PrecisionConfig.cross_entropy = 'tiled'"
    )


def _round_up(count: int) -> int:
    return -(-count // _LANES) * _LANES


def _table_spec(rows: int, width: int, position: int) -> pl.BlockSpec:
    return pl.BlockSpec((rows, width), lambda *index: (index[position], 0))


def _flat(hidden: jax.Array, block: int) -> jax.Array:
    """[B, S, D] -> [N, D], N a multiple of the block."""
    hidden = hidden.reshape(-1, hidden.shape[-1])
    return jnp.pad(hidden, ((0, -hidden.shape[0] % block), (0, 0)))


def _row(array: jax.Array, block: int) -> jax.Array:
    """[B, S] -> [1, N]; zeros for the padding, whose cotangents add nothing."""
    array = array.reshape(1, -1)
    return jnp.pad(array, ((0, 0), (0, -array.shape[1] % block)))
