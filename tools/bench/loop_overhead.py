"""Measures what the training loop costs beside the device's step, and the host memory of training at two sizes of store.

    python tools/bench/loop_overhead.py [--model gin/models/test.gin] [--rounds 5] [--steps 40]

Overhead: `aya train` as it is (reading and packing batches, placing them, metrics, records, TensorBoard) against the
same compiled step called again and again on one batch that lies on the device. The two take turns, so that what else
happens on the machine meets both. Each sample is a few steps between two records; the figure is 1 - bare / loop of the
fastest samples (other work on the machine only ever adds), and of the medians. Compilation, checkpoints and validation are
no part of either.

Memory: the most that is held (VmHWM) by a process that trains from a store of `--tokens`, and by one that has ten times
as many.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import memory
import numpy as np

from aya_jax.config import Resolved, resolve
from aya_jax.data import store
from aya_jax.training.config import TrainConfig

EVERY = 5  # steps of a sample, and between records: metrics are fetched twice as often as by default
TOKEN_BYTES = np.array([1] * 256 + [0, 0], np.int32)  # the bytes, bos and eos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gin/models/test.gin")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--steps", type=int, default=40, help=f"of each run; a multiple of {EVERY}")
    parser.add_argument("--tokens", type=int, default=2_000_000, help="in the smaller store")
    parser.add_argument("--measure-memory", metavar="STORES", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.measure_memory:
            train_once(configure(arguments, Path(arguments.measure_memory), folder / "run"))
            print(memory.peak_kilobytes())
            return
        write_store(folder / "small", arguments.tokens)
        measure_overhead(arguments, folder)
        write_store(folder / "large", 10 * arguments.tokens)
        measure_memory(arguments, folder)


def write_store(folder: Path, tokens: int) -> None:
    """A store of random letters, in documents of about a thousand tokens."""
    directory = store.store_path(str(folder), "text_en", "train")
    shard = store.write_shard(directory, 0, _documents(tokens), token_bytes=TOKEN_BYTES)
    vocabulary = store.VocabularyInfo(digest="bytes", size=258, pad_id=257, bos_id=256, eos_id=257, spec="bytes")
    source = store.SourceInfo(description="random letters", digest="0")
    manifest = store.Manifest(
        task="text_en",
        split="train",
        language="en",
        domain="text",
        vocabulary=vocabulary,
        source=source,
        shards=(shard,),
    )
    store.write_manifest(directory, manifest, token_bytes=TOKEN_BYTES)


def _documents(tokens: int) -> Iterator[store.Document]:
    rng = np.random.default_rng(0)
    while tokens > 0:
        length = int(rng.integers(100, 2000))
        yield store.Document(np.concatenate([[256], rng.integers(97, 123, length), [257]]).astype(np.int32))
        tokens -= length + 2


def configure(arguments: argparse.Namespace, stores: Path, run_dir: Path) -> Resolved[TrainConfig]:
    """The run that `aya train gin/train/pretrain.gin MODEL` makes, without validation and checkpoints on the way."""
    values = {
        "RUN_DIR": run_dir,
        "STORE_DIR": stores,
        "STEPS": arguments.steps,
        "MIXTURE": "{'text_*': 1.0}",
        "CheckpointConfig.every": arguments.steps,
        "TrackingConfig.every": EVERY,
    }
    bindings = [f"{name}={value}" for name, value in values.items()]
    return resolve(TrainConfig, files=["gin/train/pretrain.gin", arguments.model], bindings=bindings)


def train_once(resolved: Resolved[TrainConfig]) -> list[float]:
    """Seconds of a step, for each sample of a run after its first."""
    from aya_jax.training import train

    with contextlib.redirect_stdout(io.StringIO()):
        train.run(resolved)
    lines = (Path(resolved.config.run_dir) / "metrics.jsonl").read_text().splitlines()
    times = [record["wall_time"] for record in map(json.loads, lines) if record["kind"] == "train"]
    return [(end - start) / EVERY for start, end in itertools.pairwise(times)]


class BareStep:
    """The run's compiled step, on one batch that lies on the device."""

    def __init__(self, resolved: Resolved[TrainConfig]):
        import jax

        from aya_jax.data.batches import BatchLoader
        from aya_jax.models.transformer import Transformer
        from aya_jax.parallel.mesh import make_mesh
        from aya_jax.training import train
        from aya_jax.training.optimizer import make_optimizer
        from aya_jax.training.placement import place
        from aya_jax.training.state import fresh_state, state_shardings

        config = resolved.config
        self._mesh = make_mesh(config.mesh)
        model, optimizer = Transformer(config.model, config.precision), make_optimizer(config.optimizer)
        shardings = state_shardings(self._mesh, model, optimizer)
        loader = BatchLoader(config.data, steps=config.steps)
        with jax.set_mesh(self._mesh):
            self._step = train.compile_step(config, model, optimizer, shardings, len(loader.task_names))
            self._batch = place(loader.batch(0), self._mesh, model.rules)
            key = jax.random.key(0)
            self._state = jax.jit(lambda k: fresh_state(model.init(k), optimizer), out_shardings=shardings)(key)
        self.seconds()

    def seconds(self) -> float:
        """Of a step, over one sample."""
        import jax

        with jax.set_mesh(self._mesh):
            start = time.perf_counter()
            for _ in range(EVERY):
                self._state, _ = self._step(self._state, self._batch)
            jax.block_until_ready(self._state)
        return (time.perf_counter() - start) / EVERY


def measure_overhead(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints the loop's share."""
    bare = BareStep(configure(arguments, folder / "small", folder / "bare"))
    train_once(configure(arguments, folder / "small", folder / "warm-up"))
    loops, bares = [], []
    for number in range(arguments.rounds):
        samples = train_once(configure(arguments, folder / "small", folder / f"loop-{number}"))
        loops += samples
        bares += [bare.seconds() for _ in samples]
    print(f"{arguments.model}, {len(loops)} samples of {EVERY} steps each, ms a step:")
    print("                  fastest    median")
    for name, samples in (("in the loop", loops), ("the step bare", bares)):
        print(f"  {name:<13} {1e3 * min(samples):9.2f} {1e3 * statistics.median(samples):9.2f}")
    shares = [1 - how(bares) / how(loops) for how in (min, statistics.median)]
    print(f"  {'overhead':<13} {shares[0]:9.2%} {shares[1]:9.2%}")


def measure_memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Prints the peak memory of training at two sizes."""
    options = ["--model", arguments.model, "--steps", str(arguments.steps)]
    for name, times in (("small", 1), ("large", 10)):
        command = [sys.executable, __file__, *options, "--measure-memory", str(folder / name)]
        kilobytes = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = sum(file.stat().st_size for file in (folder / name).rglob("*") if file.is_file())
        print(
            f"  store of {times * arguments.tokens:>11,} tokens ({size / 1e6:6.1f} MB): peak {kilobytes / 1024:6.0f} MB"
        )


if __name__ == "__main__":
    main()
