"""How fast a step can be at most: arithmetic, memory and network, each at the rate of the datasheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from aya_jax.models import flops, parameters
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.describe import activation_bytes_per_token
from aya_jax.planning.hlo import Collective
from aya_jax.planning.memory import Shares, loss_implementation, state_bytes
from aya_jax.planning.targets import Target
from aya_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step, on every device alike.

    Attributes:
      model_flops: of the step by the formula of MFU (models/flops.py), over all devices.
      executed_flops: the same with what is recomputed.
      memory_bytes: read and written by one device (an estimate).
      link_bytes: sent by one device within its slice; None where no program was compiled.
      network_bytes: sent by one device beyond its slice.
      compute: seconds of arithmetic at the bf16 peak.
      memory: seconds of reading and writing.
      links: seconds on fast links.
      network: seconds on the slower network.
      peak_rate: the peak of all devices, FLOP/s.
    """

    model_flops: float
    executed_flops: float
    memory_bytes: float
    link_bytes: float | None
    network_bytes: float | None
    compute: float
    memory: float
    links: float
    network: float
    peak_rate: float

    @property
    def overlapped(self) -> float:
        """Seconds where the slowest of the parts hides the others: no step can be faster."""
        return max(self.compute, self.memory, self.links, self.network)

    @property
    def in_turn(self) -> float:
        """Seconds where nothing hides anything."""
        return self.compute + self.memory + self.links + self.network

    @property
    def mfu_bound(self) -> float:
        """Model FLOPs utilisation of the overlapped step: the most that can be reached."""
        return self.model_flops / (self.overlapped * self.peak_rate)

    @property
    def mfu_in_turn(self) -> float:
        """The same where nothing overlaps."""
        return self.model_flops / (self.in_turn * self.peak_rate)


def roofline(
    config: TrainConfig, share: Shares, target: Target, devices: int, collectives: Sequence[Collective] | None
) -> Roofline:
    """The roofline of a step; without collectives (None) the network counts as nothing."""
    chip, data = target.chip, config.data
    tokens = data.global_batch * data.sequence_length
    model_flops = flops.per_token(config.model, data.sequence_length) * tokens
    executed = executed_flops_per_token(config, share) * tokens
    moved = memory_bytes(config, share)
    links = None if collectives is None else sum(each.times * each.links for each in collectives)
    network = None if collectives is None else sum(each.times * each.network for each in collectives)
    peak_rate = devices * chip.flops
    return Roofline(
        model_flops=model_flops,
        executed_flops=executed,
        memory_bytes=moved,
        link_bytes=links,
        network_bytes=network,
        compute=executed / peak_rate,
        memory=moved / chip.memory_bandwidth,
        links=(links or 0.0) / chip.link_bandwidth,
        network=(network or 0.0) / chip.network_bandwidth,
        peak_rate=peak_rate,
    )


def executed_flops_per_token(config: TrainConfig, share: Shares) -> float:
    """The formula of MFU plus what is computed twice.

    "full" and "offload" repeat the layers' forward pass, a third of their share; "dots" repeats attention's; every policy
    repeats attention's scores in its backward pass, one of its two forward products. A tiled loss repeats the logits, 2 V D.
    """
    model, length = config.model, config.data.sequence_length
    whole = flops.per_token(model, length)
    head = 6.0 * model.vocab_size * model.embed_dim
    # Two products of H hd per query and key, halved by causality: 2 H hd `attended` forward, summed over layers.
    attention = 2.0 * model.num_heads * model.head_dim * sum(flops.attended(model, length))
    repeated = attention / 2
    if config.precision.remat in ("full", "offload"):
        repeated += (whole - head) / 3
    elif config.precision.remat == "dots":
        repeated += attention
    if loss_implementation(config, share) != "dense":
        repeated += head / 3
    return whole + repeated


def memory_bytes(config: TrainConfig, share: Shares) -> float:
    """Bytes that one device reads and writes in a step: an estimate.

    The update reads parameter, gradient and two moments and writes three of them. Each pass over a layer (forward, backward
    twice, and once more where it is recomputed) reads its weights as they are computed with, and writes and reads what lies
    between its operations; each part of a batch reads and writes the gradients. What is kept is written and read once.
    """
    model, precision = config.model, config.precision
    state = state_bytes(config, share.mesh)
    width = jnp.dtype(precision.compute).itemsize
    passes = 3 if precision.remat == "none" else 4
    weights = parameters.count(model).total * width / share.tensor
    whole = PrecisionConfig(params=precision.params, compute=precision.compute, remat="none")
    between = activation_bytes_per_token(model, whole) / share.tensor
    kept = activation_bytes_per_token(model, precision) / share.residual
    per_part = passes * weights + 2 * state.trained + share.tokens * (2 * kept + 2 * passes * between)
    return config.accumulation * per_part + 5 * state.trained + 2 * state.moments
