"""The head and its loss: time and memory of each way to compute them, with the gradients of both inputs.

    python tools/bench/cross_entropy.py [--tokens 1024] [--width 256] [--vocab 32768] [--dtype float32]
    python tools/bench/cross_entropy.py --tokens 32768 --width 4096 --vocab 256000 --dtype bfloat16   # a GPU or TPU

`plain` is what one writes: logits in float32 by one matrix product, log-sum-exp, and JAX's own differentiation; `reference`
is the float32 version that tests use; the others are this project's. Memory is the compiler's figure of what is held besides
inputs and gradients, so it is known before anything runs and for what does not fit. Times are medians of calls taken in
turn, each after a warm-up; ratios are of `plain`, in the same run (above 1: slower than plain).
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from aya_jax.kernels.cross_entropy import linear_cross_entropy

Z_LOSS = 1e-4


def main() -> None:
    """Measures and prints one line for each implementation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of hidden states and table"
    )
    parser.add_argument("--tile", type=int, help="tokens in one tile of `tiled`; by default its own choice")
    parser.add_argument("--rounds", type=int, default=7, help="measured calls of each")
    parser.add_argument("--names", nargs="*", default=["plain", "dense", "tiled", "reference"])
    parser.add_argument("--memory-only", action="store_true", help="compile and run nothing")
    arguments = parser.parse_args()
    shapes = (
        jax.ShapeDtypeStruct((1, arguments.tokens, arguments.width), arguments.dtype),
        jax.ShapeDtypeStruct((arguments.vocab, arguments.width), arguments.dtype),
        jax.ShapeDtypeStruct((1, arguments.tokens), jnp.int32),
    )
    device = jax.devices()[0]
    print(
        f"{arguments.tokens:,} tokens x {arguments.width:,} x {arguments.vocab:,} rows, {arguments.dtype}, "
        f"{device.device_kind}, jax {jax.__version__}"
    )
    steps = {name: compile_step(name, arguments.tile, shapes) for name in arguments.names}
    memory = {name: step.memory_analysis().temp_size_in_bytes for name, step in steps.items() if step is not None}
    times = {} if arguments.memory_only else alternate(steps, shapes, arguments.rounds)
    for name in arguments.names:
        print(f"  {name:10s} {line(name, memory, times)}")


def compile_step(name: str, tile: int | None, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> Callable | None:
    """The loss with its gradients, compiled; None where the compiler finds that it does not fit."""
    if name == "plain":
        score = plain
    else:
        score = functools.partial(linear_cross_entropy, implementation=name, tile=tile)

    def loss(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> jax.Array:
        log_probs, lse = score(hidden, table, targets)
        return jnp.mean(Z_LOSS * lse**2 - log_probs)

    try:
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    except jax.errors.JaxRuntimeError as error:
        print(f"  {name:10s} does not compile here: {str(error).splitlines()[0]}")
        return None


def plain(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The textbook version, differentiated by JAX."""
    logits = jnp.einsum("bsd,vd->bsv", hidden, table, preferred_element_type=jnp.float32)
    lse = jax.nn.logsumexp(logits, axis=-1)
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0] - lse, lse


def alternate(
    steps: dict[str, Callable | None], shapes: tuple[jax.ShapeDtypeStruct, ...], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call, one implementation after the other; what runs out of memory is left out."""
    rng = np.random.default_rng(0)
    hidden, table = (jnp.asarray(rng.standard_normal(each.shape, np.float32), each.dtype) for each in shapes[:2])
    table = table * jnp.asarray(table.shape[1] ** -0.5, table.dtype)  # logits of a size that models have
    targets = jnp.asarray(rng.integers(0, table.shape[0], shapes[2].shape), jnp.int32)
    times: dict[str, list[float]] = {name: [] for name, step in steps.items() if step is not None}
    for index in range(rounds + 1):
        for name in list(times):
            begin = time.perf_counter()
            try:
                jax.block_until_ready(steps[name](hidden, table, targets))
            except jax.errors.JaxRuntimeError as error:
                print(f"  {name:10s} does not run here: {str(error).splitlines()[0]}")
                del times[name]
                continue
            if index:
                times[name].append(time.perf_counter() - begin)
    return times


def line(name: str, memory: dict[str, int], times: dict[str, list[float]]) -> str:
    """Milliseconds and MiB, and both beside the plain version's."""
    parts = []
    for values, unit, scale in (
        ({key: statistics.median(own) for key, own in times.items() if own}, "ms", 1e3),
        (memory, "MiB", 2**-20),
    ):
        if name in values:
            ratio = f" ({values[name] / values['plain']:.2f} x plain)" if values.get("plain") else ""
            parts.append(f"{values[name] * scale:12,.1f} {unit}{ratio}")
    return "; ".join(parts) or "no figures"


if __name__ == "__main__":
    main()
