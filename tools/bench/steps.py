"""The training step that `aya train` runs, on a packed batch of random tokens, for the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np


class Step:
    """A compiled step with its state and batch.

    Attributes:
      config: the resolved TrainConfig.
      compile_seconds: what tracing and compiling took.
      program: the compiled step (`memory_analysis`).
    """

    def __init__(self, files: Sequence[str], rows: int, length: int, bindings: Sequence[str] = ()):
        """Resolves the files, makes the state, and compiles.

        Args:
          files: gin files of a training run.
          rows: sequences in a batch.
          length: tokens in each.
          bindings: `Class.field=value`.
        """
        import jax

        from aya_jax.config import resolve
        from aya_jax.models.transformer import Transformer
        from aya_jax.parallel.mesh import make_mesh
        from aya_jax.training.config import TrainConfig
        from aya_jax.training.optimizer import make_optimizer
        from aya_jax.training.placement import place
        from aya_jax.training.state import make_state, state_shardings
        from aya_jax.training.train import compile_step

        values = {"RUN_DIR": "none", "STORE_DIR": "none", "STEPS": 100, "GLOBAL_BATCH": rows, "SEQUENCE_LENGTH": length}
        bound = [f"{name}={value}" for name, value in values.items()]
        self.config = resolve(TrainConfig, files=files, bindings=[*bound, *bindings]).config
        model = Transformer(self.config.model, self.config.precision, self.config.mesh.logical_axes)
        optimizer, mesh = make_optimizer(self.config.optimizer), make_mesh(self.config.mesh)
        shardings = state_shardings(mesh, model, optimizer)
        with jax.set_mesh(mesh):
            self._state = make_state(model.init, jax.random.key(0), optimizer, shardings)
            self._batch = place(packed_batch(rows, length, self.config.model.vocab_size), mesh, model.rules)
            function = compile_step(self.config, model, optimizer, shardings, num_tasks=1)
            jax.block_until_ready(self._state)
            begin = time.perf_counter()
            self.program = function.lower(self._state, self._batch).compile()
            self.compile_seconds = time.perf_counter() - begin

    def take(self) -> None:
        """Takes one step and waits for it."""
        import jax

        self._state, metrics = self.program(self._state, self._batch)
        jax.block_until_ready((self._state, metrics))


def packed_batch(rows: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Random tokens in documents of a twelfth to a third of a row, as `data.batches` gives them; arrays [B, S]."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab_size, (rows, length)).astype(np.int32)
    segment_ids = np.stack([document_numbers(rng, length) for _ in range(rows)])
    new = np.diff(segment_ids, axis=1, prepend=0) != 0
    index = np.arange(length)
    positions = (index - np.maximum.accumulate(np.where(new, index, 0), axis=1)).astype(np.int32)
    return {
        "tokens": tokens,
        "targets": np.roll(tokens, -1, axis=1),
        "segment_ids": segment_ids,
        "positions": positions,
        "task_ids": np.zeros_like(tokens),
        "loss_weights": np.ones(tokens.shape, np.float32),
    }


def document_numbers(rng: np.random.Generator, length: int) -> np.ndarray:
    """int32 [S]: 1, 1, ..., 2, ...: the documents that fill a row."""
    lengths = rng.integers(max(1, length // 12), length // 3, length)
    return np.repeat(np.arange(1, length + 1), lengths)[:length].astype(np.int32)
