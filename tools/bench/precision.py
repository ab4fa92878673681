"""Loss curves of number formats side by side: the same run in float32, bf16, and with int8 and fp8 products.

    python tools/bench/precision.py --store runs/quickstart/prepare [--steps 200] [--model gin/models/test.gin]

Each is `aya train` on the same batches from the same seed. Prints the training loss every so many steps and the held-out
bits per byte at the end. The store is any that `aya prepare` wrote for the shipped sample or a corpus.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FORMATS = {
    "float32": (),
    "bf16": ("PrecisionConfig.compute=bfloat16",),
    "int8": ("PrecisionConfig.compute=bfloat16", "PrecisionConfig.matmul=int8"),
    "fp8": ("PrecisionConfig.compute=bfloat16", "PrecisionConfig.matmul=fp8"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="token stores")
    parser.add_argument("--model", default="gin/models/test.gin")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=8, help="times printed")
    arguments = parser.parse_args()
    every = max(1, arguments.steps // arguments.rows)
    with tempfile.TemporaryDirectory() as scratch:
        runs = {name: train(arguments, every, Path(scratch) / name, bindings) for name, bindings in FORMATS.items()}
    print(f"{Path(arguments.model).stem}, {arguments.steps} steps: training loss")
    print(f"{'step':>8} " + " ".join(f"{name:>9}" for name in runs))
    for step in range(every, arguments.steps + 1, every):
        print(f"{step:8d} " + " ".join(f"{run['train'][step]:9.4f}" for run in runs.values()))
    print(f"{'held out':>8} " + " ".join(f"{run['bits']:9.4f}" for run in runs.values()) + "   bits per byte")


def train(arguments: argparse.Namespace, every: int, run_dir: Path, bindings: tuple[str, ...]) -> dict:
    """Trains once; the recorded losses by step, and the last validation."""
    values = {
        "RUN_DIR": run_dir,
        "STORE_DIR": Path(arguments.store).resolve(),
        "STEPS": arguments.steps,
        "TrackingConfig.every": every,
        "CheckpointConfig.every": arguments.steps,
    }
    flags = [f"--gin.{name}={value}" for name, value in values.items()] + [f"--gin.{each}" for each in bindings]
    files = ["gin/train/pretrain.gin", arguments.model, "gin/mixtures/text_and_code.gin"]
    subprocess.run([sys.executable, "-m", "aya_jax", "train", *files, *flags], check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    losses = {record["step"]: record["loss"] for record in records if record["kind"] == "train"}
    return {"train": losses, "bits": next(r["bits_per_byte"] for r in records[::-1] if r["kind"] == "validation")}


if __name__ == "__main__":
    main()
