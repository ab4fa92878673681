"""Tuning and preference training on CPU against TRL's trainers: same random weights, rows, tokenizer, threads, float32.

    python tools/bench/tuning.py --data DIR [gin/models/test.gin] [--rounds 3] [--threads 2]

`DIR` holds instruct/gsm8k_train.jsonl.gz and preference/gsm8k_solutions.jsonl.gz. The tokenizer is trained on the shipped
sample. TRL pads each batch of examples to its longest, with a loss on completions only; ours packs about as many into rows, in
two parts, and, to show what packing gives, pads one to a row. References of DPO are computed before, by both. Each has a
process of its own, in turn. Prints tokens (no padding) per second and the peak of memory. Needs torch, transformers and trl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train_step import cohere_config, read_model
from turns import alternate, serve

LENGTH = 1024  # of a row; an example has at most half of it
EXAMPLES = 16  # or pairs
ROWS = {"sft": 4, "dpo": 8}  # that hold about as many
MOST = 200  # rows of the files
STEPS = 6  # in a measured call
RATE = 1e-4
ROOT = Path(__file__).parents[2]


def main() -> None:
    """Measures both kinds of training for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["gin/models/test.gin"])
    parser.add_argument("--data", default=os.environ.get("AYA_DATA"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(WORKERS, arguments.worker, arguments.models[0], arguments.folder, threads=arguments.threads, warm_up=1)
        return
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(Path(folder), model, Path(arguments.data))
            command = [__file__, model, "--threads", str(arguments.threads), "--folder", folder, "--worker"]
            for kind, workers in KINDS.items():
                notes: dict[str, dict[str, Any]] = {}
                times = alternate(command, workers, arguments.rounds, notes)
                speeds = {n: notes[n]["about"]["tokens"] / statistics.median(times[n]) for n in workers}
                report(Path(model).stem, kind, workers, speeds, notes)


def report(model: str, kind: str, workers: tuple[str, ...], speeds: dict[str, float], notes: dict[str, Any]) -> None:
    """Prints what one kind of training gave."""
    for name in workers:
        about = notes[name]["about"]
        print(
            f"{model} {kind}: {name}: {speeds[name]:,.0f} tokens/s, peak {notes[name]['peak_mib']:,.0f} MiB, "
            f"{about['filled']:.0%} of the positions filled ({about['what']})"
        )
    packed, padded, theirs = (speeds[name] for name in workers)
    print(f"{model} {kind}: ratio to TRL {packed / theirs:.2f}, packing over padding {packed / padded:.2f}", flush=True)


def write_inputs(folder: Path, model: str, data: Path) -> None:
    """Random weights, a tokenizer with a chat template, and the rows; stores for ours."""
    import torch
    import transformers

    from aya_jax import cli
    from aya_jax.data import prepare
    from aya_jax.data.prepare_config import PrepareConfig, TaskConfig

    (folder / "weights").mkdir()
    size = read_model(model).vocab_size
    options = [
        f"--gin.RUN_DIR={folder / 'tokenizer'}",
        f"--gin.VOCABULARY_SIZE={size}",
        "--gin.DATA_DIR=sample",
    ]
    if cli.main(["tokenizer", str(ROOT / "gin/tokenizer/bpe.gin"), *options]):
        raise SystemExit("the tokenizer could not be trained")
    torch.manual_seed(0)
    transformers.CohereForCausalLM(cohere_config(read_model(model))).save_pretrained(folder / "weights")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(folder / "tokenizer" / name, folder / "weights" / name)
    described = []
    for task, form, file in (("sft", "chat", SPOKEN), ("dpo", "preference", PAIRS)):
        with gzip.open(data / file, "rt", encoding="utf-8") as lines:
            (folder / f"{task}.jsonl").write_text("".join(list(lines)[:MOST]), encoding="utf-8")
        described.append(TaskConfig(name=task, language="en", form=form, files=(str(folder / f"{task}.jsonl"),)))
    prepare.prepare(
        PrepareConfig(
            store_dir=str(folder / "stores"),
            data_dir="sample",
            vocabulary=str(folder / "weights"),
            tasks=(),
            extra_tasks=tuple(described),
            validation_permille=1,
        )
    )


SPOKEN, PAIRS = "instruct/gsm8k_train.jsonl.gz", "preference/gsm8k_solutions.jsonl.gz"


def ours(kind: str, packed: bool) -> Callable[..., tuple[Callable[[], object], Any]]:
    """Steps of `aya train` over its own batches, reading included."""

    def make(model: str, folder: str, threads: int) -> tuple[Callable[[], object], Any]:
        import jax
        from rich.console import Console

        from aya_jax.config import resolve
        from aya_jax.data.batches import BatchLoader
        from aya_jax.interop.model_dir import find_model, load_params
        from aya_jax.parallel.mesh import make_mesh
        from aya_jax.training.config import TrainConfig
        from aya_jax.training.document_numbers import attach_numbers
        from aya_jax.training.objective import make_model
        from aya_jax.training.objective_validation import ObjectiveValidator
        from aya_jax.training.optimizer import make_optimizer
        from aya_jax.training.placement import place
        from aya_jax.training.state import abstract_params, make_state, state_shardings
        from aya_jax.training.train import compile_step, make_validator

        # Padded, an example or a pair has a row of its own; as many of them as TRL takes.
        rows, length = (ROWS[kind], LENGTH) if packed else (EXAMPLES, LENGTH // 2 if kind == "sft" else LENGTH)
        bindings = {
            "RUN_DIR": "none",
            "STORE_DIR": f"{folder}/stores",
            "MODEL_DIR": f"{folder}/weights",
            "STEPS": 10_000,
        }
        bindings |= {
            "MIXTURE": {kind: 1.0},
            "GLOBAL_BATCH": rows,
            "SEQUENCE_LENGTH": length,
            "LEARNING_RATE": RATE,
            "TrainConfig.accumulation": 2,
        }
        config = resolve(
            TrainConfig,
            files=[ROOT / "gin" / "train" / f"{kind}.gin", model],
            bindings=[f"{name}={value!r}" for name, value in bindings.items()],
            search_paths=[ROOT, ROOT / "gin"],
        ).config
        if not packed:
            _one_to_a_row()
        mesh, network, optimizer = make_mesh(config.mesh), make_model(config), make_optimizer(config.optimizer)
        loader = BatchLoader(config.data, steps=config.steps)
        shardings = state_shardings(mesh, network, optimizer)
        with jax.set_mesh(mesh):
            validator = make_validator(config, network, mesh, loader)
            if isinstance(validator, ObjectiveValidator):
                attach_numbers(config, network, mesh, loader, validator, Console(quiet=True))
            params = load_params(find_model(config.initialize_from, print), abstract_params(network, mesh))
            state = make_state(lambda given: given, params, optimizer, shardings)
            step = compile_step(config, network, optimizer, shardings, 1)
        batches = iter(loader.from_step(0))
        filled = [float((loader.batch(i)["segment_ids"] > 0).mean()) for i in range(STEPS)]

        def run() -> None:
            nonlocal state
            with jax.set_mesh(mesh):
                for _ in range(STEPS):
                    state, metrics = step(state, place(next(batches), mesh, network.rules))
                jax.block_until_ready(metrics)

        share = sum(filled) / len(filled)
        what = f"jax {jax.__version__}, {rows} x {length}"
        return run, {"tokens": STEPS * rows * length * share, "filled": share, "what": what}

    return make


def _one_to_a_row() -> None:
    """Has rows hold one document, or one pair, and padding."""
    from aya_jax.data import packing

    packing.first_fit = lambda lengths, capacity: [
        [packing.Piece(number, 0, min(length, capacity), True)] for number, length in enumerate(lengths)
    ]


def theirs(kind: str) -> Callable[..., tuple[Callable[[], object], Any]]:
    """TRL's trainer, a few steps at a time."""

    def make(model: str, folder: str, threads: int) -> tuple[Callable[[], object], Any]:
        import datasets
        import torch
        import transformers
        import trl

        torch.set_num_threads(threads)
        datasets.disable_progress_bars()
        network = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/weights", dtype=torch.float32)
        tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/weights")
        rows = list(map(json.loads, Path(folder, f"{kind}.jsonl").read_text(encoding="utf-8").strip().split("\n")))
        options = {
            "output_dir": f"{folder}/trl",
            "max_steps": STEPS,
            "per_device_train_batch_size": EXAMPLES,
            "max_length": LENGTH // 2,
            "learning_rate": RATE,
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "gradient_checkpointing": False,
            "logging_strategy": "no",
        }
        say = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
        if kind == "sft":
            data = [{"prompt": say("user", r["question"]), "completion": say("assistant", r["answer"])} for r in rows]
            trainer = trl.SFTTrainer(
                network,
                trl.SFTConfig(**options),
                train_dataset=datasets.Dataset.from_list(data),
                processing_class=tokenizer,
            )
        else:
            data = [
                {"prompt": say("user", r["prompt"]), **{s: say("assistant", r[s]) for s in ("chosen", "rejected")}}
                for r in rows
            ]
            trainer = trl.DPOTrainer(
                network,
                args=trl.DPOConfig(**options, precompute_ref_log_probs=True),
                train_dataset=datasets.Dataset.from_list(data),
                processing_class=tokenizer,
            )
        lengths = [sum(map(int, batch["attention_mask"].sum(1))) for batch in _some(trainer.get_train_dataloader())]
        sizes = [batch["attention_mask"].numel() for batch in _some(trainer.get_train_dataloader())]
        about = {"tokens": STEPS * statistics.fmean(lengths), "filled": sum(lengths) / sum(sizes)}
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)  # stdout is how this process answers
        return trainer.train, about | {
            "what": f"trl {trl.__version__}, torch {torch.__version__}, {EXAMPLES} examples padded"
        }

    return make


def _some(batches: Any) -> list[Any]:
    return [batch for batch, _ in zip(batches, range(STEPS), strict=False)]


KINDS = {kind: (f"{kind}-packed", f"{kind}-padded", f"{kind}-trl") for kind in ("sft", "dpo")}
WORKERS = {
    **{f"{kind}-packed": ours(kind, True) for kind in KINDS},
    **{f"{kind}-padded": ours(kind, False) for kind in KINDS},
    **{f"{kind}-trl": theirs(kind) for kind in KINDS},
}

if __name__ == "__main__":
    main()
