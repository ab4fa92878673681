"""A model of random weights as a Hugging Face directory, with a small chat tokenizer: for servers and engines to be tried with.

python -m tools.random_model models/tiny --embed-dim 64 --layers 2
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from aya_jax.interop.hugging_face_config import write_config
from aya_jax.interop.model_dir import expected_tensors
from aya_jax.models.config import TransformerConfig

CHAT = Path(__file__).resolve().parents[1] / "tests/data/golden/chat.json"


def shape(embed_dim: int = 32, layers: int = 2, max_length: int = 512) -> TransformerConfig:
    """A small model in the shape of Cohere's."""
    return TransformerConfig(
        vocab_size=340,
        embed_dim=embed_dim,
        num_layers=layers,
        num_heads=embed_dim // 8,
        num_kv_heads=embed_dim // 16,
        head_dim=8,
        mlp_dim=2 * embed_dim,
        max_sequence_length=max_length,
        logit_scale=0.25,
    )


def write_random_model(folder: Path, config: TransformerConfig, seed: int = 0) -> Path:
    """Weights, config.json and the tokenizer of tools/make_golden_chat.py; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tensors = {
        name: np.ones(dims, np.float32) if len(dims) == 1 else rng.normal(0, 0.3, dims).astype(np.float32)
        for name, dims in expected_tensors(config).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(write_config(config, {}, "float32")), encoding="utf-8")
    for name, content in json.loads(CHAT.read_text(encoding="utf-8"))["files"].items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def main() -> None:
    """Writes one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--embed-dim", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=512)
    arguments = parser.parse_args()
    config = shape(arguments.embed_dim, arguments.layers, arguments.max_length)
    print(write_random_model(arguments.folder, config))


if __name__ == "__main__":
    main()
