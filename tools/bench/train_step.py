"""One training step on CPU against transformers' CohereForCausalLM in torch: same shapes, batch, float32 and threads.

    python tools/bench/train_step.py [gin/models/test.gin gin/models/25m.gin] [--steps 15] [--threads 2]

A step is forward, backward, clipping by the global norm and the AdamW update. Ours is the step that `aya train` runs
(packed batch with segment ids and weights, per-task losses, the guard against bad gradients); torch's runs unpacked, with
SDPA attention and the fastest of its AdamW implementations. Each library has a process of its own, both warmed up, and
steps are taken in turn, so that what else happens on the machine meets both. Prints medians and torch's time over ours:
above 1, ours is faster. Needs the `transformers` and `torch` packages.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from turns import alternate, seconds, serve

BATCH, LENGTH = 8, 256
WARM_UP = 3
LEARNING_RATE = 1e-4

Step = Callable[[], float]


def main() -> None:
    """Measures every model asked for and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["gin/models/test.gin", "gin/models/25m.gin"])
    parser.add_argument("--steps", type=int, default=15, help="measured steps of each library")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(WORKERS, arguments.worker, arguments.models[0], threads=arguments.threads, warm_up=WARM_UP)
        return
    for model in arguments.models:
        command = [__file__, model, "--threads", str(arguments.threads), "--worker"]
        times = alternate(command, list(WORKERS), arguments.steps)
        ours, theirs = (statistics.median(times[name]) for name in ("jax", "torch"))
        pairs = sorted(theirs / ours for ours, theirs in zip(times["jax"], times["torch"], strict=True))
        print(
            f"{Path(model).stem}: {BATCH} x {LENGTH} tokens, float32, {arguments.threads} threads: ours {1e3 * ours:.0f} ms, "
            f"torch {1e3 * theirs:.0f} ms, ratio {theirs / ours:.3f} (pairs: middle half "
            f"{pairs[len(pairs) // 4]:.3f} to {pairs[-1 - len(pairs) // 4]:.3f}, {len(pairs)} pairs)",
            flush=True,
        )


def our_step(model: str, threads: int) -> tuple[Step, str]:
    """The step of `aya train` over gin/models' model; returns when its loss is known."""
    import functools

    import jax
    import numpy as np

    from aya_jax.models.transformer import Transformer
    from aya_jax.objectives.next_token import next_token
    from aya_jax.parallel.config import MeshConfig
    from aya_jax.parallel.mesh import make_mesh
    from aya_jax.training.config import GuardConfig, OptimizerConfig
    from aya_jax.training.optimizer import make_optimizer
    from aya_jax.training.schedules import learning_rate
    from aya_jax.training.state import make_state, state_shardings
    from aya_jax.training.step import make_step

    transformer = Transformer(read_model(model))
    config = OptimizerConfig(learning_rate=LEARNING_RATE)
    optimizer = make_optimizer(config)
    mesh = make_mesh(MeshConfig())
    shardings = state_shardings(mesh, transformer, optimizer)
    state = make_state(transformer.init, jax.random.key(0), optimizer, shardings)
    tokens = random_tokens(transformer.config.vocab_size)
    index = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (BATCH, LENGTH))
    batch = {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "loss_weights": np.ones((BATCH, LENGTH), np.float32),
        # Two documents in each row: packing costs what it costs.
        "segment_ids": 1 + index // (LENGTH // 2),
        "positions": index % (LENGTH // 2),
        "task_ids": np.zeros((BATCH, LENGTH), np.int32),
    }
    function = make_step(
        functools.partial(next_token, transformer, num_tasks=4, z_loss=1e-4),
        optimizer,
        learning_rate(config, 10_000),
        optimizer_config=config,
        guard_config=GuardConfig(),
    )
    with jax.set_mesh(mesh):
        batch = jax.tree.map(jax.numpy.asarray, batch)
        compiled = jax.jit(function, donate_argnums=0, out_shardings=(shardings, None)).lower(state, batch).compile()

    def step() -> float:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"].sum.sum())

    return step, f"jax {jax.__version__}, the step of aya train, packed batch"


def torch_step(model: str, threads: int) -> tuple[Step, str]:
    """The same shapes in transformers, with the AdamW implementation that is fastest here."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    c = read_model(model)
    config = cohere_config(c, use_cache=False, attn_implementation="sdpa")
    tokens = torch.tensor(random_tokens(c.vocab_size), dtype=torch.long)

    def make(adamw: dict[str, bool]) -> Step:
        network = transformers.CohereForCausalLM(config).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1, **adamw
        )

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            # transformers shifts labels by itself; given the row it is scored on, it drops the last position.
            loss = network(input_ids=tokens[:, :-1], labels=tokens[:, :-1]).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            return loss.item()

        return step

    kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "single": {"foreach": False, "fused": False}}
    steps = {name: make(adamw) for name, adamw in kinds.items()}
    for step in steps.values():
        step()
    best = min(steps, key=lambda name: min(seconds(steps[name]) for _ in range(3)))
    about = f"torch {torch.__version__}, transformers {transformers.__version__}, sdpa, AdamW {best}"
    return steps[best], about


def cohere_config(c, **more: object):
    """The transformers configuration of a model's shape."""
    import transformers

    return transformers.CohereConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.embed_dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_kv_heads,
        intermediate_size=c.mlp_dim,
        max_position_embeddings=c.max_sequence_length,
        logit_scale=c.logit_scale,
        **more,
    )


def read_model(path: str):
    """The TransformerConfig of a file in gin/models."""
    from aya_jax.config import resolve
    from aya_jax.models.config import DescribeConfig

    return resolve(DescribeConfig, [path]).config.model


def random_tokens(vocab_size: int):
    """int32 [BATCH, LENGTH + 1]."""
    import numpy as np

    return np.random.default_rng(0).integers(8, vocab_size, (BATCH, LENGTH + 1), dtype=np.int32)


WORKERS = {"jax": our_step, "torch": torch_step}

if __name__ == "__main__":
    main()
