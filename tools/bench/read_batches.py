"""Measures reading packed batches from a local token store: tokens per second, and memory at two sizes of store.

    taskset -c 0 python tools/bench/read_batches.py

Without `--store` it writes stores of random documents to a temporary directory, one four times as large as the other.
Speed: `BatchLoader.batch` called directly, `from_step`, which reads ahead in threads, and a batch's windows read one by
one for comparison; in turn, several times in one run; the figures are medians. A CPU second is one of this
process, all its threads together: what counts where other processes share the core. Memory: the most that a process held which
reads batches from the small store (VmHWM), and one that reads as many from the
large one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import memory
import numpy as np

from aya_jax.data import store
from aya_jax.data.batches import BatchLoader
from aya_jax.data.config import DataConfig, MixtureConfig
from aya_jax.data.store import TokenStore

BOS, EOS, PAD, VOCABULARY_SIZE = 1, 2, 0, 65_000
SMALL = 1 << 25  # tokens: 64 MB
GROWTH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="directory of token stores; every task of it is read, by its tokens")
    parser.add_argument("--sequence-length", type=int, default=2048)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 512], help="rows in a batch; several are measured")
    parser.add_argument("--packing", choices=["windows", "documents"], default="windows")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--tokens", type=int, default=1 << 25, help="tokens read in each measurement")
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        _read_for_memory(arguments)
        return
    print(f"{len(os.sched_getaffinity(0))} core(s), sequence length {arguments.sequence_length}, {arguments.packing}")
    with tempfile.TemporaryDirectory() as scratch:
        directories = [arguments.store] if arguments.store else _synthetic(scratch)
        for batch in arguments.batch:
            _speed(_loader(directories[0], arguments, batch), arguments)
        for directory in directories:
            _memory(directory, arguments)


def _synthetic(scratch: str) -> list[str]:
    """A small and a large directory of stores: two tasks of random documents of 1 to 2,000 tokens."""
    directories = []
    for name, tokens in (("small", SMALL), ("large", GROWTH * SMALL)):
        directories.append(os.path.join(scratch, name))
        for task in ("text_a", "text_b"):
            _write(os.path.join(directories[-1], task, "train"), task, tokens // 2)
            _write(os.path.join(directories[-1], task, "validation"), task, 10_000)
    return directories


def _write(directory: str, task: str, tokens: int) -> None:
    token_bytes = np.ones(VOCABULARY_SIZE, np.int32)
    vocabulary = store.VocabularyInfo(
        digest="random", size=VOCABULARY_SIZE, pad_id=PAD, bos_id=BOS, eos_id=EOS, spec="bytes"
    )
    manifest = store.Manifest(
        task=task,
        split=os.path.basename(directory),
        language="en",
        domain="text",
        vocabulary=vocabulary,
        source=store.SourceInfo(description="random tokens", digest=""),
        shards=(store.write_shard(directory, 0, _documents(tokens), token_bytes=token_bytes),),
    )
    store.write_manifest(directory, manifest, token_bytes=token_bytes)


def _documents(tokens: int) -> Iterator[store.Document]:
    random = np.random.Generator(np.random.PCG64(0))
    while tokens > 0:
        ids = random.integers(3, VOCABULARY_SIZE, random.integers(3, 2000), dtype=np.int32)
        ids[0], ids[-1] = BOS, EOS
        tokens -= len(ids)
        yield store.Document(ids)


def _loader(directory: str, arguments: argparse.Namespace, batch: int) -> BatchLoader:
    config = DataConfig(
        store_dir=directory,
        mixture=MixtureConfig(rates=dict.fromkeys(store.names(directory), 1.0)),
        sequence_length=arguments.sequence_length,
        global_batch=batch,
        packing=arguments.packing,
    )
    return BatchLoader(config, steps=1 << 20)


def _speed(loader: BatchLoader, arguments: argparse.Namespace) -> None:
    steps = max(1, arguments.tokens // (loader.config.global_batch * arguments.sequence_length))
    counter = itertools.count()
    alone = 2000
    ways: dict[str, tuple[Callable[[], None], int]] = {
        "batch(i)": (lambda: _direct(loader, counter, steps), steps * loader.config.global_batch),
        "from_step(i)": (lambda: _streamed(loader, counter, steps), steps * loader.config.global_batch),
        "windows one by one": (lambda: _one_by_one(loader.stores[0], arguments.sequence_length, alone), alone),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    loader.batch(0)
    for _ in range(arguments.rounds):
        for name, (read, rows) in ways.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            read()
            seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
            tokens = rows * arguments.sequence_length / 1e6
            rates[name].append((tokens / seconds, tokens / cpu_seconds))
    for name, values in rates.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"batch {loader.config.global_batch:4}  {name:18}  {wall:5.1f} M tokens/s, {cpu:5.1f} M per CPU second")


def _direct(loader: BatchLoader, counter: Iterator[int], steps: int) -> None:
    for _ in range(steps):
        loader.batch(next(counter))


def _streamed(loader: BatchLoader, counter: Iterator[int], steps: int) -> None:
    with loader.from_step(next(counter)) as batches:
        for _ in range(steps):
            next(batches)


def _one_by_one(opened: TokenStore, length: int, windows: int) -> None:
    """The reads alone, each waited for before the next."""
    random = np.random.Generator(np.random.PCG64(1))
    for start in random.integers(0, opened.num_tokens - length - 1, windows):
        opened.read_windows(np.array([start]), length + 1)


def _memory(directory: str, arguments: argparse.Namespace) -> None:
    command = [sys.executable, __file__, "--measure-memory", "--store", directory, "--packing", arguments.packing]
    sizes = ["--sequence-length", str(arguments.sequence_length), "--batch", str(arguments.batch[0])]
    answer = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True).stdout
    before, peak = map(int, answer.split())
    tokens = sum(
        TokenStore.open(store.store_path(directory, name, "train")).num_tokens for name in store.names(directory)
    )
    reading = f"{(peak - before) / 1024:.0f} MB of it to read"
    print(f"store of {tokens / 1e6:6.1f} M tokens: peak memory {peak / 1024:.0f} MB, {reading}")


def _read_for_memory(arguments: argparse.Namespace) -> None:
    before = memory.peak_kilobytes()
    loader = _loader(arguments.store, arguments, arguments.batch[0])
    _streamed(loader, itertools.count(), 512)
    print(before, memory.peak_kilobytes())


if __name__ == "__main__":
    main()
