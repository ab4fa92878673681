"""Small models to merge: Hugging Face directories that transformers wrote, with noise on their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from aya_jax.cli import main
from tools.make_golden_logits import HUGGING_FACE

WEIGHTS = "model.safetensors"


def variant(folder: Path, seed: int, of: str | Path = "cohere", dtype: type = np.float32) -> Path:
    """A model of the same shape as another, whose weights differ by noise; returns its folder."""
    source = HUGGING_FACE / of if isinstance(of, str) else of
    shutil.copytree(source, folder)
    rng = np.random.default_rng(seed)
    tensors = {
        name: (array.astype(np.float32) + rng.normal(0, 0.1, array.shape)).astype(dtype)
        for name, array in load_file(source / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a Hugging Face directory, by the safetensors library alone."""
    return {
        name: array for file in sorted(folder.glob("model*.safetensors")) for name, array in load_file(file).items()
    }


def damage(folder: Path, name: str, index: tuple[int, ...], value: float) -> None:
    """Puts a value at one place of a tensor."""
    changed = load_file(folder / WEIGHTS)
    changed[name][index] = value
    save_file(changed, folder / WEIGHTS, metadata={"format": "pt"})


def edit(file: Path, **fields: object) -> None:
    """Sets fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def merge(file: str | Path, target: Path, *models: Path, **bindings: object) -> int:
    """`aya merge FILE` of these models; its exit code. A binding in capitals is a macro, another a field of MergeConfig."""
    flags = [f"--gin.TARGET={target}"]
    if models:
        flags.append(f"--gin.MODELS={tuple(map(str, models))!r}")
    for name, value in bindings.items():
        shown = value if isinstance(value, Path) else repr(value)
        flags.append(f"--gin.{name if name.isupper() else f'MergeConfig.{name}'}={shown}")
    return main(["merge", str(file), *flags])
