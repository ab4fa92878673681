"""What a run goes on from: its newest checkpoint, another model's weights, or random ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.data.batches import BatchLoader
from aya_jax.interop.model_dir import ModelDir, find_model, load_params, vocabulary_info, weights_digest
from aya_jax.models.low_rank import AdaptedModel, Model, base_model
from aya_jax.models.reward import HEAD, RewardModel
from aya_jax.training.checkpoint import Checkpoints
from aya_jax.training.config import TrainConfig
from aya_jax.training.state import TrainState, abstract_params, abstract_state, make_state
from aya_jax.training.tokenizer_files import keep_tokenizer


class Started(NamedTuple):
    """What a run goes on from.

    Attributes:
      state: of the step that is next.
      about: what its checkpoints say beside its weights and batches: of which weights an adapter is one.
      pending: the sums since the last record, where the run was stopped between two.
    """

    state: TrainState
    about: dict[str, Any]
    pending: Mapping[str, Any] | None = None


def start(
    config: TrainConfig,
    model: Model,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    checkpoints: Checkpoints,
    loader: BatchLoader,
    console: Console,
) -> Started:
    """What a run goes on from.

    Raises:
      UserError: there is no model where the configuration says, it is of another shape or kind, or the run's batches or the
        model under its adapter are not those that it has been trained with.
    """
    found = config.initialize_from and find_model(config.initialize_from, console.print)
    if found:
        _check_tokenizer(found, loader)
    about = _about(config, found) if found else {}
    like = abstract_state(model, optimizer, shardings)
    restored = checkpoints.restore(like, functools.partial(_check, loader, about))
    if restored is not None:
        frozen = load_params(found, like.frozen) if isinstance(model, AdaptedModel) else None
        return Started(restored.state._replace(frozen=frozen), about, restored.meta.get("monitor"))
    if jax.process_index() == 0:
        keep_tokenizer(config.run_dir, config.data.store_dir, loader.vocabulary, found and found.tokenizer)
    key = jax.random.key(config.seed)
    if not found:
        return Started(make_state(model.init, key, optimizer, shardings), about)
    console.print(f"Starting from the weights of {found.path}.", highlight=False)
    return Started(_from_weights(found, model, mesh, key, optimizer, shardings, like), about)


def _from_weights(
    found: ModelDir,
    model: Model,
    mesh: Mesh,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    shardings: TrainState,
    like: TrainState,
) -> TrainState:
    """The state before the first step; what the model's files lack (adapters, a head) is made."""
    if isinstance(model, RewardModel) and found.head is not None:
        return make_state(lambda given: given, load_params(found, like.params), optimizer, shardings)
    body = load_params(found, like.frozen or abstract_params(base_model(model), mesh))
    if isinstance(model, AdaptedModel):
        return make_state(model.init, key, optimizer, shardings)._replace(frozen=body)
    if isinstance(model, RewardModel):
        return make_state(lambda given: given[0] | {HEAD: model.init_head(given[1])}, (body, key), optimizer, shardings)
    return make_state(lambda given: given, body, optimizer, shardings)


def _about(config: TrainConfig, found: ModelDir) -> dict[str, Any]:
    """What a checkpoint says of an adapter: of which weights it is one, and how."""
    if config.adapter is None:
        return {}
    if found.head is not None:
        raise UserError(f"{found.path}: a {found.head} model; adapters are trained on models of tokens")
    weights = {"base": str(found.whole), "base_digest": weights_digest(found)}
    return {"adapter": weights | {"scale": config.adapter.scale, "matrices": list(config.adapter.names)}}


def _check_tokenizer(found: ModelDir, loader: BatchLoader) -> None:
    """Refuses token stores in which the model's ids mean something else; of a model without a tokenizer nobody can tell."""
    if found.tokenizer is None:
        return
    own, stored = vocabulary_info(found), loader.vocabulary
    if own.digest != stored.digest:
        raise UserError(
            f"{found.whole}: this model's tokenizer ({own.spec}, {own.size} tokens) is not the one that the token stores were "
            f"made with ({stored.spec}, {stored.size}); prepare them with VOCABULARY = {found.tokenizer}"
        )


def _check(loader: BatchLoader, about: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Refuses to go on with batches, or over weights, that are not those of the run so far."""
    saved, now = meta["loader"], loader.identity()
    changed = [name for name in sorted(saved.keys() | now.keys()) if saved.get(name) != now.get(name)]
    if changed:
        raise UserError(
            f"step {meta['step']} was trained on other batches: {', '.join(changed)} changed since (a token store was "
            "prepared again, or the order of batches is another version's). Put the old stores back, or start in another "
            "RUN_DIR."
        )
    before, after = (of.get("adapter", {}).get("base_digest") for of in (meta, about))
    if before != after:
        raise UserError(
            f"step {meta['step']} adapts other weights than are in MODEL_DIR now; put those back, or start in another RUN_DIR."
        )
