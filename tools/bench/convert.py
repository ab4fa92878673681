"""Conversion both ways against copying the same bytes, and the memory that it takes.

    python tools/bench/convert.py [--layers 24] [--width 1024] [--rounds 3]

Random bfloat16 weights of a Cohere model, as safetensors. Each round copies them (with an fsync), converts them to ours and
back, all on one disk; each target is removed before, and as many bytes are written and removed, so that none pays for pages
that a virtual machine has yet to get from its host. Prints medians, bytes per second as a share of the copy's, and the largest
resident memory of each conversion, a process of its own, above that of `aya --version` with JAX imported.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from turns import seconds

from aya_jax.interop.hugging_face_config import write_config
from aya_jax.interop.model_dir import expected_tensors
from aya_jax.interop.safetensors_writer import write_tensors
from aya_jax.interop.tensors import TensorInfo
from aya_jax.models.config import TransformerConfig

_PEAK = """
import re, sys
import jax, orbax.checkpoint, tensorstore
from aya_jax.cli import main
code = main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        size = write_model(folder / "hf", arguments.layers, arguments.width)
        base = peak(["--version"])
        times: dict[str, list[float]] = {"copy": [], "to ours": [], "back": []}
        memory = {}
        for _ in range(arguments.rounds):
            clear(folder / "copy", 2 * size)
            times["copy"].append(seconds(lambda: copy(folder / "hf", folder / "copy")))
            for name, source, target in (("to ours", "hf", "ours"), ("back", "ours", "back")):
                clear(folder / target, 2 * size)
                command = ["convert", f"--gin.SOURCE={folder / source}", f"--gin.TARGET={folder / target}"]
                begin = seconds(
                    lambda: peak(["--version"])
                )  # the start of a process and its imports, which are not counted
                times[name].append(seconds(lambda c=command, n=name: memory.update({n: peak(c)})) - begin)
        print(f"{size / 1e9:.2f} GB of bfloat16")
        copied = statistics.median(times["copy"])
        for name, found in times.items():
            median = statistics.median(found)
            extra = f", {memory[name] - base} MiB above a process that does nothing" if name in memory else ""
            print(f"  {name:<8} {size / median / 1e6:8,.0f} MB/s   {copied / median:.2f} x copy{extra}")


def write_model(directory: Path, layers: int, width: int) -> int:
    """A Hugging Face directory of random weights; its bytes."""
    config = TransformerConfig(
        vocab_size=32_000,
        embed_dim=width,
        num_layers=layers,
        num_heads=16,
        num_kv_heads=4,
        head_dim=width // 16,
        mlp_dim=4 * width,
    )
    rng, dtype = np.random.default_rng(0), np.dtype(ml_dtypes.bfloat16)
    entries = {name: TensorInfo(shape, dtype) for name, shape in expected_tensors(config).items()}
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(write_config(config, {}, "bfloat16")))
    write_tensors(
        directory,
        entries,
        lambda name: rng.standard_normal(entries[name].shape, np.float32).astype(dtype),
        shard_bytes=500_000_000,
    )
    return sum(info.nbytes for info in entries.values())


def clear(target: Path, size: int) -> None:
    """Removes a target, and leaves that many bytes of free memory that have been used before."""
    shutil.rmtree(target, ignore_errors=True)
    scratch, block = target.with_name("scratch"), bytes(1 << 24)
    with open(scratch, "wb") as stream:
        for _ in range(-(-size // len(block))):
            stream.write(block)
    scratch.unlink()


def copy(source: Path, target: Path) -> None:
    """A plain copy that is on the disk when it ends."""
    shutil.copytree(source, target)
    for file in target.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())


def peak(words: list[str]) -> int:
    """MiB that `aya WORDS` had resident at the most."""
    done = subprocess.run([sys.executable, "-c", _PEAK, *words], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1])


if __name__ == "__main__":
    main()
