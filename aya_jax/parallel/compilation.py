"""Compiled programs, kept between runs."""

from __future__ import annotations

from pathlib import Path

import jax


def use_compilation_cache(folder: str | None) -> None:
    """Keeps compiled programs between runs, small ones too: a run that starts again starts without compiling."""
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
