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

from steps import Step

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


def build(model: str, preset: str, bindings: Sequence[str] = ()) -> Step:
    """The compiled step of a model under a preset."""
    files = ["gin/train/pretrain.gin", "gin/mixtures/text.gin", model, f"gin/hardware/mesh/{preset}.gin"]
    return Step(files, ROWS, LENGTH, ["PrecisionConfig.unroll=1", *bindings])


def measure_presets(arguments: argparse.Namespace) -> None:
    """Prints each preset's step time on emulated devices."""
    steps = {preset: build(arguments.model, preset).take for preset in PRESETS}
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
        step = build(arguments.model, "fsdp", [f"TransformerConfig.num_layers={depth}"])
        print(f"  {depth:4d} layers   {step.compile_seconds:6.2f} s", flush=True)


def measure_start_up(arguments: argparse.Namespace) -> None:
    """Prints what a process takes to its first step."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (start(arguments, "first-step", cache=cache) for _ in range(2))
    print(
        f"start-up to the end of the first step: {cold:.1f} s with an empty compilation cache, {warm:.1f} s with a filled one"
    )


def take_first_step(arguments: argparse.Namespace) -> None:
    """Compiles and takes one step, as a run that starts."""
    from aya_jax.parallel.compilation import use_compilation_cache

    use_compilation_cache(arguments.cache)
    build(arguments.model, "fsdp").take()


def _seconds(function: Callable[[], None]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
