"""A tiny training run for tests: token stores of random bytes, a model of width 32, and processes that train it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from aya_jax.data import store
from tests.data.stores import random_documents, write_store

TASKS = {"text_en": ("en", "text"), "text_de": ("de", "text"), "code_web": ("python", "web_code")}
STEPS = 20
SHAPE = """\
TransformerConfig.embed_dim = 32
TransformerConfig.num_layers = 2
TransformerConfig.num_heads = 4
TransformerConfig.num_kv_heads = 2
TransformerConfig.head_dim = 8
TransformerConfig.mlp_dim = 64
"""
CONFIG = """
TrainConfig.run_dir = %RUN_DIR
TrainConfig.steps = {steps}
TrainConfig.seed = %SEED
TrainConfig.model = @TransformerConfig()
TrainConfig.data = @DataConfig()
TrainConfig.optimizer = @OptimizerConfig()
TransformerConfig.vocab_size = 264
{shape}TransformerConfig.max_sequence_length = 64
DataConfig.store_dir = '{store_dir}'
DataConfig.mixture = @MixtureConfig()
DataConfig.sequence_length = 64
DataConfig.global_batch = 8
DataConfig.seed = %SEED
MixtureConfig.rates = {{'text_*': 3.0, 'code_web': 1.0}}
OptimizerConfig.learning_rate = 0.01
ScheduleConfig.warmup_steps = 5
TrainConfig.z_loss = 1e-4
CheckpointConfig.every = 4
ValidationConfig.every = 5
TrackingConfig.every = 3
TrackingConfig.tensorboard = False
TrackingConfig.compilation_cache = '{cache}'
SEED = 1
""".replace("{shape}", SHAPE)


def write_stores(folder: Path) -> Path:
    """A training and a held-out store for each task; the three differ in which bytes they hold."""
    for number, (task, (language, domain)) in enumerate(TASKS.items()):
        for split, count in (("train", 60), ("validation", 9)):
            directory = store.store_path(str(folder), task, split)
            shards = [random_documents(100 * number + shard + (split == "train"), count, 90) for shard in range(2)]
            write_store(directory, shards, task=task, split=split, language=language, domain=domain)
    return folder


def write_config(folder: Path, store_dir: Path, steps: int = STEPS) -> Path:
    """The run's gin file; programs compiled by one process serve the others."""
    file = folder / "run.gin"
    file.write_text(CONFIG.format(steps=steps, store_dir=store_dir, cache=folder / "compiled"))
    return file


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    """`aya` with these arguments in a process of its own, with as many emulated devices."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "aya_jax", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """(exit code, output) of a process that ends by itself."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def run(*arguments: object, devices: int = 1) -> str:
    """The output of a process that is to succeed."""
    code, output = finish(start(*arguments, devices=devices))
    assert code == 0, output
    return output


def wait_for(condition, process: subprocess.Popen) -> None:
    """Waits until something is so, while the process runs."""
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def has_checkpoint(run_dir: Path, step: int) -> bool:
    return (run_dir / "checkpoints" / str(step)).is_dir()


def stop(process: subprocess.Popen, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal and waits for the end."""
    process.send_signal(number)
    return finish(process)


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def numbers(run_dir: Path) -> list[dict]:
    """The records without what depends on the clock."""
    timed = {"wall_time", "tokens_per_second", "mfu", "data_fraction", "checkpoint_fraction"}
    return [{name: value for name, value in record.items() if name not in timed} for record in records(run_dir)]


def parameters(run_dir: Path, step: int) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint, read by TensorStore alone."""
    import tensorstore as ts

    folder = run_dir / "checkpoints" / str(step) / "params"
    tree = json.loads((folder / "_METADATA").read_text())["tree_metadata"]
    names = [".".join(part["key"] for part in entry["key_metadata"]) for entry in tree.values()]
    base = {"driver": "ocdbt", "base": f"file://{folder}/"}
    return {
        name: ts.open({"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}).result().read().result()
        for name in names
    }
