"""Run by test_presets.py in a process of its own with eight emulated devices: twenty steps under each mesh preset.

Prints a JSON object per preset: the largest difference from one device of any step's loss, and of any parameter at the
end, both absolute.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from aya_jax.config import resolve
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.config import TrainConfig
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.placement import place
from aya_jax.training.state import make_state, state_shardings
from aya_jax.training.train import compile_step
from tests.training.small_run import CONFIG

GIN = Path(__file__).parents[2] / "gin"
STEPS, ROWS, LENGTH, VOCAB = 20, 16, 64, 264
BLOCKS = {
    "cohere": ["TransformerConfig.qk_norm=True", "TransformerConfig.logit_scale=0.25"],
    "cohere2": [
        "TransformerConfig.sliding_window=6",
        "TransformerConfig.sliding_window_pattern=2",
        "TransformerConfig.rope_on_full_layers=False",
    ],
    "llama": [
        "TransformerConfig.block='sequential'",
        "TransformerConfig.norm='rms_norm'",
        "TransformerConfig.rope_layout='half'",
        "TransformerConfig.tie_embeddings=False",
    ],
}


def batches():
    """Rows of packed documents of many lengths, some padding, and weights that differ between the parts of a batch."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        starts = rng.random((ROWS, LENGTH)) < 0.1
        segment_ids = 1 + np.cumsum(starts, axis=1)
        segment_ids[:, LENGTH - 5 :] = 0
        new = np.diff(segment_ids, axis=1, prepend=-1) != 0
        positions = np.arange(LENGTH) - np.maximum.accumulate(np.where(new, np.arange(LENGTH), 0), axis=1)
        arrays = {"segment_ids": segment_ids, "positions": positions, "task_ids": segment_ids % 3}
        arrays |= {"tokens": rng.integers(0, VOCAB, (ROWS, LENGTH)), "targets": rng.integers(0, 8, (ROWS, LENGTH))}
        batch = {name: array.astype(np.int32) for name, array in arrays.items()}
        yield batch | {"loss_weights": ((segment_ids > 0) & (rng.random((ROWS, LENGTH)) < 0.8)).astype(np.float32)}


def train(block, preset, devices):
    """(losses [STEPS], parameters) of twenty steps in two parts each."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.gin"
        file.write_text(CONFIG.format(steps=STEPS, store_dir=folder, cache=folder))
        files = [file, GIN / "hardware" / "mesh" / f"{preset}.gin"]
        bindings = ["RUN_DIR=r", f"DataConfig.global_batch={ROWS}", "TrainConfig.accumulation=2", *BLOCKS[block]]
        config = resolve(TrainConfig, files=files, bindings=bindings).config
    model = Transformer(config.model, config.precision, config.mesh.logical_axes)
    optimizer = make_optimizer(config.optimizer)
    mesh = make_mesh(config.mesh, jax.devices()[:devices])
    shardings = state_shardings(mesh, model, optimizer)
    losses = []
    with jax.set_mesh(mesh):
        state = make_state(model.init, jax.random.key(config.seed), optimizer, shardings)
        step = compile_step(config, model, optimizer, shardings, num_tasks=3)
        for batch in batches():
            state, metrics = step(state, place(batch, mesh, model.rules))
            losses.append(metrics["loss"].sum.sum() / metrics["loss"].weight.sum())
    return np.array(jax.device_get(losses)), jax.device_get(state.params)


if __name__ == "__main__":
    block, *presets = sys.argv[1:]
    losses, params = train(block, "fsdp", devices=1)
    for preset in presets:
        found_losses, found = train(block, preset, devices=8)
        differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), found, params)
        result = {"loss": float(np.max(np.abs(found_losses - losses))), "params": max(jax.tree.leaves(differences))}
        print(json.dumps({"preset": preset, "fell": float(losses[0] - losses[-1]), **result}), flush=True)
