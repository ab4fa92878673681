"""Run under eight emulated devices by test_engine.py: one line of JSON for one device, then for each mesh that is named."""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

from aya_jax.inference.config import EngineConfig, SamplingConfig
from aya_jax.inference.engine import Engine, TokenRequest
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import named_shardings
from tests.inference.test_engine import wide_params
from tools.make_golden_logits import CONFIGS

MESHES = {
    "one": (1, MeshConfig(fsdp=1)),
    "tensor": (2, MeshConfig(fsdp=1, tensor=2)),
    "fsdp and tensor": (8, MeshConfig(fsdp=4, tensor=2)),
    # More devices than key heads: each keeps all of them, and takes those that its query heads use.
    "heads": (8, MeshConfig(fsdp=2, tensor=4, logical_axes=LogicalAxes(kv_heads=None))),
}


def main() -> None:
    rng = np.random.default_rng(0)
    begin = rng.integers(3, 96, 40).tolist()
    prompts = [rng.integers(3, 96, length).tolist() for length in (3, 50, 20, 33, 7)] + [
        [*begin, 5],
        [*begin, 6],
        [*begin, 6],
    ]
    for name in ("one", *sys.argv[1:]):
        devices, config = MESHES[name]
        mesh = make_mesh(config, jax.devices()[:devices])
        with jax.set_mesh(mesh):
            model = Transformer(CONFIGS["cohere2"], rules=config.logical_axes)
            shardings = named_shardings(mesh, model.rules, model.logical_axes(), model.shapes())
            params = jax.jit(lambda model=model: wide_params(model), out_shardings=shardings)()
            engine = Engine(model, params, EngineConfig(slots=4, max_length=100, prefill_chunk=16))
            outcomes = [[] for _ in prompts]
            for number, (prompt, tokens) in enumerate(zip(prompts, outcomes, strict=True)):
                sampling = SamplingConfig(max_tokens=9, temperature=float(number % 2), seed=number, log_probs=0)
                engine.submit(
                    TokenRequest(prompt=prompt, sampling=sampling), lambda p, tokens=tokens: tokens.extend(p.tokens)
                )
            while engine.step():
                pass
        result = {
            "mesh": name,
            "tokens": [[token.id for token in tokens] for tokens in outcomes],
            "log_probs": [[token.log_prob for token in tokens] for tokens in outcomes],
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
