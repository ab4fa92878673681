"""Arrays over rows that are computed part by part and kept: what was there when a run was stopped is not computed again."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.config.files import write_atomic
from aya_jax.parallel.config import LogicalAxes


@dataclass(frozen=True)
class Workplace:
    """What all steps of a selection are given.

    Attributes:
      folder: where what they compute is kept.
      mesh, rules: that models run on.
      say: is told what the user should know.
    """

    folder: Path
    mesh: Mesh
    rules: LogicalAxes
    say: Callable[[str], None]


def kept_parts(
    folder: Path, rows: int, size: int, compute: Callable[[slice], np.ndarray], advance: Callable[[int], None]
) -> np.ndarray:
    """The array of all rows, from the parts that are in `folder` and those that are computed now.

    Args:
      folder: of these rows and this way of computing alone: its name holds their digest.
      rows: N.
      size: rows of a part.
      compute: float32 [n, ...] of some rows.
      advance: told of how many more rows there are values.

    Returns:
      float32 [N, ...].

    Raises:
      UserError: a part is damaged or of another size, or the disk cannot be written; what `compute` raises.
    """
    parts = []
    for start in range(0, rows, size):
        some = slice(start, min(start + size, rows))
        file = folder / f"{start // size:06d}.npy"
        if file.is_file():
            part = _read(file)
        else:
            part = np.asarray(compute(some), np.float32)
            content = io.BytesIO()
            np.save(content, part)
            write_atomic(file, content.getvalue())
        if len(part) != some.stop - some.start or (parts and part.shape[1:] != parts[0].shape[1:]):
            raise UserError(
                f"{file}: {part.shape} values, which are not those of {some.stop - some.start} rows; remove it"
            )
        parts.append(part)
        advance(len(part))
    return np.concatenate(parts)


def _read(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: damaged ({error}); remove it, and it is computed again") from error
