"""Adapters trained by `aya train`: what a run keeps, how runs stand on each other, and what other programs read of them."""

from __future__ import annotations

import math
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import ConfigError, UserError, resolve
from aya_jax.interop.adapter import read_adapter
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.training.config import TrainConfig
from tests.training import small_run, tuning

STEPS = 8
LOW_RANK = tuning.ROOT / "gin" / "train" / "low_rank.gin"
PAIRS = [{"prompt": f"What is {n}?", "chosen": str(n) * 2, "rejected": "no " * (1 + n % 3)} for n in range(60)]
SUMS = [{"question": f"{n} + {n + 1}?", "answer": str(2 * n + 1)} for n in range(60)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Conversations, pairs, a model of two steps, and the runs' files."""
    folder = tmp_path_factory.mktemp("adapters")
    tuning.write_tokenizer(folder / "tokenizer")
    tasks = [tuning.task(folder, "sums", "chat", SUMS), tuning.task(folder, "pairs", "preference", PAIRS)]
    (train, *_) = tuning.prepare_tasks(folder, *tasks)
    size = train.vocabulary.size
    tuning.write_run(folder, "pretrain", mixture={"sums": 1.0}, vocab_size=size, steps=2)
    tuning.write_run(folder, "sft", mixture={"sums": 1.0}, vocab_size=size, steps=STEPS)
    tuning.write_run(folder, "dpo", mixture={"pairs": 1.0}, vocab_size=size, steps=STEPS)
    tuning.write_run(folder, "reward", mixture={"pairs": 1.0}, vocab_size=size, steps=STEPS)
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={folder / 'base'}", tuning.SEARCH)
    return folder


def command(workplace, recipe, name, base="base", *more):
    return (
        *("train", workplace / f"{recipe}.gin", LOW_RANK, f"--gin.RUN_DIR={workplace / name}", tuning.SEARCH),
        *(f"--gin.MODEL_DIR={workplace / base}", "--gin.AdapterConfig.rank=4", *more),
    )


@pytest.fixture(scope="module")
def tuned(workplace):
    """An adapter of the base."""
    small_run.run(*command(workplace, "sft", "tuned"))
    return workplace / "tuned"


@pytest.fixture(scope="module")
def preferred(workplace, tuned):
    """An adapter of that, and what the run said."""
    output = small_run.run(*command(workplace, "dpo", "preferred", "tuned"))
    return workplace / "preferred", output


def losses(run_dir):
    return [record["loss"] for record in small_run.records(run_dir) if record["kind"] == "train"]


def logits(path, tokens):
    found = find_model(path, pytest.fail)
    model = Transformer(found.config)
    return model.logits(load_params(found, model.shapes()), {"tokens": jnp.asarray(tokens)})


TOKENS = np.random.default_rng(0).integers(8, 200, (2, 24)).astype(np.int32)


def test_a_checkpoint_holds_the_adapter_alone(workplace, tuned):
    kept, base = (small_run.parameters(folder, step) for folder, step in ((tuned, STEPS), (workplace / "base", 2)))
    assert kept
    assert all(name.startswith("adapter") for name in kept)
    assert sum(map(np.size, kept.values())) < sum(map(np.size, base.values())) / 2
    assert losses(tuned)[-1] < losses(tuned)[0]


def test_a_run_s_directory_is_the_adapted_model(workplace, tuned):
    """By hand: every matrix of the base with its change added, in float64."""
    found = find_model(tuned, pytest.fail)
    kept = small_run.parameters(tuned, STEPS)
    base = find_model(workplace / "base", pytest.fail)
    params = load_params(base, Transformer(base.config).shapes())
    for name in ("attention/query", "attention/output", "mlp/down"):
        part, matrix = name.split("/")
        a, b = (
            next(
                value
                for key, value in kept.items()
                if part in key and matrix in key and key.rstrip("']").endswith(each)
            )
            for each in ("a", "b")
        )
        weight = np.asarray(params["layers"][part][matrix], np.float64)
        change = np.stack([(x.reshape(-1, 4).astype(np.float64) @ y.reshape(4, -1)) for x, y in zip(a, b, strict=True)])
        params["layers"][part][matrix] = jnp.asarray(weight + 32 / 4 * change.reshape(weight.shape), jnp.float32)
        loaded = load_params(found, Transformer(found.config).shapes())["layers"][part][matrix]
        np.testing.assert_allclose(loaded, params["layers"][part][matrix], atol=1e-6)
    assert np.abs(logits(tuned, TOKENS) - logits(workplace / "base", TOKENS)).max() > 0.01


@pytest.mark.slow
def test_an_adapter_over_an_adapter_starts_where_that_ended(workplace, preferred):
    run_dir, output = preferred
    assert "Computing the reference log-probabilities" in output
    assert losses(run_dir)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses(run_dir)[-1] < losses(run_dir)[0]
    assert np.abs(logits(run_dir, TOKENS) - logits(workplace / "tuned", TOKENS)).max() > 0.01


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_run(workplace, tuned):
    killed = workplace / "killed"
    process = small_run.start(*command(workplace, "sft", "killed"))
    small_run.wait_for(lambda: small_run.has_checkpoint(killed, 2), process)
    small_run.stop(process, signal.SIGKILL)
    assert not small_run.has_checkpoint(killed, STEPS)
    assert "(resumed)" in small_run.run(*command(workplace, "sft", "killed"))
    found, expected = (small_run.parameters(folder, STEPS) for folder in (killed, tuned))
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.slow
def test_eight_devices_give_what_one_does(workplace, tuned):
    mesh = [f"--gin.MeshConfig.{axis}=2" for axis in ("data", "fsdp", "tensor")]
    small_run.run(*command(workplace, "sft", "eight", "base", *mesh), devices=8)
    np.testing.assert_allclose(losses(workplace / "eight"), losses(tuned), atol=2e-3)
    assert losses(workplace / "eight")[0] == pytest.approx(losses(tuned)[0], rel=1e-5)


@pytest.mark.slow
def test_a_reward_model_may_be_an_adapter_with_a_head(workplace):
    small_run.run(*command(workplace, "reward", "reward"))
    found = find_model(workplace / "reward", pytest.fail)
    assert found.head == "reward"
    kept = small_run.parameters(workplace / "reward", STEPS)
    assert any(name.startswith("reward_head") for name in kept)
    last = [record for record in small_run.records(workplace / "reward") if record["kind"] == "train"][-1]
    assert last["accuracy"] > 0.8


def test_exported_it_is_the_same_model(workplace, preferred, capsys):
    run_dir, _ = preferred
    target, alone = workplace / "merged", workplace / "peft"
    assert main(["convert", f"--gin.SOURCE={run_dir}", f"--gin.TARGET={target}"]) == 0
    assert "a Hugging Face model" in capsys.readouterr().out
    np.testing.assert_allclose(logits(target, TOKENS), logits(run_dir, TOKENS), atol=1e-5)
    options = [f"--gin.TARGET={alone}", "--gin.ConvertConfig.adapter_alone=True"]
    assert main(["convert", f"--gin.SOURCE={run_dir}", *options]) == 0
    written, found = read_adapter(alone), find_model(run_dir, pytest.fail)
    for name, factors in found.adapter.factors.items():
        again = written.factors[name]
        np.testing.assert_allclose(again.scale * again.b @ again.a, factors.scale * factors.b @ factors.a, atol=1e-6)
    assert len(written.factors) == 7 * found.config.num_layers
    bare = [f"--gin.SOURCE={workplace / 'base'}", f"--gin.TARGET={workplace / 'none'}"]
    assert main(["convert", *bare, "--gin.ConvertConfig.adapter_alone=True"]) == 1
    assert "a model without an adapter" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_other_weights_under_an_adapter_are_noticed(workplace, tuned):
    """Neither read nor trained on: the base was replaced, or is gone."""
    folder = workplace / "moved"
    shutil.copytree(workplace / "base", folder / "base")
    small_run.run(*command(folder.parent, "sft", "moved/tuned", "moved/base", "--gin.STEPS=2"))
    shutil.rmtree(folder / "base" / "checkpoints")
    shutil.copytree(tuned.parent / "base" / "checkpoints", folder / "base" / "checkpoints")
    assert find_model(folder / "tuned", pytest.fail).adapter is not None  # the same weights again
    file = next((folder / "base" / "checkpoints").rglob("params/**/d/*"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (folder / "base" / "checkpoints" / "2" / "checksums.json").unlink()
    with pytest.raises(UserError, match="where other weights lie now"):
        find_model(folder / "tuned", lambda said: None)
    shutil.rmtree(folder / "base")
    with pytest.raises(UserError, match="which is not there; put that model back"):
        find_model(folder / "tuned", lambda said: None)


def test_an_adapter_needs_a_model(workplace):
    with pytest.raises(ConfigError, match=r"TrainConfig\.initialize_from"):
        resolve(
            TrainConfig,
            files=[str(workplace / "pretrain.gin"), str(LOW_RANK)],
            bindings=[f"RUN_DIR={workplace / 'other'}"],
            search_paths=tuning.SEARCH_PATHS,
        )


@pytest.mark.parity
def test_peft_and_transformers_read_what_was_trained(workplace, tuned):
    peft = pytest.importorskip("peft")
    import torch
    import transformers

    base, alone = workplace / "hf", workplace / "for_peft"
    assert main(["convert", f"--gin.SOURCE={workplace / 'base'}", f"--gin.TARGET={base}"]) == 0
    options = [f"--gin.TARGET={alone}", "--gin.ConvertConfig.adapter_alone=True"]
    assert main(["convert", f"--gin.SOURCE={tuned}", *options]) == 0
    network = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(network, str(alone)).eval()
    with torch.no_grad():
        theirs = adapted(torch.from_numpy(TOKENS.astype(np.int64))).logits.numpy()
    np.testing.assert_allclose(jax.device_get(logits(tuned, TOKENS)), theirs, atol=1e-4)
