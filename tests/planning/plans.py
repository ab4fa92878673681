"""Plans for tests: a model of width 64 on whatever machine."""

import subprocess
import sys

from aya_jax.config import resolve
from aya_jax.planning.config import PlanConfig

TINY = (
    "TransformerConfig.vocab_size=512",
    "TransformerConfig.embed_dim=64",
    "TransformerConfig.num_layers=4",
    "TransformerConfig.num_heads=4",
    "TransformerConfig.num_kv_heads=2",
    "TransformerConfig.head_dim=16",
    "TransformerConfig.mlp_dim=128",
    "SEQUENCE_LENGTH=64",
)


def tiny(target: str, *bindings: str, hardware: str = "cpu", batch: int = 16) -> PlanConfig:
    """The plan of a tiny run; batch in rows."""
    files = ["plan/base.gin", "models/base_cohere.gin", f"hardware/{hardware}.gin"]
    flags = [*TINY, f"TARGET={target}", f"GLOBAL_BATCH={batch}", *bindings]
    return resolve(PlanConfig, files, flags).config


def aya_plan(*arguments: str, timeout: int = 300) -> subprocess.CompletedProcess:
    """`aya plan` in a process of its own."""
    command = [sys.executable, "-m", "aya_jax", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def flags(*bindings: str) -> list[str]:
    """Bindings as the command line has them."""
    return [f"--gin.{binding}" for binding in (*TINY, *bindings)]
