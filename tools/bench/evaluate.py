"""Benchmarks on CPU against lm-evaluation-harness's own Hugging Face back-end: whole processes, the same weights and rows.

    AYA_DATA=DIR python tools/bench/evaluate.py [gin/models/25m.gin] [--rounds 3] [--batch 16] [--sets XCOPA]

Real rows of XCOPA (5 languages, 200 each: log-probabilities) and of MGSM (German and Chinese, 40 each: answers of up to 256
tokens), a random model and a byte-level BPE of its vocabulary's size, trained on the same folder's corpus. Each side is a
process of its own from its start to its results, in turn; medians of wall time, with imports, reading tasks, loading
weights and (ours) compiled programs and the task index kept from the run before, which is not counted. The peer runs
`lm_eval.evaluate` over `HFLM` in float32 with its batch size; its rows come from the same folder. Scores of both are
compared at the end. Needs torch and transformers.
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
from collections.abc import Iterator
from pathlib import Path

from generate import save_random_weights
from train_step import read_model

ROOT = Path(__file__).resolve().parents[2]
SETS = {
    "XCOPA": (tuple(f"xcopa_{language}" for language in ("id", "it", "tr", "vi", "zh")), None),
    "MGSM": (("mgsm_direct_de", "mgsm_direct_zh"), 40),
}


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="gin/models/25m.gin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer", nargs=4, metavar=("WEIGHTS", "TASKS", "LIMIT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(*arguments.peer, arguments.batch, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        save_random_weights(arguments.model, str(weights))
        train_tokenizer(weights, read_model(arguments.model).vocab_size)
        for name in arguments.sets:
            tasks, limit = SETS[name]
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            for turn in range(arguments.rounds + 1):
                run_dir, out = Path(folder) / f"{name}-{turn}", Path(folder) / "theirs.json"
                ours = timed(our_command(weights, tasks, limit, run_dir))
                theirs = timed(
                    [
                        *(
                            sys.executable,
                            __file__,
                            "--batch",
                            str(arguments.batch),
                            "--threads",
                            str(arguments.threads),
                        ),
                        *("--peer", str(weights), ",".join(tasks), str(limit or 0), str(out)),
                    ]
                )
                if turn:  # the first fills caches of files and of compiled programs
                    times["ours"].append(ours)
                    times["theirs"].append(theirs)
            ours, theirs = (statistics.median(times[side]) for side in ("ours", "theirs"))
            summary = json.loads((run_dir / "evaluations" / "benchmarks.json").read_text(encoding="utf-8"))
            same = agreement(summary["reported_by_harness"], json.loads(out.read_text(encoding="utf-8")))
            print(
                f"{Path(arguments.model).stem}, {name}: ours {ours:.1f} s, HFLM (batch {arguments.batch}) {theirs:.1f} s, "
                f"ratio {theirs / ours:.2f}; {same}",
                flush=True,
            )


def train_tokenizer(folder: Path, size: int) -> None:
    """A byte-level BPE with a beginning and an end, on the text that AYA_DATA has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}), encoding="utf-8")


def corpus() -> Iterator[str]:
    """Some of the text of every language."""
    for file in sorted((Path(os.environ["AYA_DATA"]) / "corpus").glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in itertools.islice(lines, 300):
                yield json.loads(line)["text"]


def our_command(weights: Path, tasks: tuple[str, ...], limit: int | None, run_dir: Path) -> list[str]:
    """`aya evaluate` in a process of its own."""
    return [
        *(sys.executable, "-m", "aya_jax", "evaluate", str(ROOT / "gin/evaluate/benchmarks.gin")),
        *(f"--gin.MODEL_DIR={weights}", f"--gin.RUN_DIR={run_dir}", f"--gin.TASKS={tasks!r}"),
        *(f"--gin.HarnessConfig.limit={limit}", f"--gin.DATA_DIR={os.environ['AYA_DATA']}"),
    ]


def timed(command: list[str]) -> float:
    """Seconds of a process."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return time.perf_counter() - start


def run_peer(weights: str, tasks: str, limit: str, out: str, batch: int, threads: int) -> None:
    """The harness with its Hugging Face back-end, as its own command line runs it, with rows from our folder."""
    import torch

    torch.set_num_threads(threads)
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from aya_jax.evaluation.harness.local_data import reading_from

    with reading_from(os.environ["AYA_DATA"]):
        loaded = TaskManager().load(tasks.split(","))
        peer = HFLM(pretrained=weights, device="cpu", dtype="float32", batch_size=batch)
        found = lm_eval.evaluate(peer, loaded, limit=int(limit) or None, bootstrap_iters=0)
    Path(out).write_text(json.dumps(found["results"], default=str), encoding="utf-8")


def agreement(ours: dict, theirs: dict) -> str:
    """Whether the scores are the same."""
    pairs = [
        (ours[task][name], value)
        for task, values in theirs.items()
        for name, value in values.items()
        if isinstance(value, float)
    ]
    worst = max(abs(left - right) for left, right in pairs)
    return f"{len(pairs)} scores, the largest difference {worst:.4f}"


if __name__ == "__main__":
    main()
