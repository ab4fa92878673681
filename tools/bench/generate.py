"""Generation on CPU against transformers.generate in torch, and continuous batching against batches that wait.

    python tools/bench/generate.py [gin/models/test.gin gin/models/25m.gin] [--rounds 5] [--threads 2]

The same random weights in both libraries, float32, greedy: 16 prompts of 8 to 256 tokens, 128 new tokens each, no stop token.
Each library in a process of its own, in turn; medians. Then our engine alone: 64 prompts whose outputs have long-tailed
lengths (log-normal, 4 to 256 tokens, median 24), all queued at once, and sixteen at a time, each group when the one
before has finished. Needs the `transformers` and `torch` packages.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from train_step import cohere_config, read_model
from turns import alternate, serve

PROMPTS, NEW, SLOTS = 16, 128, 16
LONG_TAIL = 64


def main() -> None:
    """Measures every model asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["gin/models/test.gin", "gin/models/25m.gin"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(WORKERS, arguments.worker, arguments.weights, threads=arguments.threads, warm_up=1)
        return
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as weights:
            save_random_weights(model, weights)
            command = [__file__, model, "--threads", str(arguments.threads), "--weights", weights, "--worker"]
            times = alternate(command, ["jax", "torch"], arguments.rounds)
            ours, theirs = (statistics.median(times[name]) for name in ("jax", "torch"))
            tokens = PROMPTS * NEW
            print(
                f"{Path(model).stem}: {PROMPTS} prompts, {NEW} new tokens: ours {tokens / ours:,.0f} tokens/s, transformers "
                f"{tokens / theirs:,.0f}, ratio {theirs / ours:.2f}",
                flush=True,
            )
            times = alternate(command, ["continuous", "static"], arguments.rounds)
            fast, slow = (statistics.median(times[name]) for name in ("continuous", "static"))
            print(
                f"{Path(model).stem}: long-tailed outputs: continuous batching {slow / fast:.2f} x static", flush=True
            )


def save_random_weights(model: str, directory: str) -> None:
    """A CohereForCausalLM of a model's shape, as transformers saves it."""
    import torch
    import transformers

    c = read_model(model)
    torch.manual_seed(0)
    config = cohere_config(c, pad_token_id=0, bos_token_id=1, eos_token_id=None)
    transformers.CohereForCausalLM(config).save_pretrained(directory)


def prompts(vocab_size: int, count: int) -> list[list[int]]:
    """Random prompts of mixed length."""
    rng = np.random.default_rng(0)
    return [rng.integers(8, vocab_size, length).tolist() for length in rng.integers(8, 257, count)]


def torch_generate(weights: str, threads: int) -> tuple[Callable[[], object], str]:
    """transformers.generate over one batch, padded on the left."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    network = transformers.AutoModelForCausalLM.from_pretrained(weights).eval()
    given = prompts(network.config.vocab_size, PROMPTS)
    longest = max(map(len, given))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in given])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in given])

    def run() -> object:
        with torch.no_grad():
            return network.generate(ids, attention_mask=mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)

    return run, f"torch {torch.__version__}, transformers {transformers.__version__}"


def our_engine(weights: str, max_length: int) -> tuple[object, int]:
    """Our engine over the same weights, and their vocabulary's size."""
    from aya_jax.inference.config import EngineConfig
    from aya_jax.inference.engine import Engine
    from aya_jax.interop.model_dir import find_model, load_params
    from aya_jax.models.transformer import Transformer

    found = find_model(weights, print)
    model = Transformer(found.config)
    shape = EngineConfig(slots=SLOTS, max_length=max_length)
    return Engine(model, load_params(found, model.shapes()), shape), found.config.vocab_size


def our_generate(weights: str, threads: int) -> tuple[Callable[[], object], str]:
    """The same prompts through the engine."""
    import jax

    engine, vocab_size = our_engine(weights, 256 + NEW)
    given = prompts(vocab_size, PROMPTS)
    return lambda: decode(engine, given, [NEW] * PROMPTS), f"jax {jax.__version__}, the engine of aya generate"


def long_tail(group: int) -> Callable[[str, int], tuple[Callable[[], object], str]]:
    """Prompts whose outputs differ much in length, `group` of them queued at a time."""

    def make(weights: str, threads: int) -> tuple[Callable[[], object], str]:
        engine, vocab_size = our_engine(weights, 512)
        lengths = np.clip(np.random.default_rng(1).lognormal(np.log(24), 1.1, LONG_TAIL), 4, 256).astype(int)
        given = [prompt[:64] for prompt in prompts(vocab_size, LONG_TAIL)]

        def run() -> None:
            for start in range(0, LONG_TAIL, group):
                decode(engine, given[start : start + group], lengths[start : start + group])

        return run, f"{group} queued at a time, {lengths.sum():,} tokens, the longest {lengths.max()}"

    return make


def decode(engine: object, given: list[list[int]], lengths: list[int]) -> None:
    """Generates so many tokens from each prompt, greedily; nothing is kept from the call before."""
    from aya_jax.inference.config import SamplingConfig
    from aya_jax.inference.engine import TokenRequest

    engine.forget()
    for prompt, length in zip(given, lengths, strict=True):
        sampling = SamplingConfig(max_tokens=int(length), temperature=0.0)
        engine.submit(TokenRequest(prompt=prompt, sampling=sampling), lambda progress: None)
    while engine.step():
        pass


WORKERS = {"jax": our_generate, "torch": torch_generate, "continuous": long_tail(LONG_TAIL), "static": long_tail(SLOTS)}

if __name__ == "__main__":
    main()
