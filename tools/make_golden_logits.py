"""Makes tests/models/golden/*.npz: small models of transformers with random weights, and their logits; and the same models
as transformers saves them, in tests/interop/golden/.

    python tools/make_golden_logits.py [DIRECTORY]

The files hold the weights in this project's layout, the tokens and the logits, so that the default tests compare with
transformers without having it. The test marked `parity` does the same live.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aya_jax.models.config import TransformerConfig

GOLDEN = Path(__file__).parent.parent / "tests" / "models" / "golden"
HUGGING_FACE = Path(__file__).parent.parent / "tests" / "interop" / "golden"

_OURS = {
    "vocab_size": 96,
    "embed_dim": 32,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 8,
    "mlp_dim": 48,
    "max_sequence_length": 256,
}
CONFIGS = {
    "cohere": TransformerConfig(**_OURS, num_layers=2, logit_scale=0.25),
    "cohere_qk_norm": TransformerConfig(**_OURS, num_layers=2, logit_scale=0.0625, qk_norm=True),
    "cohere2": TransformerConfig(
        **_OURS,
        num_layers=4,
        logit_scale=0.25,
        rope_theta=50_000.0,
        sliding_window=5,
        sliding_window_pattern=4,
        rope_on_full_layers=False,
    ),
    "llama3": TransformerConfig(
        **_OURS,
        num_layers=2,
        block="sequential",
        norm="rms_norm",
        rope_layout="half",
        rope_theta=500_000.0,
        rope_scaling="llama3",
        rope_original_length=32,
        tie_embeddings=False,
    ),
}
BATCH, LENGTH = 2, 24


def torch_model(name: str) -> Any:
    """The transformers model that corresponds to CONFIGS[name], with random weights that float16 holds exactly."""
    import torch
    import transformers

    c = CONFIGS[name]
    shared = {
        "vocab_size": c.vocab_size,
        "hidden_size": c.embed_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "intermediate_size": c.mlp_dim,
        "max_position_embeddings": c.max_sequence_length,
        "tie_word_embeddings": c.tie_embeddings,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    rope = {"rope_type": "default", "rope_theta": c.rope_theta}
    torch.manual_seed(sum(map(ord, name)))
    if c.block == "sequential":
        rope |= {
            "rope_type": "llama3",
            "factor": c.rope_scaling_factor,
            "low_freq_factor": c.rope_low_frequency_factor,
            "high_freq_factor": c.rope_high_frequency_factor,
            "original_max_position_embeddings": c.rope_original_length,
        }
        config = transformers.LlamaConfig(**shared, rms_norm_eps=c.norm_eps, rope_parameters=rope)
        model = transformers.LlamaForCausalLM(config)
    elif c.sliding_window:
        config = transformers.Cohere2Config(
            **shared,
            logit_scale=c.logit_scale,
            head_dim=c.head_dim,
            sliding_window=c.sliding_window,
            layer_types=["sliding_attention"] * 3 + ["full_attention"],
            rope_parameters=rope,
        )
        model = transformers.Cohere2ForCausalLM(config)
    else:
        config = transformers.CohereConfig(
            **shared, logit_scale=c.logit_scale, use_qk_norm=c.qk_norm, rope_parameters=rope
        )
        model = transformers.CohereForCausalLM(config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            values = torch.rand_like(weight) + 0.5 if "norm" in key else 0.2 * torch.randn_like(weight)
            weight.copy_(values.half().float())
    return model.eval()


def convert(state: dict[str, Any], c: TransformerConfig) -> dict[str, Any]:
    """A transformers state dict as this project's parameters: matrices input-first, layers stacked."""

    def stack(name: str, shape: tuple[int, ...] = (), transpose: bool = True) -> np.ndarray:
        arrays = [state[f"model.layers.{i}.{name}.weight"].numpy() for i in range(c.num_layers)]
        return np.stack([(array.T if transpose else array).reshape(shape or array.T.shape) for array in arrays])

    heads, kv_heads = (c.embed_dim, c.num_heads, c.head_dim), (c.embed_dim, c.num_kv_heads, c.head_dim)
    layers: dict[str, Any] = {
        "attention": {
            "query": stack("self_attn.q_proj", heads),
            "key": stack("self_attn.k_proj", kv_heads),
            "value": stack("self_attn.v_proj", kv_heads),
            "output": stack("self_attn.o_proj", (c.num_heads, c.head_dim, c.embed_dim)),
        },
        "mlp": {name: stack(f"mlp.{name}_proj") for name in ("gate", "up", "down")},
    }
    if c.qk_norm:
        for name, short in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            layers["attention"][name] = {
                "scale": stack(f"self_attn.{short}", heads[1:] if short[0] == "q" else kv_heads[1:], False)
            }
    names = {"norm": "input_layernorm"}
    if c.block == "sequential":
        names = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    for ours, theirs in names.items():
        layers[ours] = {"scale": stack(theirs, (c.embed_dim,))}
    params = {
        "embedding": {"table": state["model.embed_tokens.weight"].numpy()},
        "layers": layers,
        "final_norm": {"scale": state["model.norm.weight"].numpy()},
    }
    if not c.tie_embeddings:
        params["head"] = {"table": state["lm_head.weight"].numpy()}
    return params


def tokens() -> np.ndarray:
    """int32 [BATCH, LENGTH]."""
    return np.random.default_rng(7).integers(3, _OURS["vocab_size"], (BATCH, LENGTH), dtype=np.int32)


def torch_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """float32 [B, S, V]."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(ids, dtype=torch.long)).logits.numpy()


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """{"layers/mlp/gate": array, ...}."""
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat


def unflatten(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def main(directory: Path, say: Callable[[str], None] = print) -> None:
    """Writes one file per model of CONFIGS."""
    import transformers

    directory.mkdir(parents=True, exist_ok=True)
    for name, config in CONFIGS.items():
        model, ids = torch_model(name), tokens()
        weights = flatten(convert(model.state_dict(), config), "params/")
        weights = {path: array.astype(np.float16) for path, array in weights.items()}
        path = directory / f"{name}.npz"
        fields = np.array(repr(dataclasses.asdict(config)))
        np.savez_compressed(
            path,
            tokens=ids,
            logits=torch_logits(model, ids),
            config=fields,
            transformers=np.array(transformers.__version__),
            **weights,
        )
        say(f"{path}: {path.stat().st_size:,} bytes")
        model.half().save_pretrained(HUGGING_FACE / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
