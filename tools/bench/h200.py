"""What one NVIDIA H200 (or H100) gives: training steps, attention, and the head, beside torch in the same run.

    python tools/bench/h200.py              # on a machine with the GPU: under ten minutes; needs torch beside jax[cuda12]
    python tools/bench/h200.py --small      # tiny shapes on any machine: shows that the script runs, its figures mean nothing

Attention: forward and backward, bf16, two rows of 8,192 packed tokens, 32 query and 8 key heads of 128; torch is
`scaled_dot_product_attention` with the same documents as a boolean mask. Head: tools/bench/cross_entropy.py at 32,768
x 4,096 x 256,000. Steps: gin/models 470m, 2_8b and eight layers of llama3_8b with a vocabulary of 256,000, rows of 8,192
packed tokens, bf16, each in a process of its own, with every attention back-end that runs; MFU by the formula of
`training.environment` (causal, nothing recomputed counts).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from steps import Step, document_numbers

BACKENDS = ("cudnn", "pallas_gpu", "xla")
# Model, rows, bindings: rows are what fits beside the optimizer's float32 state.
MODELS = (
    ("470m", 4, ()),
    ("2_8b", 2, ("PrecisionConfig.remat='full'",)),
    (
        "llama3_8b",
        2,
        ("TransformerConfig.num_layers=8", "TransformerConfig.vocab_size=256000", "PrecisionConfig.remat='full'"),
    ),
)
SMALL = (("test", 2, ()),)
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes, on any machine")
    parser.add_argument("--part", choices=("attention", "torch-attention", "step"), help=argparse.SUPPRESS)
    parser.add_argument("--step", nargs=2, metavar=("MODEL", "BACKEND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "attention":
        attention(arguments.small)
    elif arguments.part == "torch-attention":
        torch_attention(arguments.small)
    elif arguments.part == "step":
        step(arguments.small, *arguments.step)
    elif not arguments.small and (reason := no_gpu()):
        print(f"skipped: {reason}; --small runs tiny shapes here")
    else:
        run_all(arguments.small)


def no_gpu() -> str | None:
    """Why this machine cannot be measured, or None. Asked in a process of its own, which leaves the GPU's memory alone."""
    code = "import jax; print(jax.default_backend(), jax.devices()[0].device_kind)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    return None if found.startswith("gpu") else f"JAX finds no GPU here ({found or 'it does not start'})"


def run_all(small: bool) -> None:
    """Every part, each in a process of its own: JAX and torch would not share the memory."""
    times = part(small, "attention") | part(small, "torch-attention")
    for name, seconds in times.items():
        ratio = (
            f"   torch takes {times['torch'] / seconds:.2f} x as long" if "torch" in times and name != "torch" else ""
        )
        print(f"attention {name:<11} {1e3 * seconds:9.2f} ms{ratio}", flush=True)
    sizes = ("64", "32", "512", "float32") if small else ("32768", "4096", "256000", "bfloat16")
    flags = [word for pair in zip(("--tokens", "--width", "--vocab", "--dtype"), sizes, strict=True) for word in pair]
    script = __file__.replace("h200.py", "cross_entropy.py")
    subprocess.run([sys.executable, script, *flags, "--names", "plain", "dense", "tiled"], check=False)
    for model, _, _ in SMALL if small else MODELS:
        for backend in [name for name in times if name in BACKENDS]:
            part(small, "step", "--step", model, backend)


def part(small: bool, name: str, *options: str) -> dict[str, float]:
    """Runs one part; what it prints last is JSON, from name to seconds. A part that fails says so and gives nothing."""
    command = [sys.executable, __file__, "--part", name, *options, *(["--small"] if small else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} {' '.join(options)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", flush=True)
        return {}
    *lines, last = done.stdout.strip().splitlines()
    for line in lines:
        print(line, flush=True)
    return json.loads(last)


def shapes(small: bool) -> tuple[int, int, int, int, int]:
    """Rows, positions, query heads, key heads, width of a head."""
    return (1, 128, 4, 2, 32) if small else (2, 8192, 32, 8, 128)


def inputs(small: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Query, key, value and the output's gradient, and segment ids [B, S]."""
    rows, length, heads, kv_heads, width = shapes(small)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((rows, length, n, width), np.float32) for n in (heads, kv_heads, kv_heads, heads)]
    return arrays, np.stack([document_numbers(rng, length) for _ in range(rows)])


def attention(small: bool) -> None:
    """Prints seconds of each back-end that runs here."""
    import jax
    import jax.numpy as jnp

    from aya_jax.config import UserError
    from aya_jax.kernels.attention import attention as attend

    arrays, segment_ids = inputs(small)
    query, key, value, grad = (jnp.asarray(array, jnp.bfloat16) for array in arrays)
    times = {}
    for name in BACKENDS:

        def run(query, key, value, name=name):
            output, back = jax.vjp(
                lambda *qkv: attend(*qkv, segment_ids=segment_ids, implementation=name), query, key, value
            )
            return output, back(grad)

        try:
            compiled = jax.jit(run).lower(query, key, value).compile()
            times[name] = median_seconds(lambda compiled=compiled: jax.block_until_ready(compiled(query, key, value)))
        except (UserError, RuntimeError) as error:
            print(f"attention {name}: {str(error).splitlines()[0]}")
    print(json.dumps(times))


def torch_attention(small: bool) -> None:
    """Prints seconds of torch's attention with the documents as a boolean mask."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arrays, segment_ids = inputs(small)
    query, key, value, grad = (torch.from_numpy(a).to(device, torch.bfloat16).transpose(1, 2) for a in arrays)
    ids = torch.from_numpy(segment_ids).to(device)
    mask = (ids[:, :, None] == ids[:, None, :]).tril()[:, None]
    for array in (query, key, value):
        array.requires_grad_()

    def run() -> None:
        output = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        torch.autograd.grad(output, (query, key, value), grad)
        if device == "cuda":
            torch.cuda.synchronize()

    print(json.dumps({"torch": median_seconds(run)}))


def step(small: bool, model: str, backend: str) -> None:
    """Prints time, tokens/s and MFU of a model's step."""
    import jax

    from aya_jax.models import flops
    from aya_jax.training.environment import peak_flops

    _, rows, bindings = next(each for each in (SMALL if small else MODELS) if each[0] == model)
    length = 256 if small else 8192
    files = ["gin/train/pretrain.gin", "gin/mixtures/text.gin", f"gin/models/{model}.gin"]
    files += [] if small else ["gin/hardware/gpu.gin"]
    measured = Step(files, rows, length, [f"PrecisionConfig.attention={backend}", *bindings])
    seconds = median_seconds(measured.take)
    rate = rows * length / seconds
    peak = peak_flops(jax.devices()[0].device_kind)
    mfu = f"MFU {rate * flops.per_token(measured.config.model, length) / peak:.1%}" if peak else "no peak known"
    temporary = measured.program.memory_analysis().temp_size_in_bytes / 2**30
    print(
        f"step {model:<10} {backend:<11} {rows} x {length}: {1e3 * seconds:8.1f} ms, {rate:10,.0f} tokens/s, {mfu}, "
        f"temporaries {temporary:.1f} GiB, compiled in {measured.compile_seconds:.0f} s"
    )
    print("{}")


def median_seconds(function: Callable[[], object]) -> float:
    """Of several calls after two to warm up."""
    times = []
    for _ in range(ROUNDS + 2):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
