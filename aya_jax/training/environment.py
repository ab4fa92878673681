"""What a run's numbers may depend on beside its configuration, and what its devices can do."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import aya_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorstore", "numpy")

# Dense bf16 peaks in FLOP/s of one JAX device, by a piece of `device_kind` in lower case; the first match counts.
# Sources: NVIDIA H100, H200 and A100 datasheets (without sparsity: half of the figure printed with it); Google Cloud TPU
# documentation, one page per generation. v4 and v5p have one device per chip (two cores run as one).
PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    ("h200 nvl", 835.5e12),
    ("h100 nvl", 835.5e12),
    ("h100 pcie", 756.5e12),
    ("h200", 989.4e12),
    ("h100", 989.4e12),
    ("a100", 312e12),
    ("v6e", 918e12),
    ("v6 lite", 918e12),
    ("v5p", 459e12),
    ("v5e", 197e12),
    ("v5 lite", 197e12),
    ("v5", 459e12),
    ("v4", 275e12),
)
MFU_FORMULA = (
    "MFU = tokens/s x FLOPs per token (6 N + causal attention, no recomputation) / (devices x dense bf16 peak)"
)


def peak_flops(device_kind: str) -> float | None:
    """The dense bf16 peak of a device in FLOP/s, or None for one that is not in the table (a CPU)."""
    kind = device_kind.lower()
    return next((peak for piece, peak in PEAK_FLOPS if piece in kind), None)


def describe() -> dict[str, Any]:
    """Versions, the code's commit, and the devices; JSON values."""
    devices = jax.devices()
    return {
        "aya_jax": aya_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }


def _commit() -> str | None:
    """The commit of the checkout that this code runs from, with "+changes" where files differ; None outside one."""

    def git(*arguments: str) -> str:
        folder = Path(aya_jax.__file__).parent
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "__init__.py")  # an installed copy may lie inside another checkout
        commit = git("rev-parse", "HEAD")
        return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None
