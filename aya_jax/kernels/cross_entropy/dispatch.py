"""Picking how the head and its loss are computed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from aya_jax.config.errors import UserError
from aya_jax.kernels.cross_entropy.operation import Layout, Plan, scores
from aya_jax.kernels.cross_entropy.reference import reference
from aya_jax.kernels.cross_entropy.statistics import TokenStatistics, token_statistics
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.mesh import platform as platform_in_context

IMPLEMENTATIONS = ("dense", "tiled", "pallas_tpu", "reference")

# Logits kept whole up to this many per device (512 MiB in float32).
DENSE_LOGITS = 2**27
# Logits of one tile per device: large enough that the matrix products run at full rate.
TILE_LOGITS = 2**28
# Up to this width the TPU kernels are picked unasked; they were compiled for v5e, v5p and v6e.
KERNEL_WIDTH = 8192
# TPUs with 16 MiB of VMEM, too little for the kernels' blocks; later ones have 64 and more.
_SMALL_VMEM = ("TPU v2", "TPU v3", "TPU v4")


def choose(
    *,
    tokens: int,
    vocab_size: int,
    width: int | None = None,
    platform: str | None = None,
    device_kind: str | None = None,
    implementation: str | None = None,
) -> str:
    """The name of the implementation for so many tokens and rows of the vocabulary per device.

    Args:
      tokens: per device.
      vocab_size: rows of the token table, or of a device's part of it.
      width: of the hidden states; None: one that the kernels take.
      platform: "cpu", "gpu" or "tpu"; by default that of the mesh in context, else JAX's own.
      device_kind: "TPU v5 lite" and so on, which says how much memory a kernel has; by default as `platform`.
      implementation: the one asked for; by default "dense" where the logits are few, else "pallas_tpu" on a TPU that has
        the memory for it, else "tiled".

    Raises:
      UserError: if the one asked for is unknown, or is not made for the platform.
    """
    platform = platform or platform_in_context()
    if implementation is None:
        if tokens * vocab_size <= DENSE_LOGITS:
            return "dense"
        return (
            "pallas_tpu" if _kernel_refusal(platform, device_kind) is None and (width or 0) <= KERNEL_WIDTH else "tiled"
        )
    if implementation not in IMPLEMENTATIONS:
        raise UserError(f"no cross-entropy {implementation!r}; there are {', '.join(IMPLEMENTATIONS)}")
    if implementation == "pallas_tpu" and (refusal := _kernel_refusal(platform, device_kind)):
        raise UserError(
            f"cross-entropy 'pallas_tpu' is for {refusal}; bind PrecisionConfig.cross_entropy = 'tiled', or None to let "
            "the shapes decide"
        )
    return implementation


def _kernel_refusal(platform: str, kind: str | None) -> str | None:
    """Why the TPU kernels cannot run, in words that follow "is for"; None if they can."""
    if platform != "tpu":
        return f"tpu and this is {platform}"
    if kind is None:
        device = jax.sharding.get_abstract_mesh().abstract_device
        if device is None and jax.default_backend() == "tpu":
            device = jax.devices()[0]
        kind = "" if device is None else device.device_kind
    if kind.startswith(_SMALL_VMEM):
        return f"TPU v5e and later, and this is {kind} with 16 MiB of VMEM"
    return None


def linear_cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    *,
    logit_scale: float = 1.0,
    rules: LogicalAxes | None = None,
    tile: int | None = None,
    implementation: str | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities of targets under softmax(logit_scale * hidden @ table^T). Both results are differentiable.

    The one place where hidden states meet the vocabulary: pre-training and tuning average log p, preference objectives
    (DPO) sum it over a reply under two models, evaluation adds it up per document; z-loss squares the log-sum-exp, and
    label smoothing takes it less `mean_logit`. None of them holds the logits of a batch, and each may put any gradient
    on either result.

    Under `jax.set_mesh(mesh)` of more than one device and with `rules`, each device works on its tokens and its rows of
    the table (`operation`). Without rules the compiler is left to divide the work.

    Args:
      hidden: [B, S, D], in the compute dtype.
      table: [V, D], in the parameters' dtype; cast to that of `hidden`. Its gradient is summed in float32.
      targets: int32 [B, S].
      logit_scale: factor on the logits.
      rules: which mesh axes divide `batch`, `sequence`, `vocab` and `embed`.
      tile: positions per sequence whose logits exist at a time ("tiled"); by default chosen from a device's shapes.
      implementation: "dense", "tiled", "pallas_tpu" or "reference"; by default `choose` picks one. The reference is
        always left to the compiler to divide.
      interpret: run "pallas_tpu" by Pallas' interpreter, on any platform.

    Returns:
      (log p(target), log sum exp of the logits), float32 [B, S] each.

    Raises:
      UserError: if the implementation is unknown or cannot run here, or a dim does not divide over the mesh.
    """
    layout, (batch, length, rows), devices = _divide(targets, table, rules)
    name = choose(
        tokens=-(-batch * length // devices),
        vocab_size=rows,
        width=table.shape[1],
        platform="tpu" if interpret else None,
        implementation=implementation,
    )
    if name == "reference":
        return reference(hidden, table, targets, logit_scale=logit_scale)
    tile = min(length, tile or _tile(batch, rows, devices))
    plan = Plan(name=name, layout=layout, tile=tile, interpret=interpret, table_dtype=str(table.dtype))
    return scores(plan, hidden * jnp.asarray(logit_scale, hidden.dtype), table, targets)


def linear_statistics(
    hidden: jax.Array,
    table: jax.Array,
    targets: jax.Array,
    *,
    logit_scale: float = 1.0,
    rules: LogicalAxes | None = None,
    tile: int | None = None,
) -> TokenStatistics:
    """Entropy of softmax(logit_scale * hidden @ table^T), and whether the target is its peak; no gradient.

    Arguments, mesh and errors as in `linear_cross_entropy`; one matrix product, and no more logits than a tile's.
    """
    layout, (batch, length, rows), devices = _divide(targets, table, rules)
    tile = min(length, tile or _tile(batch, rows, devices))
    return token_statistics(hidden * jnp.asarray(logit_scale, hidden.dtype), table, targets, layout=layout, tile=tile)


def _divide(
    targets: jax.Array, table: jax.Array, rules: LogicalAxes | None
) -> tuple[Layout | None, tuple[int, int, int], int]:
    """How the mesh in context divides the work: a layout where rules give one, rows of the batch, positions and rows of the
    table of a device, and over how many devices the compiler is left to divide those."""
    mesh = jax.sharding.get_abstract_mesh()
    whole = (*targets.shape, table.shape[0])
    if mesh.empty or mesh.size == 1:
        return None, whole, 1
    if rules is None:
        return None, whole, mesh.size
    layout = Layout.of(rules, mesh)
    return layout, layout.local(*whole, table.shape[1]), 1


def _tile(batch: int, rows: int, devices: int) -> int:
    return max(1, TILE_LOGITS * devices // (batch * rows))


def mean_logit(hidden: jax.Array, table: jax.Array, *, logit_scale: float = 1.0) -> jax.Array:
    """The mean over the vocabulary of each token's logits: the logit of the mean row, so no logits are made.

    Label smoothing needs it: the mean of -log p over the vocabulary is log-sum-exp less this. Differentiable; under a
    mesh the compiler divides it as its arguments are.

    Args:
      hidden: [B, S, D].
      table: [V, D].
      logit_scale: factor on the logits, as in `linear_cross_entropy`.

    Returns:
      float32 [B, S].
    """
    row = jnp.mean(table.astype(hidden.dtype), axis=0, dtype=jnp.float32)
    scaled = hidden * jnp.asarray(logit_scale, hidden.dtype)
    return jnp.einsum("bsd,d->bs", scaled.astype(jnp.float32), row)
