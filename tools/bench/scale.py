"""What scale costs on CPU: each mesh preset on eight emulated devices, compile time by depth, start-up cold and warm.

    python tools/bench/scale.py [--rounds 5] [--depths 4 16 64]

Presets: the step that `aya train` runs (gin/models/test.gin, 16 rows of 256 packed tokens, layers in a loop as on an
accelerator), taken in turn with the others', medians, beside `replicated`. Emulated devices share the cores, and copies
between them are memory copies, so this is the price of dividing the work, not its gain. Compile time: tracing and XLA,
of the same step at several depths. Start-up: a process from its start to the end of its first step, with an empty and with
a filled compilation cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PRESETS = ("replicated", "fsdp", "fsdp_tensor", "fsdp_context", "slices")
DEVICES = 8
ROWS, LENGTH = 16, 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gin/models/test.gin")
    parser.add_argument("--rounds", type=int, default=5, help="how often each preset is measured")
    parser.add_argument("--depths", type=int, nargs="*", default=[4, 16, 64], help="layers of the compiled step")
    parser.add_argument("--worker", choices=("presets", "depths", "first-step"), help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "presets":
        measure_presets(arguments)
    elif arguments.worker == "depths":
        measure_depths(arguments)
    elif arguments.worker == "first-step":
        take_first_step(arguments)
    else:
        start(arguments, "presets", devices=DEVICES)
        start(arguments, "depths")
        measure_start_up(arguments)


def start(arguments: argparse.Namespace, worker: str, devices: int = 1, cache: str | None = None) -> float:
    """Runs a part in a process of its own, where the number of devices is its own; returns its seconds."""
    command = [sys.executable, __file__, "--worker", worker, "--model", arguments.model]
    command += ["--rounds", str(arguments.rounds), "--depths", *map(str, arguments.depths)]
    command += ["--cache", cache] if cache else []
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    begin = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | flags)
    return time.perf_counter() - begin


def build(model: str, preset: str, bindings: Sequence[str] = ()) -> tuple[Callable[[], None], float]:
    """What takes one step and waits for it, and the seconds of tracing and compiling it."""
    import jax

    from aya_jax.config import resolve
    from aya_jax.models.transformer import Transformer
    from aya_jax.parallel.mesh import make_mesh
    from aya_jax.training.config import TrainConfig
    from aya_jax.training.optimizer import make_optimizer
    from aya_jax.training.placement import place
    from aya_jax.training.state import make_state, state_shardings
    from aya_jax.training.train import compile_step

    values = {"RUN_DIR": "unused", "STORE_DIR": "unused", "STEPS": 100, "GLOBAL_BATCH": ROWS, "SEQUENCE_LENGTH": LENGTH}
    files = ["gin/train/pretrain.gin", "gin/mixtures/text.gin", model, f"gin/hardware/mesh/{preset}.gin"]
    bound = [f"{name}={value}" for name, value in values.items()]
    config = resolve(TrainConfig, files=files, bindings=[*bound, "PrecisionConfig.unroll=1", *bindings]).config
    transformer = Transformer(config.model, config.precision, config.mesh.logical_axes)
    optimizer, mesh = make_optimizer(config.optimizer), make_mesh(config.mesh)
    shardings = state_shardings(mesh, transformer, optimizer)

    with jax.set_mesh(mesh):
        state = make_state(transformer.init, jax.random.key(0), optimizer, shardings)
        batch = place(_batch(config.model.vocab_size), mesh, transformer.rules)
        function = compile_step(config, transformer, optimizer, shardings, num_tasks=1)
        jax.block_until_ready(state)
        begin = time.perf_counter()
        program = function.lower(state, batch).compile()
        seconds = time.perf_counter() - begin

    def step() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready((state, metrics))

    return step, seconds


def _batch(vocab_size: int) -> dict:
    import numpy as np

    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab_size, (ROWS, LENGTH)).astype(np.int32)
    lengths = rng.integers(20, 100, (ROWS, LENGTH))
    segment_ids = np.stack([np.repeat(np.arange(1, LENGTH + 1), row)[:LENGTH] for row in lengths]).astype(np.int32)
    new = np.diff(segment_ids, axis=1, prepend=0) != 0
    index = np.arange(LENGTH)
    positions = (index - np.maximum.accumulate(np.where(new, index, 0), axis=1)).astype(np.int32)
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "segment_ids": segment_ids,
        "positions": positions,
        "task_ids": np.zeros_like(tokens),
        "loss_weights": np.ones(tokens.shape, np.float32),
    }


def measure_presets(arguments: argparse.Namespace) -> None:
    """Prints each preset's step time on emulated devices."""
    steps = {preset: build(arguments.model, preset)[0] for preset in PRESETS}
    times: dict[str, list[float]] = {preset: [] for preset in PRESETS}
    for step in steps.values():
        step()
    for _ in range(arguments.rounds):
        for preset, step in steps.items():
            times[preset].append(_seconds(step))
    base = statistics.median(times["replicated"])
    print(f"{Path(arguments.model).stem}: a step of {ROWS} x {LENGTH} tokens on {DEVICES} emulated devices")
    for preset in PRESETS:
        median = statistics.median(times[preset])
        print(f"  {preset:<13} {1e3 * median:8.0f} ms   {median / base:5.2f} x replicated", flush=True)


def measure_depths(arguments: argparse.Namespace) -> None:
    """Prints compile times."""
    print("compile time of the step by depth, layers in a loop")
    for depth in arguments.depths:
        _, seconds = build(arguments.model, "fsdp", [f"TransformerConfig.num_layers={depth}"])
        print(f"  {depth:4d} layers   {seconds:6.2f} s", flush=True)


def measure_start_up(arguments: argparse.Namespace) -> None:
    """Prints what a process takes to its first step."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (start(arguments, "first-step", cache=cache) for _ in range(2))
    print(
        f"start-up to the end of the first step: {cold:.1f} s with an empty compilation cache, {warm:.1f} s with a filled one"
    )


def take_first_step(arguments: argparse.Namespace) -> None:
    """Compiles and takes one step, as a run that starts."""
    from aya_jax.training.train import use_compilation_cache

    use_compilation_cache(arguments.cache)
    build(arguments.model, "fsdp")[0]()


def _seconds(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
