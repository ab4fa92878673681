"""Models that score texts: rewards of answers, and log-probabilities of answers under another model's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.interop.model_dir import ModelDir, find_model, load_params
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.reward import RewardModel
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes
from aya_jax.parallel.sharding import replicated
from aya_jax.synthesis.config import RewardModelConfig
from aya_jax.synthesis.scorers import Answer
from aya_jax.synthesis.token_batches import token_batches
from aya_jax.training.placement import batch_shards, place_whole
from aya_jax.training.state import abstract_params


class RewardScorer:
    """A reward model of ours as a `Scorer`: each answer's reward is that of its last token."""

    def __init__(self, config: RewardModelConfig, mesh: Mesh, rules: LogicalAxes, say: Callable[[str], None]):
        """Loads the model.

        Args:
          config: which.
          mesh: that it runs on.
          rules: how the mesh divides it.
          say: is told what the user should know.

        Raises:
          UserError: there is none, it gives no rewards, or its tokenizer or chat template is missing.
        """
        found = find_model(config.model_dir, say)
        if found.head != "reward":
            raise UserError(
                f"{config.model_dir}: a model of tokens and not of rewards; train one with gin/train/reward.gin"
            )
        if found.tokenizer is None:
            raise UserError(f"{config.model_dir}: there is no tokenizer beside the weights")
        self._tokenizer = ChatTokenizer.open(found.tokenizer)
        self._mesh, self._longest = mesh, found.config.max_sequence_length
        self._model = RewardModel(found.config, PrecisionConfig(), rules)
        self._params = load_params(found, abstract_params(self._model, mesh))
        self._rows = whole_shards(config.rows, mesh, rules)
        self._score = jax.jit(self._last_rewards, out_shardings=replicated(mesh))

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """As `Scorer.score`; an answer that is too long for the model, or empty, has no reward."""
        sequences = [self._tokens(answer) for answer in answers]
        fitting = [n for n, ids in enumerate(sequences) if 0 < len(ids) <= self._longest]
        rewards = [float("nan")] * len(answers)
        for chosen, tokens in token_batches([sequences[n] for n in fitting], self._rows):
            last = np.zeros((self._rows, 1), np.int32)
            last[: len(chosen), 0] = [len(sequences[fitting[n]]) - 1 for n in chosen]
            batch = place_whole({"tokens": tokens, "last": last}, self._mesh, self._model.rules)
            found = np.asarray(self._score(self._params, batch))
            for row, number in enumerate(chosen):
                rewards[fitting[number]] = float(found[row])
        return rewards

    def _last_rewards(self, params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        rewards = self._model(params, {"tokens": batch["tokens"]})
        return jnp.take_along_axis(rewards, batch["last"], axis=1)[:, 0]

    def _tokens(self, answer: Answer) -> list[int]:
        if not answer.text.strip():
            return []
        said = Message("assistant", answer.text)
        return self._tokenizer.encode_chat([*answer.messages, said], add_generation_prompt=False)


class LogProbScorer:
    """Log-probabilities of answers under a model's weights, which are loaded for one call and gone after it."""

    def __init__(self, found: ModelDir, precision: PrecisionConfig, mesh: Mesh, rules: LogicalAxes, rows: int = 16):
        self._found, self._mesh = found, mesh
        self._model = Transformer(found.config, precision, rules)
        self._rows = whole_shards(rows, mesh, rules)
        self._score = jax.jit(
            lambda params, batch: self._model(params, batch).log_probs, out_shardings=replicated(mesh)
        )

    def score(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[float]:
        """The sum over each answer's tokens of log p(token | prompt and answer so far)."""
        params = load_params(self._found, abstract_params(self._model, self._mesh))
        sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        sums = [0.0] * len(sequences)
        for chosen, tokens in token_batches(sequences, self._rows):
            batch = {"tokens": tokens, "targets": np.roll(tokens, -1, axis=1)}
            found = np.asarray(self._score(params, place_whole(batch, self._mesh, self._model.rules)), np.float64)
            for row, number in enumerate(chosen):
                sums[number] = float(found[row, len(prompts[number]) - 1 : len(sequences[number]) - 1].sum())
        return sums


def whole_shards(rows: int, mesh: Mesh, rules: LogicalAxes) -> int:
    """So many rows, or a few more, that the mesh divides them evenly."""
    shards = batch_shards(mesh, rules)
    return -(-rows // shards) * shards
