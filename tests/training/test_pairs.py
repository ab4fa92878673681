"""Preferences and reward models, with gin/train/dpo.gin and reward.gin: what is learnt, and what an interruption changes."""

from __future__ import annotations

import json
import math
import shutil
import signal

import jax
import numpy as np
import pytest

from aya_jax.config import ConfigError, UserError, resolve
from aya_jax.data import store
from aya_jax.data.prepare_config import TaskConfig
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.training.config import TrainConfig
from tests.training import process_pair, small_run, tuning

STEPS = 12
RECIPES = ("dpo", "reward")
ACCURACY = {"dpo": "rewards/accuracies", "reward": "accuracy"}
# A preference that can be learnt: digits are better than words, whatever was asked and however long the answer is.
LANGUAGES = {"pairs_en": ("en", "What is {} and one?", "no"), "pairs_de": ("de", "Was ist {} und eins?", "nein")}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Stores of pairs in two languages, a model of two steps, and the runs' files."""
    folder = tmp_path_factory.mktemp("pairs")
    tuning.write_tokenizer(folder / "tokenizer")
    described = []
    for task, (language, question, word) in LANGUAGES.items():
        rows = [
            {
                "prompt": question.format(n),
                "chosen": str(n + 1) * (1 + n % 5),
                "rejected": " ".join([word] * (1 + n % 4)),
                "margin": n / 100,
            }
            for n in range(80)
        ]
        described.append(tuning.task(folder, task, "preference", rows, language))
    sums = [{"question": f"{n}?", "answer": str(n)} for n in range(60)]
    described.append(tuning.task(folder, "sums", "chat", sums))
    (train, *_) = tuning.prepare_tasks(folder, *described)
    size = train.vocabulary.size
    tuning.write_run(folder, "pretrain", mixture={"sums": 1.0}, vocab_size=size, steps=2)
    for recipe in RECIPES:
        tuning.write_run(folder, recipe, mixture={"pairs_*": 1.0}, vocab_size=size, steps=STEPS, length=192)
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={folder / 'base'}", tuning.SEARCH)
    return folder


def command(workplace, recipe, name, *more):
    return (
        *("train", workplace / f"{recipe}.gin", f"--gin.RUN_DIR={workplace / name}", tuning.SEARCH),
        *(f"--gin.MODEL_DIR={workplace / 'base'}", "--gin.ValidationConfig.every=6", *more),
    )


@pytest.fixture(scope="module")
def whole(workplace):
    """(run directory, output) of an uninterrupted run of each recipe."""
    return {recipe: (workplace / recipe, small_run.run(*command(workplace, recipe, recipe))) for recipe in RECIPES}


def of_kind(run_dir, kind):
    return [record for record in small_run.records(run_dir) if record["kind"] == kind]


@pytest.mark.parametrize("recipe", RECIPES)
def test_held_out_pairs_are_told_apart_by_what_was_learnt(whole, recipe):
    run_dir, _ = whole[recipe]
    name = ACCURACY[recipe]
    last = of_kind(run_dir, "validation")[-1]
    assert last["step"] == STEPS
    assert last[f"{name}/low"] > 0.6
    assert last[f"{name}/low"] <= last[name] <= last[f"{name}/high"] <= 1
    assert last["pairs"] == last["language/en/pairs"] + last["language/de/pairs"]
    for language, task in (("en", "pairs_en"), ("de", "pairs_de")):
        assert last[f"language/{language}/{name}"] == last[f"validation/{task}/{name}"] > 0.5
    trained = of_kind(run_dir, "train")
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert {f"{name}/pairs_en", f"{name}/language/de"} <= trained[-1].keys()


def test_dpo_starts_at_the_reference(whole):
    """The loss of the first step is ln 2, and no answer has a reward yet."""
    run_dir, output = whole["dpo"]
    first = of_kind(run_dir, "train")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert output.count("Computing the reference log-probabilities of") == 4  # two tasks, training and held out


def test_the_reference_is_that_of_each_answer_by_itself(workplace, whole):
    """What was kept beside the store equals every answer scored alone, unpacked, by the model that the run started from."""
    opened = store.TokenStore.open(store.store_path(str(workplace / "stores"), "pairs_de", "validation"))
    (file,) = (workplace / "stores" / "pairs_de" / "validation").glob("reference-*.npy")
    found = find_model(workplace / "base", pytest.fail)
    model = Transformer(found.config)
    params = load_params(found, model.shapes())
    score = jax.jit(lambda tokens: jax.nn.log_softmax(model.logits(params, {"tokens": tokens})))
    begins, ends = opened.document_ranges(np.arange(opened.num_documents))
    tokens, weights = (opened.read_ranges(name, begins, ends) for name in ("tokens", "loss_weights"))
    expected = []
    for ids, learnt in zip(tokens, weights, strict=True):
        alone = np.zeros((1, 96), np.int32)
        alone[0, : len(ids)] = ids
        of_next = np.asarray(score(alone)[0], np.float64)[np.arange(len(ids) - 1), ids[1:]]
        expected.append(np.sum(of_next * learnt[1:]))
    np.testing.assert_allclose(np.load(file), expected, atol=1e-4)


@pytest.mark.parametrize("recipe", ["dpo", pytest.param("reward", marks=pytest.mark.slow)])
def test_killed_and_resumed_is_the_same_run(workplace, whole, recipe):
    killed = workplace / f"{recipe}-killed"
    process = small_run.start(*command(workplace, recipe, killed.name))
    small_run.wait_for(lambda: small_run.has_checkpoint(killed, 2), process)
    _, output = small_run.stop(process, signal.SIGKILL)
    assert not small_run.has_checkpoint(killed, STEPS)
    assert "Computing the reference" not in output  # another run's is found
    assert "(resumed)" in small_run.run(*command(workplace, recipe, killed.name))
    found, expected = (small_run.parameters(folder, STEPS) for folder in (killed, whole[recipe][0]))
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize(
    ("recipe", "mesh"),
    [
        ("dpo", {"data": 2, "context": 2, "tensor": 2}),
        pytest.param("reward", {"data": 2, "fsdp": 4}, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_give_what_one_does(workplace, whole, recipe, mesh):
    axes = [f"--gin.MeshConfig.{axis}={mesh.get(axis, 1)}" for axis in ("data", "fsdp", "context", "tensor")]
    name = f"{recipe}-eight"
    stores = workplace / f"{name}-stores"  # without the references that one device computed
    shutil.copytree(workplace / "stores", stores, ignore=shutil.ignore_patterns("reference-*"))
    small_run.run(*command(workplace, recipe, name, f"--gin.STORE_DIR={stores}", *axes), devices=8)
    for kind in ("train", "validation"):
        for ours, theirs in zip(of_kind(workplace / name, kind), of_kind(whole[recipe][0], kind), strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-3)
    first, expected = (of_kind(folder, "train")[0] for folder in (workplace / name, whole[recipe][0]))
    for key in ("loss", *{"dpo": ("logps/chosen", "logps/rejected"), "reward": ("mean_reward", "margin")}[recipe]):
        assert first[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_two_processes_give_what_one_does(workplace, whole):
    stores = workplace / "two-stores"
    shutil.copytree(workplace / "stores", stores, ignore=shutil.ignore_patterns("reference-*"))
    axes = ["--gin.MeshConfig.data=2", "--gin.MeshConfig.fsdp=1"]
    with process_pair.alone():
        output, other = process_pair.run(
            *command(workplace, "dpo", "two", f"--gin.STORE_DIR={stores}", *axes), devices=1
        )
    assert output.count("Computing the reference log-probabilities of") == 4
    assert other == ""
    for ours, theirs in zip(of_kind(workplace / "two", "train"), of_kind(whole["dpo"][0], "train"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-3)
    for file in (stores / "pairs_en" / "train").glob("reference-*.npy"):
        (same,) = (workplace / "stores" / "pairs_en" / "train").glob(file.name)
        np.testing.assert_allclose(np.load(file), np.load(same), atol=1e-4)


def resolved(workplace, recipe, *bindings):
    return resolve(
        TrainConfig,
        files=[str(workplace / f"{recipe}.gin")],
        bindings=[f"RUN_DIR={workplace / 'other'}", *bindings],
        search_paths=tuning.SEARCH_PATHS,
    ).config


def test_a_reward_model_goes_on_as_one_and_is_no_model_of_tokens(workplace, whole):
    run_dir, _ = whole["reward"]
    found = find_model(run_dir, pytest.fail)
    assert found.head == "reward"
    with pytest.raises(UserError, match="a reward model, where one of tokens is needed"):
        load_params(found, Transformer(found.config).shapes())
    with pytest.raises(UserError, match="a reward model, which has no form of Hugging Face's"):
        found.reader()
    steps = f"--gin.MODEL_DIR={run_dir}"
    small_run.run(*command(workplace, "reward", "more", "--gin.STEPS=1", "--gin.LEARNING_RATE=0.0001", steps))
    (more,) = of_kind(workplace / "more", "train")
    assert more["accuracy"] > 0.9  # it begins with what was learnt


@pytest.mark.parametrize(
    ("recipe", "bindings", "problem"),
    [
        ("dpo", ["MODEL_DIR=None"], "TrainConfig.initialize_from"),
        ("dpo", ["MODEL_DIR='base'", "DataConfig.long_documents='split'"], "DataConfig.long_documents"),
        ("dpo", ["MODEL_DIR='base'", "TrainConfig.z_loss=0.1"], "TrainConfig.z_loss"),
        ("reward", ["MODEL_DIR='base'", "DataConfig.packing='windows'"], "DataConfig.packing"),
        ("reward", ["MODEL_DIR='base'", "RewardConfig.centering=-1.0"], "RewardConfig.centering"),
    ],
)
def test_contradictions_are_refused_by_name(workplace, recipe, bindings, problem):
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")):
        resolved(workplace, recipe, *bindings)


@pytest.mark.parametrize(
    ("recipe", "mixture", "problem"),
    [
        ("dpo", "{'sums': 1.0}", "task sums has no pairs of answers to learn preferences from"),
        (
            "pretrain",
            "{'pairs_*': 1.0}",
            "has pairs of answers, and TrainConfig.objective learns from single ones",
        ),
    ],
)
def test_stores_of_another_kind_are_refused(workplace, recipe, mixture, problem):
    options = ["--gin.DataConfig.packing='documents'", "--gin.DataConfig.long_documents='truncate'"]
    process = small_run.start(*command(workplace, recipe, "refused", f"--gin.MIXTURE={mixture}", *options))
    code, output = small_run.finish(process)
    assert code == 1
    assert problem in " ".join(output.split())
    shutil.rmtree(workplace / "refused", ignore_errors=True)


def test_stores_of_another_tokenizer_than_the_model_s_are_refused(workplace, tmp_path):
    """The same template and as many tokens, of which two have changed places."""
    stores = tmp_path / "stores"
    tuning.write_tokenizer(tmp_path / "tokenizer")
    file = tmp_path / "tokenizer" / "tokenizer.json"
    known = json.loads(file.read_text())
    vocab = known["model"]["vocab"]
    one, other = list(vocab)[-2:]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    file.write_text(json.dumps(known))
    task = TaskConfig(name="pairs_en", language="en", form="preference", files=(str(workplace / "pairs_en.jsonl"),))
    tuning.prepare_tasks(tmp_path, task)
    code, output = small_run.finish(
        small_run.start(*command(workplace, "reward", "refused-too", f"--gin.STORE_DIR={stores}"))
    )
    assert code == 1
    assert "this model's tokenizer" in " ".join(output.split())
