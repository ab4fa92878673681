"""`aya merge` against mergekit-yaml: the same files of mergekit's, the same models, in turn.

    python tools/bench/merge.py [--gigabytes 1] [--rounds 3] [--dtypes bfloat16 float32] [--methods linear slerp ties]
    python tools/bench/merge.py --large        # memory of `aya merge` at 1 GB and at 8 GB of weights

Random models in Cohere's shape (with qk_norm, without which mergekit does not know it): a base, and two near it; linear and
SLERP merge a pair, TIES all three. Everything lies in a temporary folder (--scratch says where); each round writes anew,
after a plain copy of as many bytes. Prints for each, as medians: the seconds of the whole process, those without its imports,
the processor's of these (which say most where the machine does other things too), gigabytes of result per second beside the
copy's, and the most memory that the process had resident (pages of the files that it reads included); then the ratios, round by
round. mergekit is in the parity environment (`make test-parity`).
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
import time
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
from convert import copy
from turns import seconds

from aya_jax.interop.hugging_face_config import write_config
from aya_jax.interop.model_dir import expected_tensors
from aya_jax.interop.safetensors_writer import write_tensors
from aya_jax.interop.tensors import TensorInfo
from aya_jax.models.config import TransformerConfig

_MERGEKIT = """
import mergekit.merge, transformers
from mergekit.scripts.run_yaml import main
def run(config, target): main([config, target, "--quiet", "--no-copy-tokenizer"], standalone_mode=False)
"""
_OURS = """
import jax, jax.numpy
import aya_jax.merging.merge
from aya_jax.cli import main
def run(config, target): assert main(["merge", config, f"--gin.TARGET={target}"]) in (0, None)
"""
_REPORT = """
import json, re, sys, time
begin, busy = time.perf_counter(), time.process_time()
run(*sys.argv[1:])
seconds, busy = time.perf_counter() - begin, time.process_time() - busy
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps([seconds, busy, peak / 1024]), file=sys.stderr)
"""
_WORKERS = {"mergekit": _MERGEKIT + _REPORT, "aya merge": _OURS + _REPORT}
_PAIR = ("base", "one")
_TRIPLE = ("base", "one", "two")


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of each model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--methods", nargs="+", default=["linear", "slerp", "ties"])
    parser.add_argument("--scratch", default=None, help="a folder to work in")
    parser.add_argument("--large", action="store_true", help="memory at 1 GB and at 8 GB, of `aya merge` alone")
    arguments = parser.parse_args()
    for dtype in arguments.dtypes[: 1 if arguments.large else None]:
        for gigabytes in (1.0, 8.0) if arguments.large else (arguments.gigabytes,):
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                folder = Path(scratch)
                names = _TRIPLE if "ties" in arguments.methods else _PAIR
                size = write_models(folder, names, gigabytes, dtype)
                print(f"\n{size / 1e9:.2f} GB of {dtype} in each model")
                for method in arguments.methods:
                    workers = ["aya merge"] if arguments.large else list(_WORKERS)
                    measure(folder, method, dtype, size, workers, 1 if arguments.large else arguments.rounds)


def measure(folder: Path, method: str, dtype: str, size: int, workers: list[str], rounds: int) -> None:
    """Merges in turn, and prints."""
    config, target = folder / f"{method}.yml", folder / "merged"
    config.write_text(json.dumps(recipe(folder, method, dtype)))  # JSON is YAML
    found: dict[str, list[Sequence[float]]] = {name: [] for name in workers}
    copies = []
    for _ in range(rounds):
        for file in folder.glob("*/*.safetensors"):
            warm(file)
        copies.append(seconds(lambda: copy(folder / "base", target)))
        for name in workers:
            shutil.rmtree(target)
            found[name].append(merge(_WORKERS[name], config, target))
        shutil.rmtree(target)
    copied = statistics.median(copies)
    print(f"{method}: a copy {size / copied / 1e9:.2f} GB/s")
    for name, results in found.items():
        whole, work, busy, peak = (statistics.median(column) for column in zip(*results, strict=True))
        times = f"{whole:7.1f} s, {work:7.1f} s without imports, {busy:7.1f} s of processor"
        print(f"  {name:<10} {times}, {size / work / 1e9:5.2f} GB/s, {peak:6,.0f} MiB")
    if len(workers) == 2:
        theirs, ours = found.values()
        for title, at in (("whole", 0), ("without imports", 1), ("processor", 2), ("memory", 3)):
            ratios = [own[at] / other[at] for own, other in zip(ours, theirs, strict=True)]
            print(f"  ours / theirs, {title}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    sys.stdout.flush()


def warm(file: Path) -> None:
    """Reads it, so that its pages are in memory."""
    with open(file, "rb") as stream:
        while stream.read(1 << 24):
            pass


def recipe(folder: Path, method: str, dtype: str) -> dict[str, object]:
    """A file of mergekit's."""
    models: list[dict[str, object]] = [
        {"model": str(folder / name)} for name in (_TRIPLE if method == "ties" else _PAIR)
    ]
    if method != "slerp":
        for model in models[method == "ties" :]:
            model["parameters"] = {"weight": 0.5} | ({"density": 0.5} if method == "ties" else {})
    fields: dict[str, object] = {"merge_method": method, "models": models, "dtype": dtype}
    if method != "linear":
        fields["base_model"] = str(folder / "base")
    if method == "slerp":
        fields["parameters"] = {"t": 0.4}
    return fields


def merge(worker: str, config: Path, target: Path) -> Sequence[float]:
    """Seconds of a process, those without imports, the processor's of these, and its peak in MiB."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", worker, str(config), str(target)], env=environment, capture_output=True, text=True
    )
    whole = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{config}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    if not list(target.glob("*.safetensors")):
        raise SystemExit(f"{config}: no weights were written")
    return whole, *json.loads(done.stderr.splitlines()[-1])


def write_models(folder: Path, names: Sequence[str], gigabytes: float, dtype: str) -> int:
    """Models of random weights; the bytes of each."""
    width = 1024 if gigabytes < 4 else 2048
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    shape = {"vocab_size": 32_000, "embed_dim": width, "num_heads": 16, "num_kv_heads": 4, "mlp_dim": 4 * width}
    layer = 14.5 * width**2
    layers = max(1, round((gigabytes * 1e9 / kind.itemsize - 32_000 * width) / layer))
    config = TransformerConfig(**shape, num_layers=layers, head_dim=width // 16, qk_norm=True)
    entries = {name: TensorInfo(dims, kind) for name, dims in expected_tensors(config).items()}
    for number, name in enumerate(names):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(write_config(config, {}, dtype)))
        weights = _Weights(entries, number)
        write_tensors(folder / name, entries, weights.read, shard_bytes=5_000_000_000)
    return sum(info.nbytes for info in entries.values())


class _Weights:
    """Of a base (0), or of a model near it: a tenth as much is added."""

    def __init__(self, entries: dict[str, TensorInfo], number: int):
        self._entries, self._number = entries, number

    def read(self, name: str) -> np.ndarray:
        """A tensor."""
        info = self._entries[name]
        seed = list(name.encode())
        array = np.random.default_rng([*seed, 0]).standard_normal(info.shape, np.float32)
        if self._number:
            change = np.random.default_rng([*seed, self._number]).standard_normal(info.shape, np.float32)
            array += np.float32(0.1) * change
        return (np.float32(0.02) * array).astype(info.dtype)


if __name__ == "__main__":
    main()
