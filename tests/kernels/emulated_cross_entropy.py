"""Run by test_cross_entropy_sharded.py with eight emulated devices: prints one JSON object per case.

Each holds the largest differences from the closed form in float64 on one device, relative to the largest entry, and the
temporary memory per device of the operation and its gradients, or what is said of dims that do not divide.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats
from jax.sharding import NamedSharding

from aya_jax.kernels.cross_entropy import linear_cross_entropy, linear_statistics, pallas_tpu
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import partition_spec
from tests.kernels.test_cross_entropy import oracle

BATCH, LENGTH, WIDTH, VOCAB, SCALE = 8, 12, 16, 96, 0.5


def arrays(vocab):
    rng = np.random.default_rng(0)
    hidden, table = rng.normal(size=(BATCH, LENGTH, WIDTH)), rng.normal(size=(vocab, WIDTH))
    targets = rng.integers(0, vocab, (BATCH, LENGTH)).astype(np.int32)
    targets[:, ::2] = (hidden[:, ::2] @ table.T).argmax(-1)  # half of them the likeliest
    return hidden, table, targets, rng.normal(size=(2, BATCH, LENGTH))


def compare(case):
    """Values and gradients, through each result alone and through both."""
    vocab = case.get("vocab", VOCAB)
    hidden, table, targets, cotangents = arrays(vocab)
    rules = LogicalAxes(**{name: tuple(axes) if axes else None for name, axes in case.get("rules", {}).items()})
    mesh = make_mesh(MeshConfig(**case["mesh"]))
    options = {"implementation": case["name"], "logit_scale": SCALE, "interpret": case["name"] == "pallas_tpu"}
    options |= {"tile": 4} if case["name"] == "tiled" else {}

    def run(hidden, table, targets, cotangents, rules=rules):
        values, back = jax.vjp(lambda *a: linear_cross_entropy(*a, targets, rules=rules, **options), hidden, table)
        return values, back(tuple(cotangents))

    def place(array, *logical):
        return jax.device_put(array, NamedSharding(mesh, partition_spec(rules, logical)))

    worst = {}
    with jax.set_mesh(mesh):
        placed = (
            place(jnp.float32(hidden), "batch", "sequence", None),
            place(jnp.float32(table), "vocab", "embed"),
            place(targets, "batch", "sequence"),
        )
        shardings = None, (placed[0].sharding, placed[1].sharding)
        step = jax.jit(run, out_shardings=shardings, static_argnames="rules")
        for name, mask in {"log_probs": (1, 0), "lse": (0, 1), "both": (1, 1)}.items():
            grads = cotangents * np.array(mask)[:, None, None]
            split = [place(jnp.float32(grad), "batch", "sequence") for grad in grads]
            values, gradients = jax.device_get(step(*placed, split))
            expected = oracle(hidden, table, targets, SCALE, *grads)
            worst[name] = max(
                float(np.abs(left - right).max() / np.abs(right).max())
                for left, right in zip((*values, *gradients), expected, strict=True)
            )
        statistics = jax.jit(lambda *a: linear_statistics(*a, logit_scale=SCALE, rules=rules, tile=4))
        worst |= measure_statistics(jax.device_get(statistics(*placed)), SCALE * hidden @ table.T, targets)
        text = step.lower(*placed, split).compile().as_text()
    return worst | {"whole logits": f"f32[{BATCH},{LENGTH},{vocab}]" in text}


def measure_statistics(found, logits, targets):
    """The largest difference of an entropy, and of how many tokens it is known wrongly whether they are the likeliest."""
    expected = scipy.stats.entropy(scipy.special.softmax(logits, axis=-1), axis=-1)
    right = logits.argmax(-1) == targets
    return {"entropy": float(np.abs(found.entropy - expected).max()), "wrong": int((found.correct != right).sum())}


def memory(case):
    """Temporary bytes of value and gradients at a size where they tell, in bfloat16 with a float32 table."""
    mesh, rules = make_mesh(MeshConfig(**case["mesh"])), LogicalAxes()

    def shape(dims, dtype, *logical):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, partition_spec(rules, logical)))

    def run(hidden, table, targets, rules):
        def loss(hidden, table):
            log_probs, lse = linear_cross_entropy(hidden, table, targets, rules=rules, implementation="tiled", tile=32)
            return jnp.sum(1e-4 * lse**2 - log_probs)

        return jax.value_and_grad(loss, argnums=(0, 1))(hidden, table)

    arguments = (
        shape((8, 256, 64), jnp.bfloat16, "batch", "sequence", None),
        shape((16384, 64), jnp.float32, "vocab", "embed"),
        shape((8, 256), jnp.int32, "batch", "sequence"),
    )
    shardings = None, tuple(argument.sharding for argument in arguments[:2])
    with jax.set_mesh(mesh):
        step = jax.jit(run, static_argnums=3, out_shardings=shardings)
        sharded = step.lower(*arguments, rules).compile()
    whole = [jax.ShapeDtypeStruct(argument.shape, argument.dtype) for argument in arguments]
    alone = jax.jit(run, static_argnums=3).lower(*whole, None).compile()
    both = {"sharded": sharded, "one device": alone}
    return {name: compiled.memory_analysis().temp_size_in_bytes for name, compiled in both.items()}


def refusals():
    """What is said of dims that do not divide."""
    said = []
    mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
    shapes = [((4, 4), (7, 4)), ((4, 4), (8, 3)), ((3, 4), (8, 4)), ((4, 5), (8, 4))]
    with jax.set_mesh(mesh):
        for tokens, table in shapes:
            arguments = jnp.zeros((*tokens, table[1])), jnp.zeros(table), jnp.zeros(tokens, jnp.int32)
            try:
                jax.eval_shape(lambda *a: linear_cross_entropy(*a, rules=LogicalAxes()), *arguments)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
    return said


if __name__ == "__main__":
    pallas_tpu.GRADIENT_PIECE = 1024  # several pieces of the table's gradient
    what = {"compare": compare, "memory": memory}
    for case in json.loads(sys.argv[1]):
        print(json.dumps(refusals() if case == "refusals" else what[case.pop("what")](case)), flush=True)
