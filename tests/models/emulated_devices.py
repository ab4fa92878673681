"""Run by test_devices.py in a process of its own with eight emulated devices: prints one JSON object per mesh.

Each holds the largest difference of the loss and of each gradient from one device, relative to the largest entry.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from aya_jax.models.config import PrecisionConfig, TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import batch_sharding, named_shardings

CONFIGS = {
    "cohere2": TransformerConfig(
        vocab_size=96,
        embed_dim=32,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=48,
        sliding_window=6,
        sliding_window_pattern=2,
        rope_on_full_layers=False,
    ),
    "llama": TransformerConfig(
        vocab_size=96,
        embed_dim=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        mlp_dim=48,
        block="sequential",
        norm="rms_norm",
        rope_layout="half",
        tie_embeddings=False,
        qk_norm=True,
    ),
}


def batch():
    """Eight rows of two packed documents and padding."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.repeat([1, 2, 0], [13, 15, 4])[None], 8, axis=0)
    positions = np.repeat(np.concatenate([np.arange(n) for n in (13, 15, 4)])[None], 8, axis=0)
    tokens, targets = rng.integers(0, 96, (2, 8, 32))
    arrays = {"tokens": tokens, "targets": targets, "segment_ids": ids, "positions": positions}
    return {name: jnp.asarray(array, jnp.int32) for name, array in arrays.items()}


def main(name: str, meshes: list[dict[str, int]]) -> None:
    model = Transformer(CONFIGS[name], PrecisionConfig(unroll=1, remat="full"))

    def loss(params, batch):
        scores = model(params, batch)
        weights = batch["segment_ids"] > 0
        return jnp.sum((-scores.log_probs + 1e-2 * scores.lse**2) * weights) / jnp.sum(weights)

    params, data = model.init(jax.random.key(0)), batch()
    params = jax.tree.map(lambda leaf: leaf if leaf.ndim < 3 else 5 * leaf, params)
    expected = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(loss))(params, data))
    for axes in meshes:
        mesh = make_mesh(MeshConfig(**axes))
        shardings = named_shardings(mesh, model.rules, model.logical_axes(), model.shapes())
        with jax.set_mesh(mesh):
            placed = jax.device_put(params, shardings), jax.device_put(data, batch_sharding(mesh, model.rules))
            step = jax.jit(jax.value_and_grad(loss), out_shardings=(None, shardings))
            compiled = step.lower(*placed).compile()
            actual = compiled(*placed)
        differences = [
            float(np.abs(np.asarray(left) - right).max() / np.abs(right).max())
            for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
        ]
        split = {leaf.sharding.num_devices for leaf in jax.tree.leaves(actual[1])}
        print(
            json.dumps(
                {
                    "axes": axes,
                    "worst": max(differences),
                    "devices": sorted(split),
                    "gather": "all-" in compiled.as_text(),
                }
            )
        )


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
