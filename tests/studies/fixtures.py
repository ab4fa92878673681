"""Makes the directory of a finished study as the verbs leave it, with losses from closed forms."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LANGUAGES = ("ar cs de el en es fa fr he hi id it ja ko nl pl pt ro ru tr uk vi zh").split()  # noqa: SIM905
KINDS = {
    "code_web": "web_code",
    "code_markup": "markup",
    "code_quality": "quality_code",
    "code_adjacent": "code_adjacent",
}
STEPS, BATCH, LENGTH = 200, 8, 256


def tags(task: str) -> tuple[str, str]:
    """(language, domain) of a task."""
    return ("code", KINDS[task]) if task in KINDS else (task.removeprefix("text_"), "text")


def bits_per_byte(task: str, share: float, seed: int) -> float:
    """A plausible closed form: text gets a little worse with code, code much better."""
    noise = 0.004 * math.sin(17 * seed + len(task) + 100 * share + ord(task[-1]))
    if task in KINDS:
        return 2.2 - 0.9 * (1 - math.exp(-6 * share)) + 0.1 * list(KINDS).index(task) + noise
    index = LANGUAGES.index(task.removeprefix("text_"))
    return 1.5 + 0.03 * index + 0.12 * share**2 - 0.02 * share * (index % 3) + noise


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_jsonl(path: Path, records: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_store(store_dir: Path, tasks: Sequence[str]) -> None:
    """Manifests of prepared tasks: 40,000 tokens each."""
    for task in tasks:
        language, domain = tags(task)
        for split, tokens in (("train", 40_000), ("validation", 4_000)):
            write_json(
                store_dir / task / split / "manifest.json",
                {
                    "format_version": 1,
                    "task": task,
                    "split": split,
                    "language": language,
                    "domain": domain,
                    "tokens": tokens,
                },
            )


def write_run(directory: Path, store_dir: Path, share: float, seed: int, tasks: Sequence[str]) -> None:
    """A training run of the given share of code."""
    rates = {"text_*": 1 - share} | ({"code_*": share} if share else {})
    write_json(
        directory / "config.json",
        {
            "run_dir": str(directory),
            "steps": STEPS,
            "seed": seed,
            "data": {
                "store_dir": str(store_dir),
                "mixture": {"rates": rates, "temperature": 1.0, "schedule": []},
                "sequence_length": LENGTH,
                "global_batch": BATCH,
                "seed": seed,
            },
            "optimizer": {"name": "adamw", "weight_decay": 0.1},
            "schedule": {"kind": "cosine", "peak": 1e-3, "final": 1e-4, "warmup_steps": 20},
            "model": {"embed_dim": 64, "num_layers": 2},
        },
    )
    write_json(
        directory / "environment.json",
        {
            "python": "3.11.13",
            "jax": "0.10.2",
            "git_commit": "0123456789abcdef",
            "devices": ["cpu:0"],
            "host": "workstation",
        },
    )
    records = []
    rng = np.random.default_rng(seed)
    for step in range(10, STEPS + 1, 10):
        loss = 4.5 + 3.5 * math.exp(-step / 60) - 0.6 * share + 0.03 * rng.standard_normal()
        head = {"step": step, "tokens": step * BATCH * LENGTH, "wall_time": 1_790_000_000 + 0.3 * step}
        records.append(
            head | {"kind": "train", "loss": loss, "perplexity": math.exp(loss), "tokens_per_second": 6800.0}
        )
        if step % 50 == 0:
            records.append(head | {"kind": "validation"} | validation(tasks, share, seed, 1.5 * math.exp(-step / 60)))
    write_jsonl(directory / "metrics.jsonl", records)


def validation(tasks: Sequence[str], share: float, seed: int, extra: float) -> dict[str, float]:
    """The metrics of a validation record: `extra` bits per byte above the final ones."""
    values: dict[str, float] = {}
    for task in tasks:
        bits = bits_per_byte(task, share, seed) + extra
        values |= {f"validation/{task}/bits_per_byte": bits, f"validation/{task}/loss": 2.4 * bits}
        values |= {f"validation/{task}/tokens": 4000, f"validation/{task}/bytes": 12_000}
    mean = float(np.mean([values[f"validation/{task}/bits_per_byte"] for task in tasks]))
    return values | {"bits_per_byte": mean, "loss": 2.4 * mean}


def write_evaluation(directory: Path, share: float, seed: int, tasks: Sequence[str], documents: int = 30) -> None:
    """`held_out.json` and its samples; each task's bits per byte are those of its samples, exactly."""
    summary, samples = {}, []
    for task in tasks:
        language, domain = tags(task)
        rng = np.random.default_rng(sum(map(ord, task)))  # the same documents for every model
        sizes = rng.integers(200, 600, documents)
        difficulty = 1 + 0.15 * rng.standard_normal(documents)
        nll = sizes * math.log(2) * bits_per_byte(task, share, seed) * difficulty
        nll *= 1 + 0.01 * np.random.default_rng(seed + int(1000 * share)).standard_normal(documents)
        bits = float(nll.sum() / sizes.sum() / math.log(2))
        tokens = int(sizes.sum() // 3)
        summary[task] = {"language": language, "domain": domain, "tokens": tokens, "bytes": int(sizes.sum())}
        summary[task] |= {
            "loss": float(nll.sum() / tokens),
            "perplexity": math.exp(nll.sum() / tokens),
            "bits_per_byte": bits,
        }
        samples += [
            {"id": f"{task}/{i}", "task": task, "language": language, "domain": domain}
            | {"tokens": int(size // 3), "bytes": int(size), "nll": float(value)}
            for i, (size, value) in enumerate(zip(sizes, nll, strict=True))
        ]
    held_out = {
        "name": "held_out",
        "checkpoint_step": STEPS,
        "weights_digest": "abc",
        "tasks": summary,
        "languages": {},
        "domains": {},
    }
    write_json(directory / "evaluations" / "held_out.json", held_out)
    write_jsonl(directory / "evaluations" / "held_out.samples.jsonl", samples)


def write_study(
    directory: Path,
    shares: Sequence[int] = (0, 25, 50),
    seeds: Sequence[int] = (1,),
    failed: Sequence[str] = (),
    kinds: bool = True,
) -> list[str]:
    """A whole study of shares of code (percent) and seeds; returns the task names. `failed` names jobs that failed."""
    tasks = [f"text_{language}" for language in LANGUAGES] + (list(KINDS) if kinds else [])
    store = directory / "prepare"
    write_store(store, tasks)
    jobs = [job("prepare", {}, "prepare", [])]
    for share in shares:
        for seed in seeds:
            coordinates = {"code": f"{share:02d}", "seed": str(seed)}
            train, judge = job("pretrain", coordinates, "train", ["prepare"]), None
            judge = job("evaluate", coordinates, "evaluate", [train["key"]])
            jobs += [train, judge]
            label = train["label"]
            bad = train["key"] in failed
            write_state(directory, "pretrain", label, "failed" if bad else "done")
            write_state(directory, "evaluate", label, "blocked" if bad else "done")
            if bad:
                log = directory / "logs" / "pretrain" / f"{label}.log"
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text("starting\nOutOfMemory: <the device> is full\n")
                continue
            write_run(directory / "pretrain" / label, store, share / 100, seed, tasks)
            write_evaluation(directory / "evaluate" / label, share / 100, seed, tasks)
    write_state(directory, "prepare", "", "done")
    write_json(
        directory / "study.json",
        {"format_version": 1, "title": "Code in pre-training", "jobs": sorted(jobs, key=order)},
    )
    return tasks


def order(entry: dict) -> int:
    return ["prepare", "pretrain", "evaluate"].index(entry["stage"])


def job(stage: str, coordinates: dict[str, str], verb: str, needs: list[str]) -> dict:
    label = "-".join(f"{axis}_{value}" for axis, value in coordinates.items())
    key = f"{stage}/{label}" if label else stage
    return {
        "key": key, "stage": stage, "label": label, "coordinates": coordinates, "verb": verb, "directory": key,
        "needs": needs, "command": f"aya {verb} train/pretrain.gin --gin.STEPS={STEPS}",
    }  # fmt: skip


def write_state(directory: Path, stage: str, label: str, status: str) -> None:
    write_json(
        directory / "state" / stage / f"{label or stage}.json",
        {
            "status": status, "fingerprint": "f", "started": 1_790_000_000.0, "finished": 1_790_000_062.0,
            "log": f"logs/{stage}/{label or stage}.log", "exit_code": 1 if status == "failed" else 0,
            "command": f"aya train train/pretrain.gin --gin.RUN_DIR='{stage}'",
            "reason": "needs x" if status == "blocked" else "",
        },
    )  # fmt: skip
