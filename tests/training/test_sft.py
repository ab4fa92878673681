"""Tuning on conversations with gin/train/sft.gin: what is learnt, from what, and what an interruption changes."""

from __future__ import annotations

import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.data.batches import BatchLoader
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.training.config import TrainConfig
from tests.training import small_run, tuning

STEPS = 20


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Stores of conversations, a model of two steps to tune, and `sft.gin`, which tunes it."""
    folder = tmp_path_factory.mktemp("sft")
    tuning.write_tokenizer(folder / "tokenizer")
    rows = [{"question": f"{n} + {n + 1}?", "answer": str(2 * n + 1) * (1 + n % 9)} for n in range(120)]
    (train, _) = tuning.prepare_tasks(folder, tuning.task(folder, "sums", "chat", rows))
    for recipe, steps in (("pretrain", 2), ("sft", STEPS)):
        tuning.write_run(folder, recipe, mixture={"sums": 1.0}, vocab_size=train.vocabulary.size, steps=steps)
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={folder / 'base'}", tuning.SEARCH)
    return folder


def command(workplace, name):
    return (
        *("train", workplace / "sft.gin", f"--gin.RUN_DIR={workplace / name}"),
        *(f"--gin.MODEL_DIR={workplace / 'base'}", tuning.SEARCH),
    )


@pytest.fixture(scope="module")
def tuned(workplace):
    small_run.run(*command(workplace, "whole"))
    return workplace / "whole"


def resolved(workplace, *bindings):
    return resolve(
        TrainConfig,
        files=[str(workplace / "sft.gin")],
        bindings=[f"RUN_DIR={workplace / 'other'}", *bindings],
        search_paths=tuning.SEARCH_PATHS,
    ).config


def test_the_first_loss_is_that_of_each_conversation_by_itself(workplace, tuned):
    """Mean over the assistant's tokens of a batch, each conversation scored alone, unpacked, by the model that is tuned."""
    config = resolved(workplace, f"MODEL_DIR={workplace / 'base'}")
    batch = BatchLoader(config.data, steps=1).batch(0)
    found = find_model(workplace / "base", pytest.fail)
    model = Transformer(found.config)
    params = load_params(found, model.shapes())
    score = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(params, {"tokens": tokens})))
    total, count, segments = 0.0, 0, 0
    for row in range(len(batch["tokens"])):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            inside = batch["segment_ids"][row] == segment
            tokens, targets, weights = (batch[name][row][inside] for name in ("tokens", "targets", "loss_weights"))
            alone = np.zeros((1, 96), np.int32)
            alone[0, : len(tokens)] = tokens
            log_probs = np.asarray(score(jnp.asarray(alone)), np.float64)[0, np.arange(len(tokens)), targets]
            total -= float(np.sum(log_probs * weights))
            count += int(np.sum(weights))
            segments += 1
    first = next(record for record in small_run.records(tuned) if record["kind"] == "train")
    assert segments > 16
    assert 0 < count < np.sum(batch["segment_ids"] > 0) / 2
    assert first["loss"] == pytest.approx(total / count, abs=2e-5)


def test_the_run_says_what_was_learnt_and_brings_its_template(workplace, tuned):
    losses = [record["loss"] for record in small_run.records(tuned) if record["kind"] == "train"]
    assert losses[-1] < losses[0]
    template = (workplace / "tokenizer" / "chat_template.jinja").read_bytes()
    assert (tuned / "tokenizer" / "chat_template.jinja").read_bytes() == template


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run(workplace, tuned):
    killed = workplace / "killed"
    process = small_run.start(*command(workplace, "killed"))
    small_run.wait_for(lambda: small_run.has_checkpoint(killed, 2), process)
    small_run.stop(process, signal.SIGKILL)
    assert not small_run.has_checkpoint(killed, STEPS)
    assert "(resumed)" in small_run.run(*command(workplace, "killed"))
    found, expected = (small_run.parameters(folder, STEPS) for folder in (killed, tuned))
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def test_a_model_to_tune_is_required(workplace):
    with pytest.raises(ConfigError, match="MODEL_DIR is required"):
        resolved(workplace)
