"""Rewards that a policy holds without a reward head: what preference optimization has taught it (papers.md 4).

r(x, y) = log pi(y | x) - log pi_ref(y | x), summed over the tokens that DPO trains on: the answer and the end of its turn (DPO,
arXiv 2305.18290, equation 5, without beta, which changes no order). Without a reference r is log pi alone, for which length
decides a lot: `reduce = "mean"` divides by the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.evaluation.judging.config import ImplicitRewardConfig
from aya_jax.evaluation.judging.judge import Judged, RewardFunction
from aya_jax.evaluation.likelihoods import known_or_scored
from aya_jax.evaluation.scoring import Continuation, Scorer
from aya_jax.evaluation.subject import Subject
from aya_jax.interop.model_dir import ModelDir, find_model, trained_with
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.compilation import use_compilation_cache
from aya_jax.parallel.mesh import make_mesh


def implicit_rewards(
    config: ImplicitRewardConfig, file: Path, console: Console, advance: Callable[[int], None]
) -> RewardFunction:
    """Implicit rewards as a function; log-probabilities that are known of these weights are not computed again.

    Weights are in memory one model at a time: the policy's for all answers, then the reference's.

    Args:
      config: which policy and reference.
      file: of the results; what is known lies in the folder `answers` beside it.
      console: where the user is told.
      advance: is told how many answers each model has read.

    Raises:
      UserError: a model is not to be had, the policy has no chat template, or the two read other tokens.
    """
    use_compilation_cache(config.compilation_cache)
    mesh = make_mesh(config.mesh)
    models = [find_model(config.model_dir, console.print, config.adapter)]
    if config.reference_dir is not None:
        models.append(find_model(config.reference_dir, console.print))
    tokenizer, *others = _tokenizers(models)
    longest = min(found.config.max_sequence_length for found in models)

    def rewards(judged: Sequence[Judged]) -> list[float]:
        _check_tokens(models, tokenizer, others, [each.text for each in judged])
        asked = [continuation(tokenizer, each) for each in judged]
        read = [n for n, each in enumerate(asked) if len(each.context) + len(each.tokens) <= longest]
        some = [asked[n] for n in read]
        policy, *reference = (_log_probs(model, config, mesh, file, console, some, advance) for model in models)
        ratios = policy - reference[0] if reference else policy
        if config.reduce == "mean":
            ratios = ratios / [len(each.tokens) for each in some]
        found = np.full(len(judged), np.nan)
        found[read] = ratios
        return found.tolist()

    return rewards


def continuation(tokenizer: ChatTokenizer, judged: Judged) -> Continuation:
    """The prompt by the chat template, and the tokens of the answer that training learns: its text and the end of its turn.

    Raises:
      UserError: the template does not tell them apart.
    """
    ids, weights = tokenizer.encode_training(
        [*judged.messages, Message("assistant", judged.text)], len(judged.messages)
    )
    learnt = np.flatnonzero(weights)
    return Continuation(tuple(ids[: learnt[0]]), tuple(ids[learnt[0] : learnt[-1] + 1]))


def _tokenizers(models: Sequence[ModelDir]) -> list[ChatTokenizer]:
    """Of each model.

    Raises:
      UserError: one has none, or gives rewards and not probabilities.
    """
    for found in models:
        if found.tokenizer is None:
            raise UserError(f"{found.path}: there is no tokenizer beside the weights; put its tokenizer.json there")
        if found.head is not None:
            raise UserError(
                f"{found.path}: a {found.head} model, which gives no probabilities; judge/reward.gin takes it"
            )
    return [ChatTokenizer.open(found.tokenizer) for found in models]


def _check_tokens(
    models: Sequence[ModelDir], mine: ChatTokenizer, others: Sequence[ChatTokenizer], texts: Sequence[str]
) -> None:
    """Refuses a reference to which the policy's tokens would be other texts."""
    for found, other in zip(models[1:], others, strict=True):
        if other.vocabulary.digest == mine.vocabulary.digest:
            continue
        if other.vocabulary.encode_batch(texts) != mine.vocabulary.encode_batch(texts):
            raise UserError(
                f"{found.path}: its tokenizer reads the answers as other tokens than that of {models[0].path}; a reference is "
                "a model of the same tokens, most often the one that the policy was trained from"
            )


def _log_probs(
    found: ModelDir,
    config: ImplicitRewardConfig,
    mesh: Mesh,
    file: Path,
    console: Console,
    asked: Sequence[Continuation],
    advance: Callable[[int], None],
) -> np.ndarray:
    """log p(tokens | context) of each, float64 [N], by one model, whose weights are gone when this returns."""
    trained = trained_with(found)
    precision = config.precision or (trained.precision if trained else PrecisionConfig())
    subject = Subject(found, Transformer(found.config, precision, config.mesh.logical_axes), mesh, chat=False)
    longest = subject.max_length(None)
    scorer = Scorer(subject.model, mesh, max_length=longest, batch_tokens=config.batch_tokens)
    with subject.answers(file, console) as known:
        found = known_or_scored(
            asked,
            lambda new, take: scorer.score(subject.params(), new, take),
            known,
            max_length=longest,
            advance=advance,
        )
        return np.array([each.log_prob for each in found], np.float64)
