"""Measures `aya prepare`: speed against the tokenizers library alone, and memory at two sizes of corpus.

    AYA_DATA=/data/corpora python tools/bench/prepare.py --vocabulary runs/tokenizer/tokenizer.json

Speed: the same text, raw (`Tokenizer.encode_batch_fast` on every core, texts in memory) and prepared (from
gzipped JSONL to token stores of both splits), in turn, several times in one run; the figure is the ratio of medians.
TensorFlow's import and its first dataset are paid once per process and are reported apart.

Memory: the most that is held (VmHWM) by a process that prepares one copy of the corpus, and by one that prepares
`--copies` of them.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True, help="a tokenizer.json")
    parser.add_argument("--copies", type=int, default=4, help="copies of the corpus in the larger memory run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--measure-memory", nargs=2, metavar=("DATA", "STORE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        data, directory = arguments.measure_memory
        _prepare(Path(data), Path(directory), arguments.vocabulary)
        print(memory.peak_kilobytes())
        return
    if "AYA_DATA" not in os.environ:
        parser.error("set AYA_DATA to a corpus (docs/prepare.md has the layout)")
    with tempfile.TemporaryDirectory() as scratch:
        texts = _texts(Path(os.environ["AYA_DATA"]))
        _speed(texts, Path(scratch), arguments.vocabulary, arguments.rounds)
        _memory(texts, Path(scratch), arguments.vocabulary, arguments.copies)


def _texts(corpus: Path) -> list[str]:
    """Every document of the corpus, language by language."""
    texts = []
    for path in sorted(corpus.glob("corpus/*.jsonl.gz")):
        with gzip.open(path) as lines:
            texts += [json.loads(line)["text"] for line in lines]
    return texts


def _write(texts: list[str], directory: Path, copies: int) -> Path:
    """The texts as one task, `copies` times; each copy is a file."""
    folder = directory / "code" / "web_code"
    folder.mkdir(parents=True)
    for copy in range(copies):
        with gzip.open(folder / f"{copy:04d}.jsonl.gz", "wt", compresslevel=6) as file:
            file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    return directory


def _prepare(data: Path, directory: Path, vocabulary: str) -> None:
    from aya_jax.data import prepare
    from aya_jax.data.prepare_config import PrepareConfig

    prepare.prepare(
        PrepareConfig(store_dir=str(directory), data_dir=str(data), vocabulary=vocabulary, tasks=("code_web",))
    )


def _speed(texts: list[str], scratch: Path, vocabulary: str, rounds: int) -> None:
    from tokenizers import Tokenizer

    size = sum(len(text.encode()) for text in texts) / 1e6
    data = _write(texts, scratch / "speed", 1)
    small = _write(texts[:5], scratch / "small", 1)
    start = time.perf_counter()
    from aya_jax.data import seqio_source  # noqa: F401

    imported = time.perf_counter() - start
    start = time.perf_counter()
    _prepare(small, scratch / "warm", vocabulary)
    warm = time.perf_counter() - start
    tokenizer = Tokenizer.from_file(vocabulary)
    numbers = itertools.count()

    def raw() -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        for first in range(0, len(texts), 1000):
            tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)

    def prepared() -> None:
        _prepare(data, scratch / f"store{next(numbers)}", vocabulary)

    raw_seconds, prepare_seconds = [], []
    for _ in range(rounds):
        raw_seconds.append(_seconds(raw))
        prepare_seconds.append(_seconds(prepared))
    raw_rate, prepare_rate = (size / statistics.median(seconds) for seconds in (raw_seconds, prepare_seconds))
    print(f"text                  {size:8.1f} MB, {len(texts):,} documents, {os.cpu_count()} cores")
    print(
        f"TensorFlow and SeqIO  {imported:8.1f} s to import, {warm:.1f} s for the first five documents (once a process)"
    )
    print(f"tokenizers alone      {raw_rate:8.2f} MB/s   (median of {rounds})")
    print(f"aya prepare           {prepare_rate:8.2f} MB/s   (median of {rounds})")
    print(f"ratio                 {prepare_rate / raw_rate:8.2f}")


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _memory(texts: list[str], scratch: Path, vocabulary: str, copies: int) -> None:
    for count in (1, copies):
        data = _write(texts, scratch / f"memory{count}", count)
        command = [sys.executable, __file__, "--vocabulary", vocabulary]
        command += ["--measure-memory", str(data), str(scratch / f"memory_store{count}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        size = count * sum(len(text.encode()) for text in texts) / 1e6
        print(f"peak memory           {int(done.stdout.split()[-1]) / 1024:8.0f} MB for {size:.0f} MB of text")


if __name__ == "__main__":
    main()
