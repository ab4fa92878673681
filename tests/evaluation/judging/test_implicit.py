"""Implicit rewards: closed forms, transformers on the same weights, and what DPO's own training measures of the same pairs."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data import store
from aya_jax.data.chat import ChatTokenizer, Message
from aya_jax.evaluation.judging.config import ImplicitRewardConfig, JudgeConfig
from aya_jax.evaluation.judging.implicit import continuation, implicit_rewards
from aya_jax.evaluation.judging.judge import Judged
from aya_jax.evaluation.results import read_summary
from tests.evaluation.judging.test_run import ROOT
from tests.training import small_run, tuning
from tools.random_model import shape, write_random_model

TEXTS = ("Hello, world!", "yes", "", "नमस्ते दुनिया", "no no", "<|END_OF_TURN_TOKEN|> ends a turn.")
JUDGED = [
    *(Judged((Message("user", "Hello?"),), text) for text in TEXTS),
    Judged((Message("user", "a"), Message("assistant", "b"), Message("user", "c")), "d"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A policy and a reference of random weights, and a model to which all tokens are alike."""
    folder = tmp_path_factory.mktemp("models")
    config = shape(32, 2, 256)
    policy, reference = (
        write_random_model(folder / name, config, seed) for seed, name in enumerate(("policy", "reference"))
    )
    uniform = write_random_model(folder / "uniform", config)
    weights = load_file(uniform / "model.safetensors")
    save_file({name: np.zeros_like(w) for name, w in weights.items()}, uniform / "model.safetensors", {"format": "pt"})
    return {"policy": str(policy), "reference": str(reference), "uniform": str(uniform)}


def rewards(tmp_path, judged=JUDGED, **options):
    compiled = str(tmp_path.parent / "compiled")  # most programs of these tests are the same
    config = ImplicitRewardConfig(**{"compilation_cache": compiled} | options)
    told = []
    found = implicit_rewards(config, tmp_path / "evaluations" / "judged.json", Console(quiet=True), told.append)(judged)
    return found, sum(told)


@pytest.fixture(scope="module")
def lengths(models):
    """Tokens of each answer and the end of its turn."""
    tokenizer = ChatTokenizer.open(models["policy"])
    return np.array([len(continuation(tokenizer, each).tokens) for each in JUDGED])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where log-probabilities that one test has computed are known to the others."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def alone(home, models):
    """Rewards of the policy without a reference."""
    return np.array(rewards(home, model_dir=models["policy"])[0])


def test_a_model_to_which_all_tokens_are_alike_counts_them(home, models, lengths):
    """The mean of log pi is -ln V whatever the answer is, and its sum, as a reference, T ln V of T tokens (below)."""
    found, told = rewards(home, model_dir=models["uniform"], reduce="mean")
    assert found == pytest.approx([-math.log(340)] * len(JUDGED), rel=1e-6)
    assert told == len(JUDGED)


def test_a_reference_is_taken_off(home, models, lengths, alone):
    """Against a model to which all tokens are alike r is log pi + T ln V."""
    found, told = rewards(home, model_dir=models["policy"], reference_dir=models["uniform"])
    assert found == pytest.approx(alone + lengths * math.log(340), rel=1e-5)
    assert told == 2 * len(JUDGED)


def test_a_policy_that_is_its_reference_prefers_nothing(home, models, alone):
    found, _ = rewards(home, model_dir=models["policy"], reference_dir=models["policy"])
    assert found == [0.0] * len(JUDGED)


def test_batches_and_company_change_nothing(home, models, alone):
    """Nor the order, nor what else is asked (reward-bench #137)."""
    one, _ = rewards(home.with_name("one"), JUDGED[::-1], model_dir=models["policy"], batch_tokens=256)
    few, _ = rewards(home.with_name("few"), JUDGED[:1], model_dir=models["policy"])
    assert one[::-1] == pytest.approx(alone, abs=1e-4)
    assert few == pytest.approx(alone[:1], abs=1e-4)
    assert len(set(alone.round(3))) == len(alone)


def test_what_is_known_is_not_computed_again(home, models, alone):
    (kept,) = (home.with_name("few") / "evaluations" / "answers").iterdir()
    lines = kept.read_text().splitlines()
    again, _ = rewards(home.with_name("few"), JUDGED[:3], model_dir=models["policy"])
    assert again == pytest.approx(alone[:3], abs=1e-4)
    assert kept.read_text().splitlines()[: len(lines)] == lines
    assert len(kept.read_text().splitlines()) == 3


def test_what_the_model_cannot_read_has_no_reward(home, models, alone):
    long = Judged((Message("user", "word " * 300),), "yes")
    found, _ = rewards(home, [long, JUDGED[0]], model_dir=models["policy"])
    assert math.isnan(found[0])
    assert found[1] == alone[0]


def test_a_reference_of_other_tokens_is_refused(tmp_path, models):
    other = write_random_model(tmp_path / "other", shape(32, 2, 256))
    text = json.loads((other / "tokenizer.json").read_text())
    text["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="reads the answers as other tokens"):
        rewards(tmp_path, model_dir=models["policy"], reference_dir=str(other))
    (other / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer beside the weights"):
        rewards(tmp_path, model_dir=models["policy"], reference_dir=str(other))


def test_from_the_command_line(home, models, capsys):
    """A pair and its mirror image: what is right of one is wrong of the other."""
    row = {"prompt": "?", "language": "deu_Latn"}
    rows = [
        {**row, "id": f"{subset}{n}", "subset": subset, "chosen": pair[0], "rejected": pair[1]}
        for n in range(6)
        for subset, pair in (("hep-go", ("yes", f"no {n}")), ("hep-js", (f"no {n}", "yes")))
    ]
    file = home / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bindings = {
        "JUDGE_DIR": models["policy"], "REFERENCE_DIR": models["reference"], "PAIRS": f"('{file}',)", "RUN_DIR": home,
        "ImplicitRewardConfig.compilation_cache": f"'{home.parent / 'compiled'}'",
    }  # fmt: skip
    files = [str(ROOT / "gin/judge" / each) for each in ("reward_bench.gin", "implicit.gin")]
    assert main(["judge", *files, *(f"--gin.{key}={value}" for key, value in bindings.items())]) == 0
    summary = read_summary(home / "evaluations" / "judged.json")
    subsets = summary["scores"]["languages"]["deu_Latn"]["subsets"]
    assert subsets["hep-go"]["accuracy"]["value"] + subsets["hep-js"]["accuracy"]["value"] == pytest.approx(100.0)
    assert len(summary["weights_digest"].split()) == 2
    assert "24 judgements of 12 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ("ImplicitRewardConfig.reference_dir=''", "or None for rewards without one"),
        ("JudgeConfig.what=@HarmConfig()", "a model that writes"),
        ("JudgeConfig.what=@GradeConfig()", "a model that writes"),
    ],
)
def test_mistakes_are_named(binding, problem):
    bindings = [
        "JudgeConfig.judge=@ImplicitRewardConfig()", "ImplicitRewardConfig.model_dir='m'", "JudgeConfig.run_dir='r'",
        "JudgeConfig.what=@LabelledPairsConfig()", "LabelledPairsConfig.files=('a',)", "HarmConfig.answers='a'",
        "GradeConfig.answers='a'", binding,
    ]  # fmt: skip
    with pytest.raises(UserError, match=problem):
        resolve(JudgeConfig, bindings=bindings)


@pytest.mark.parity
def test_the_log_ratio_is_transformers(tmp_path, models):
    """Both models over torch, one text at a time, by transformers' own chat template, in float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["policy"])
    peers = [transformers.AutoModelForCausalLM.from_pretrained(models[name]).eval() for name in ("policy", "reference")]
    plain = [each for each in JUDGED if "<|" not in each.text]  # transformers makes a control token of what spells one
    theirs = []
    for messages, text in plain:
        turns = [dataclasses.asdict(message) for message in messages]
        whole = [*turns, {"role": "assistant", "content": text}]
        options = {"tokenize": True, "return_dict": False}
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options)
        ids = tokenizer.apply_chat_template(whole, **options)
        sums = []
        for peer in peers:
            with torch.no_grad():
                log_probs = peer(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            sums.append(sum(float(log_probs[at - 1, ids[at]]) for at in range(len(prompt), len(ids))))
        theirs.append(sums[0] - sums[1])
    found, _ = rewards(tmp_path, plain, model_dir=models["policy"], reference_dir=models["reference"])
    assert found == pytest.approx(theirs, abs=2e-3, rel=1e-5)


@pytest.mark.slow
def test_dpo_s_own_held_out_numbers_are_these(tmp_path_factory):
    """Accuracy and margin (by beta) that training measures of held-out pairs."""
    folder = tmp_path_factory.mktemp("dpo")
    tuning.write_tokenizer(folder / "tokenizer")
    rows = [
        {
            "prompt": f"What is {n} and one?",
            "chosen": str(n + 1) * (1 + n % 5),
            "rejected": " ".join(["no"] * (1 + n % 4)),
        }
        for n in range(120)
    ]
    sums = [{"question": f"{n}?", "answer": str(n)} for n in range(60)]
    described = [tuning.task(folder, "pairs", "preference", rows), tuning.task(folder, "sums", "chat", sums)]
    size = tuning.prepare_tasks(folder, *described)[0].vocabulary.size
    tuning.write_run(folder, "pretrain", mixture={"sums": 1.0}, vocab_size=size, steps=2)
    tuning.write_run(folder, "dpo", mixture={"pairs": 1.0}, vocab_size=size, steps=4, length=192)
    base, dpo = folder / "base", folder / "dpo"
    small_run.run("train", folder / "pretrain.gin", f"--gin.RUN_DIR={base}", tuning.SEARCH)
    more = f"--gin.MODEL_DIR={base}", "--gin.ValidationConfig.every=4"
    small_run.run("train", folder / "dpo.gin", f"--gin.RUN_DIR={dpo}", tuning.SEARCH, *more)
    measured = [record for record in small_run.records(dpo) if record["kind"] == "validation"][-1]

    held_out = store.TokenStore.open(store.store_path(str(folder / "stores"), "pairs", "validation"))
    texts = {tuple(ids.tolist()) for ids in held_out.read_documents(np.arange(held_out.manifest.documents))}
    tokenizer = ChatTokenizer.open(str(folder / "tokenizer"))
    judged = [
        Judged((Message("user", row["prompt"]),), row[side])
        for row in rows
        if tuple(tokenizer.encode_chat([Message("user", row["prompt"]), Message("assistant", row["chosen"])], False))
        in texts
        for side in ("chosen", "rejected")
    ]
    assert len(judged) == 2 * measured["pairs"] > 0
    found, _ = rewards(folder, judged, model_dir=str(dpo), reference_dir=str(base))
    gaps = np.subtract(found[::2], found[1::2])
    assert measured["rewards/accuracies"] == pytest.approx(np.mean(gaps > 0))
    assert measured["rewards/margins"] == pytest.approx(0.1 * gaps.mean(), abs=1e-4)  # PreferenceConfig.beta
