"""What a run says about devices: the mesh, and which mesh axes split which dims."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from aya_jax.config.errors import UserError
from aya_jax.config.registry import Problem, configurable

MESH_AXES = ("slice", "data", "fsdp", "context", "tensor")

MeshAxes = str | tuple[str, ...] | None


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogicalAxes:
    """Which mesh axes split a dim of each logical name. The defaults are FSDP with tensor parallelism inside.

    A dim keeps its logical name wherever it occurs; only parameters name `embed`, so the default (weights gathered
    layer by layer over `fsdp`) leaves the width of activations whole. Values are a mesh axis, a tuple of mesh axes (the
    first varies slowest) or None.

    Attributes:
      batch: sequences of the global batch.
      sequence: positions within a sequence.
      residual: positions of the activations between blocks and of the norms. Split over `tensor` as well, what tensor
        parallelism would keep on each of its devices is kept once (Korthikanti et al. 2022, sequence parallelism).
      vocab: rows of the token table.
      embed: the model width, in parameters.
      heads: query heads.
      kv_heads: key and value heads.
      head_dim: the width of one head.
      mlp: the inner width of the feed-forward part.
      layers: the stacked layers.
    """

    batch: MeshAxes = ("slice", "data", "fsdp")
    sequence: MeshAxes = "context"
    residual: MeshAxes = ("context", "tensor")
    vocab: MeshAxes = "tensor"
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    mlp: MeshAxes = "tensor"
    layers: MeshAxes = None

    def mesh_axes(self, logical: Sequence[str | None]) -> tuple[MeshAxes, ...]:
        """The mesh axes of an array whose dims bear the given logical names (None: a dim that is never split).

        Raises:
          UserError: if a name is no logical axis, or two dims would be split over the same mesh axis.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in logical:
            if name is not None and name not in known:
                raise UserError(f"{name!r} is no logical axis; LogicalAxes has {', '.join(known)}")
        axes = tuple(None if name is None else getattr(self, name) for name in logical)
        taken: dict[str, str] = {}
        for name, value in zip(logical, axes, strict=True):
            for axis in as_tuple(value):
                if axis in taken:
                    raise UserError(
                        f"mesh axis {axis!r} would split two dims of one array, {taken[axis]!r} and {name!r}: "
                        f"bind LogicalAxes.{taken[axis]} or LogicalAxes.{name} to another mesh axis or None"
                    )
                taken[axis] = str(name)
        return axes

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every value that is no mesh axis or repeats one."""
        for field in dataclasses.fields(self):
            axes = as_tuple(getattr(self, field.name))
            if any(axis not in MESH_AXES for axis in axes):
                yield Problem(field.name, f"a mesh axis ({', '.join(MESH_AXES)}), a tuple of them, or None")
            elif len(set(axes)) != len(axes):
                yield Problem(field.name, "each mesh axis at most once")


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The shape of the device mesh. At most one axis may be -1: it takes the devices that the others leave.

    Attributes:
      slice: groups of devices (TPU slices, or machines) that only a slower network joins; each holds a replica of what the
        other axes share out, and gradients are summed over them once a step. The outermost axis.
      data: replicas of the model; gradients are summed over them.
      fsdp: devices that share one copy of parameters and optimizer state; also splits the batch.
      context: devices that share one sequence.
      tensor: devices that share one matrix multiplication; wants the fastest links, so it is the innermost axis.
      xla_flags: flags for XLA_FLAGS, set by the command line before JAX starts.
      logical_axes: which mesh axes split which dims.
    """

    slice: int = 1
    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1
    xla_flags: tuple[str, ...] = ()
    logical_axes: LogicalAxes = dataclasses.field(default_factory=LogicalAxes)

    def shape(self, num_devices: int) -> tuple[int, ...]:
        """Sizes of the mesh axes, in the order of MESH_AXES, over `num_devices` devices.

        Raises:
          UserError: if the axes do not multiply to the number of devices.
        """
        sizes = [getattr(self, axis) for axis in MESH_AXES]
        fixed = 1
        for size in sizes:
            fixed *= 1 if size == -1 else size
        asked = " x ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
        if -1 in sizes:
            if num_devices % fixed:
                raise UserError(
                    f"MeshConfig {asked}: {num_devices} devices cannot be divided by {fixed}; "
                    f"bind axes whose product divides {num_devices}"
                )
            sizes[sizes.index(-1)] = num_devices // fixed
        elif fixed != num_devices:
            raise UserError(
                f"MeshConfig {asked} wants {fixed} devices and there are {num_devices}; "
                "bind one axis to -1 to take what is left"
            )
        return tuple(sizes)

    def validate(self) -> Iterator[Problem]:
        """Yields a problem for every size that is neither -1 nor positive, and for a second -1."""
        sizes = {axis: getattr(self, axis) for axis in MESH_AXES}
        for axis, size in sizes.items():
            if size != -1 and size < 1:
                yield Problem(axis, "a positive number of devices, or -1 for what is left")
        if self.slice == -1:
            yield Problem("slice", "the number of slices: the network is too slow for a share that is found by chance")
        left = [axis for axis, size in sizes.items() if size == -1]
        if len(left) > 1:
            yield Problem(left[1], f"-1 in one axis only; {left[0]} is -1 already")
        for flag in self.xla_flags:
            if not flag.startswith("--xla"):
                yield Problem("xla_flags", f"flags that start with --xla, not {flag!r}")


def as_tuple(axes: MeshAxes) -> tuple[str, ...]:
    """The mesh axes as a tuple, () for None."""
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, str) else tuple(axes)
