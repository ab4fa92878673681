"""Files that process 0 of a run reads and writes for all of its processes; each function is called by every one of them."""

from __future__ import annotations

import time
from pathlib import Path

import jax

from aya_jax.config.errors import UserError
from aya_jax.config.files import write_atomic
from aya_jax.parallel.distributed import SEEN_WITHIN, agree


def exists(file: Path) -> bool:
    """Whether process 0 sees it."""
    return agree("there" if jax.process_index() == 0 and file.exists() else None) is not None


def read_text(file: Path) -> str:
    """What process 0 reads."""
    return agree(file.read_text(encoding="utf-8") if jax.process_index() == 0 else None)


def write_text(file: Path, content: str) -> None:
    """Has process 0 write it; when this returns, every process sees it.

    Raises:
      UserError: it cannot be written, or is not seen.
    """
    if jax.process_index() == 0:
        write_atomic(file, content)
    await_file(file)


def await_file(file: Path, *, patience: float = SEEN_WITHIN) -> None:
    """Waits until this process sees what process 0 has made.

    Raises:
      UserError: it does not, for so many seconds.
    """
    agree(None)
    end = time.monotonic() + patience
    while not file.exists():
        if time.monotonic() > end:
            raise UserError(
                f"{file}: process {jax.process_index()} does not see what process 0 has written: put the run on a file "
                "system that all machines mount at the same place"
            )
        time.sleep(0.05)
