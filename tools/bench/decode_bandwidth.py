"""How much of the memory's bandwidth decoding uses: weights and cache read per step, over the time of a step.

    python tools/bench/decode_bandwidth.py [gin/models/aya_expanse_8b.gin] [--batches 1 32 256] [--context 1024]
    python tools/bench/decode_bandwidth.py --small     # a tiny model on any machine: shows that the script runs

Random weights in bfloat16 (float32 with --small), made on the device. For each batch the engine reads as many prompts of
`context` tokens and then decodes; a block of steps is timed from the host, and the median of the blocks counts. Bytes of a
step: every matrix once (the token table once, as head; a few of its rows as embedding), and of each sequence the keys and
values up to its place. The share is of the published bandwidth of the chip (`planning/targets.py`), or of --bandwidth.
Sequences of one batch stand at the same place; batch 256 of the 8B takes 16 GB of weights and 41 GB of cache at 1,024.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from train_step import read_model

from aya_jax.inference.config import EngineConfig, SamplingConfig
from aya_jax.inference.engine import Engine, TokenRequest
from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.parameters import count
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.planning.targets import CHIPS

BLOCKS, STEPS, WARM_UP = 9, 16, 2


def main() -> None:
    """Prints a row for each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="gin/models/aya_expanse_8b.gin")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--bandwidth", type=float, help="of the memory, GB/s; by default that of the chip")
    parser.add_argument(
        "--small", action="store_true", help="gin/models/test.gin in float32, batches 1 and 4, 64 tokens"
    )
    arguments = parser.parse_args()
    dtype = "bfloat16"
    if arguments.small:
        arguments.model, arguments.batches, arguments.context, dtype = "gin/models/test.gin", [1, 4], 64, "float32"
    device = jax.devices()[0]
    peak = arguments.bandwidth * 1e9 if arguments.bandwidth else published_bandwidth(device.device_kind)
    of = f"{peak / 1e9:,.0f} GB/s" if peak else "a bandwidth that is not known: give --bandwidth"
    print(f"{Path(arguments.model).stem}, {dtype}, {device.device_kind}, JAX {jax.__version__}, shares of {of}\n")
    print("| batch | context | ms a step | tokens/s | GB a step | GB/s | share |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    config = read_model(arguments.model)
    for batch in arguments.batches:
        seconds, place = step_seconds(config, dtype, batch, arguments.context)
        size = step_bytes(config, dtype, batch, place)
        share = f"{size / seconds / peak:.0%}" if peak else "–"
        print(
            f"| {batch} | {place:,.0f} | {1e3 * seconds:.2f} | {batch / seconds:,.0f} | {size / 1e9:.2f} | "
            f"{size / seconds / 1e9:,.0f} | {share} |",
            flush=True,
        )


def step_seconds(config: TransformerConfig, dtype: str, batch: int, context: int) -> tuple[float, float]:
    """Seconds of a step of decoding, and the mean place of the sequences in the steps that counted."""
    mesh = make_mesh(MeshConfig(fsdp=1, tensor=-1))
    decoded = (WARM_UP + BLOCKS + 1) * STEPS
    engine_config = EngineConfig(slots=batch, max_length=context + decoded, decode_steps=STEPS)
    with jax.set_mesh(mesh):
        model = Transformer(config, PrecisionConfig(params=dtype, compute=dtype), MeshConfig().logical_axes)
        engine = Engine(model, jax.jit(model.init)(jax.random.key(0)), engine_config, consume=True)
        rng = np.random.default_rng(0)
        sampling = SamplingConfig(max_tokens=decoded, temperature=0.0)
        for _ in range(batch):
            prompt = rng.integers(8, config.vocab_size, context).tolist()
            engine.submit(TokenRequest(prompt=prompt, sampling=sampling), lambda progress: None)
        while engine.stats.generated_tokens < batch * WARM_UP * STEPS:
            engine.step()
        start, times = engine.stats.generated_tokens / batch, []
        for _ in range(BLOCKS):
            begin = time.perf_counter()
            engine.step()  # ends with the tokens on the host
            times.append((time.perf_counter() - begin) / STEPS)
        end = engine.stats.generated_tokens / batch
    if round(end - start) != BLOCKS * STEPS:
        raise SystemExit(f"{end - start} tokens of each sequence in {BLOCKS * STEPS} steps: not all were decoding")
    return statistics.median(times), context + (start + end) / 2


def step_bytes(config: TransformerConfig, dtype: str, batch: int, place: float) -> float:
    """Weights and cache that one step has to read."""
    item = 2 if dtype == "bfloat16" else 4
    parameters = count(config)
    weights = parameters.total - (0 if config.tie_embeddings else parameters.embedding)
    full, window = config.num_layers, 0
    if config.sliding_window and config.sliding_window_pattern:
        full = config.num_layers // config.sliding_window_pattern
        window = config.num_layers - full
    positions = full * place + window * min(place, config.sliding_window or 0)
    return item * (weights + 2 * batch * positions * config.num_kv_heads * config.head_dim)


def published_bandwidth(kind: str) -> float | None:
    """Bytes per second of a chip's memory, by what JAX calls it."""
    words = kind.lower().split()
    return next((chip.memory_bandwidth for chip in CHIPS.values() if chip.name in words), None)


if __name__ == "__main__":
    main()
