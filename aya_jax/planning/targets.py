"""The machines that a run can be planned for: how many chips a name means, and what one chip can do."""

from __future__ import annotations

import dataclasses
import re

from aya_jax.config.errors import UserError, did_you_mean, near_names

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip (one JAX device) of a kind of machine.

    Attributes:
      name: as targets call it, "v5p" or "h200".
      platform: "tpu" or "gpu".
      memory: bytes of its memory.
      usable: the part of them that a program can have.
      flops: dense bf16 peak, FLOP/s.
      memory_bandwidth: bytes/s.
      link_bandwidth: bytes/s that it can send to others of its slice (TPU) or machine (GPU), all links, one direction.
      network_bandwidth: bytes/s that it can send beyond them, its share of the machine's network cards.
      group: chips that fast links join at most: a TPU pod, a GPU machine.
      cores_in_name: 2 where the number in a target's name counts cores, two to a chip (v4, v5p).
      shapes: chips of a slice → its shape, for the TPU compiler.
    """

    name: str
    platform: str
    memory: float
    usable: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float
    group: int
    cores_in_name: int = 1
    shapes: dict[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Target:
    """A machine: `chips` of one kind.

    Attributes:
      name: "v5p-128".
      chip: the kind.
      chips: how many, in each slice.
    """

    name: str
    chip: Chip
    chips: int

    @property
    def topology(self) -> str:
        """The shape of a slice as the TPU compiler is told: "v5p:4x4x4"."""
        return f"{self.chip.name}:{self.chip.shapes[self.chips]}"


# Shapes: docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, the most common one of each size.
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8", 512: "8x8x8"}
_CUBES |= {1024: "8x8x16", 2048: "8x16x16"}
_SQUARES = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}

# Sources: [G] docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e} as read in November 2026; [N] NVIDIA's A100, H100 and H200
# (SXM) datasheets, the dense figures; [C] the limit that libtpu 0.0.52 names when a program does not fit; [M] from memory.
# Google prints link bandwidth in both directions: half of it counts here.
CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(
            "v4",
            "tpu",
            memory=32 * GIB,  # [G]
            usable=30.75 * GIB,  # [C]
            flops=275e12,  # [G]
            memory_bandwidth=1200e9,  # [G]
            link_bandwidth=269e9,  # [G]: all-reduce bandwidth 1.1 PB/s for 4,096 chips
            network_bandwidth=6.25e9,  # [M]
            group=4096,
            cores_in_name=2,
            shapes=_CUBES,
        ),
        Chip(
            "v5e",
            "tpu",
            memory=16 * GIB,  # [G]
            usable=15.75 * GIB,  # [C]
            flops=197e12,  # [G]
            memory_bandwidth=819e9,  # [G]
            link_bandwidth=200e9,  # [G]: 400 GB/s in both directions
            network_bandwidth=3.125e9,  # [G]: 2 x 100 Gbit/s for 8 chips
            group=256,
            shapes=_SQUARES,
        ),
        Chip(
            "v5p",
            "tpu",
            memory=95.73 * GIB,  # [C]; 95 GiB in [G]
            usable=95.73 * GIB,  # [C]
            flops=459e12,  # [G]
            memory_bandwidth=2765e9,  # [G]
            link_bandwidth=600e9,  # [G]: 1,200 GB/s in both directions
            network_bandwidth=6.25e9,  # [G]: 50 Gbit/s
            group=6144,
            cores_in_name=2,
            shapes=_CUBES,
        ),
        Chip(
            "v6e",
            "tpu",
            memory=32 * GIB,  # [G]
            usable=31.24 * GIB,  # [C]
            flops=918e12,  # [G]
            memory_bandwidth=1638e9,  # [G]
            link_bandwidth=400e9,  # [G]: 800 GB/s in both directions
            network_bandwidth=12.5e9,  # [M]: 4 x 200 Gbit/s for 8 chips
            group=256,
            shapes=_SQUARES,
        ),
        # GPUs: JAX takes 0.75 of the memory unless told otherwise; 0.9 is what NVIDIA's JAX recipes set
        # (XLA_PYTHON_CLIENT_MEM_FRACTION).
        Chip("a100", "gpu", 80 * GIB, 0.9 * 80 * GIB, 312e12, 2039e9, 300e9, 25e9, 8),  # [N]; network [M]: 200 Gbit/s
        Chip(
            "h100", "gpu", 79.6 * GIB, 0.9 * 79.6 * GIB, 989.4e12, 3350e9, 450e9, 50e9, 8
        ),  # [N]; network [M]: 400 Gbit/s
        Chip("h200", "gpu", 140.4 * GIB, 0.9 * 140.4 * GIB, 989.4e12, 4800e9, 450e9, 50e9, 8),  # [N]; network [M]
    )
}
_GPU_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def sizes(chip: Chip) -> tuple[int, ...]:
    """The numbers of chips that a machine of this kind can have, ascending."""
    return tuple(chip.shapes) or _GPU_COUNTS


def names() -> tuple[str, ...]:
    """Every target's name."""
    return tuple(named(chip, count) for chip in CHIPS.values() for count in sizes(chip))


def named(chip: Chip, chips: int) -> str:
    """The name of so many chips of a kind."""
    return f"{chip.name}-{chips * chip.cores_in_name}"


def find(name: str) -> Target:
    """The target of a name.

    Raises:
      UserError: if there is none.
    """
    match = re.fullmatch(r"(\w+)-(\d+)", name.strip().lower())
    chip = CHIPS.get(match[1]) if match else None
    if chip is not None:
        chips, rest = divmod(int(match[2]), chip.cores_in_name)
        if not rest and chips in sizes(chip):
            return Target(named(chip, chips), chip, chips)
        known = ", ".join(named(chip, count) for count in sizes(chip))
        counted = "cores, two to a chip" if chip.cores_in_name == 2 else "chips"
        raise UserError(f"no target {name!r}; {chip.name} comes as {known} (the number counts {counted})")
    near = near_names(name, names())
    raise UserError(f"no target {name!r}{did_you_mean(near) or '; there are ' + ', '.join(CHIPS) + ', with -NUMBER'}")
