import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.config import UserError, resolve
from aya_jax.data import store, vocabulary
from aya_jax.data.manifest import VocabularyInfo
from aya_jax.evaluation import held_out
from aya_jax.evaluation.config import EvaluateConfig
from aya_jax.evaluation.evaluate import run
from aya_jax.evaluation.weights import weights_digest
from aya_jax.interop.model_dir import training_config
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training import train
from aya_jax.training.checkpoint import load_params, locate
from aya_jax.training.config import TrainConfig
from aya_jax.training.validation import Scored
from tests import eight_devices
from tests.data.stores import VOCABULARY, document, write_store
from tests.interop.test_convert import logits
from tests.training import small_run
from tools.random_model import shape, write_random_model

LENGTH = 64


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory; its weights are those of six steps."""
    folder = tmp_path_factory.mktemp("evaluate")
    file = small_run.write_config(folder, small_run.write_stores(folder / "stores"), steps=6)
    train.run(resolve(TrainConfig, files=[file], bindings=[f"RUN_DIR={folder / 'run'}"]))
    return folder / "run"


def evaluate(model_dir, *bindings):
    run(resolve(EvaluateConfig, bindings=[f"EvaluateConfig.model_dir='{model_dir}'", *bindings]))


def results(run_dir, name="held_out"):
    folder = run_dir / "evaluations"
    samples = [json.loads(line) for line in (folder / f"{name}.samples.jsonl").read_text().splitlines()]
    return json.loads((folder / f"{name}.json").read_text()), samples


def load(run_dir):
    config = training_config(locate(run_dir, pytest.fail))
    model = Transformer(config.model, config.precision)
    return model, load_params(locate(run_dir, pytest.fail), held_out.abstract_params(model, make_mesh(MeshConfig())))


def by_hand(run_dir, task):
    """nll of each document in float64: every window of the store scored alone, with the model's plain logits."""
    model, params = load(run_dir)
    opened = store.TokenStore.open(str(run_dir.parent / "stores" / task / "validation"))
    documents = opened.read_documents(np.arange(opened.num_documents))
    stream = np.concatenate(documents)
    owner = np.repeat(np.arange(len(documents)), [len(d) for d in documents])
    at = np.concatenate([np.arange(len(d)) for d in documents])
    logits = jax.jit(model.logits)
    nll = np.zeros(len(documents))
    for start in range(0, len(stream) - 1, LENGTH):
        window = stream[start : start + LENGTH]
        row = np.zeros((1, LENGTH), np.int32)
        row[0, : len(window)] = window
        segments, positions = (np.zeros((1, LENGTH), np.int32) for _ in range(2))
        ids = owner[start : start + LENGTH]
        segments[0, : len(ids)] = ids - ids[0] + 1
        firsts = np.searchsorted(ids, ids)
        positions[0, : len(ids)] = np.arange(len(ids)) - firsts
        batch = {"tokens": row, "segment_ids": segments, "positions": positions}
        scores = np.asarray(logits(params, {k: jnp.asarray(v) for k, v in batch.items()}), np.float64)[0]
        lse = scores.max(-1) + np.log(np.exp(scores - scores.max(-1, keepdims=True)).sum(-1))
        for k in range(min(LENGTH, len(stream) - 1 - start)):
            target = start + k + 1
            if at[target] > 0:
                nll[owner[target]] += lse[k] - scores[k, stream[target]]
    return nll, documents


def test_every_document_is_scored_as_by_hand(trained):
    evaluate(trained)
    summary, samples = results(trained)
    assert set(summary["tasks"]) == set(small_run.TASKS)
    for task in ("text_en", "code_web"):
        nll, documents = by_hand(trained, task)
        found = [sample for sample in samples if sample["task"] == task]
        assert [sample["id"] for sample in found] == [f"{task}/{k}" for k in range(len(documents))]
        assert [sample["tokens"] for sample in found] == [len(d) - 1 for d in documents]
        assert [sample["bytes"] for sample in found] == [len(d) - 2 for d in documents]
        np.testing.assert_allclose([sample["nll"] for sample in found], nll, rtol=2e-5)


def test_summaries_are_sums_of_the_samples_and_equal_the_run_s_own_validation(trained):
    evaluate(trained)
    summary, samples = results(trained)
    for group, key in (("tasks", "task"), ("domains", "domain"), ("languages", "language")):
        for name, found in summary[group].items():
            chosen = [s for s in samples if s[key] == name]
            nll, tokens, num_bytes = (sum(s[field] for s in chosen) for field in ("nll", "tokens", "bytes"))
            assert (found["tokens"], found["bytes"]) == (tokens, num_bytes)
            assert found["loss"] == pytest.approx(nll / tokens, rel=1e-12)
            assert found["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-12)
            assert found["bits_per_byte"] == pytest.approx(nll / math.log(2) / num_bytes, rel=1e-12)
    assert set(summary["languages"]) == {"en", "de"}  # of text; code has its domain
    last = [r for r in small_run.records(trained) if r["kind"] == "validation"][-1]
    assert (summary["checkpoint_step"], last["step"]) == (6, 6)
    assert summary["all"]["loss"] == pytest.approx(last["loss"], rel=1e-9)


def test_results_stand_for_the_same_weights_question_and_text(trained, tmp_path, monkeypatch):
    measured = []
    measure = held_out.measure
    monkeypatch.setattr(held_out, "measure", lambda *arguments: measured.append(1) or measure(*arguments))
    for count, bindings in enumerate(
        [(), ("HeldOutConfig.tasks=('text_*',)",), (f"HeldOutConfig.store_dir='{tmp_path / 'other'}'",)], 1
    ):
        if count == 3:
            write_store(str(tmp_path / "other" / "text_en" / "validation"), [[document(b"hello")]], split="validation")
        for _ in range(2):
            evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path}'", "HeldOutConfig.batch=4", *bindings)
        assert len(measured) == count
    evaluate(trained / "checkpoints" / "6", f"EvaluateConfig.run_dir='{tmp_path}'", *bindings)
    assert len(measured) == 3  # another name of the same weights
    write_store(str(tmp_path / "other" / "text_en" / "validation"), [[document(b"hullo")]], split="validation")
    evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path}'", *bindings)
    assert len(measured) == 4


def test_the_batch_does_not_change_the_numbers(trained, tmp_path):
    for name, batch in (("three", 3), ("eight", 8)):
        evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path}'", f"EvaluateConfig.name='{name}'",
                 f"HeldOutConfig.batch={batch}")  # fmt: skip
    three, eight = results(tmp_path, "three")[1], results(tmp_path, "eight")[1]
    assert [s["id"] for s in three] == [s["id"] for s in eight]
    np.testing.assert_allclose([s["nll"] for s in three], [s["nll"] for s in eight], rtol=1e-5)


def test_max_tokens_takes_the_first_documents(trained, tmp_path):
    evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path}'", "HeldOutConfig.max_tokens=128")
    evaluate(trained)
    whole = {s["id"]: s for s in results(trained)[1]}
    _, samples = results(tmp_path)
    for task in small_run.TASKS:
        cut = [s for s in samples if s["task"] == task]
        assert 0 < len(cut) < 18
        assert all(s["tokens"] == whole[s["id"]]["tokens"] for s in cut[:-1])
        assert sum(s["tokens"] for s in cut) <= 128


def test_tokens_without_weight_belong_to_nobody(tmp_path):
    """A task that weighs answers alone: documents own their weighted tokens."""
    documents = [document(b"abcd", weights=np.array(w, np.float32)) for w in ([0, 0, 1, 1, 0, 1], [1, 1, 0, 0, 0, 1])]
    opened = write_store(str(tmp_path / "chat" / "validation"), [documents], task="chat", split="validation")
    assert held_out.predicted_tokens(opened).tolist() == [3, 2]
    nll = np.array([[1.0, 2.0, 4.0, 0.0, 8.0, 16.0]])
    scored = Scored(nll, nll > 0, np.array([[1, 1, 0, 0, 1, 0]]), nll / 2, np.array([[1, 0, 1, 0, 1, 1]], bool))
    first, second = held_out.by_document("chat", opened, [scored])
    assert (first.nll, first.tokens, first.bytes) == (7.0, 3, 2)
    assert (second.nll, second.tokens, second.bytes) == (24.0, 2, 1)
    assert [(s.entropy, s.correct) for s in (first, second)] == [(3.5, 2), (12.0, 2)]


def test_the_digest_is_that_of_the_weights_on_any_mesh(trained):
    _, params = load(trained)
    code = (
        "import sys, pathlib\n"
        "from tests.evaluation.test_held_out import load, weights_digest\n"
        "model, params = load(pathlib.Path(sys.argv[1]))\n"
        "assert len(params['embedding']['table'].sharding.device_set) == 8\n"
        "print(weights_digest(params))\n"
    )
    assert eight_devices.run("-c", code, trained).strip() == weights_digest(params)
    scale = params["final_norm"]["scale"]
    other = params | {"final_norm": {"scale": scale.at[0].set(np.nextafter(scale[0], np.float32(2)))}}
    assert weights_digest(other) != weights_digest(params)


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["HeldOutConfig.tasks=('text_xx',)"], "no held-out documents of text_xx"),
        (["HeldOutConfig.store_dir='nowhere'"], "nowhere: no held-out documents"),
    ],
)
def test_nothing_to_measure_is_an_error(trained, tmp_path, bindings, message):
    with pytest.raises(UserError, match=message):
        evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path}'", *bindings)
    assert not (tmp_path / "evaluations").exists()


def test_stores_of_another_tokenizer_are_refused(trained, tmp_path):
    info = VOCABULARY.info("another")
    directory = str(tmp_path / "stores" / "text_en" / "validation")
    write_store(directory, [[document(b"hello")]], split="validation", vocabulary=info)
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate(trained, f"HeldOutConfig.store_dir='{tmp_path / 'stores'}'", f"EvaluateConfig.run_dir='{tmp_path}'")


def test_a_lone_checkpoint_says_what_it_wants_and_is_measured(trained, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "6").symlink_to(trained / "checkpoints" / "6")
    with pytest.raises(UserError, match=r"add --gin\.STORE_DIR=\.\.\."):
        evaluate(tmp_path)
    evaluate(trained, f"EvaluateConfig.run_dir='{tmp_path / 'run'}'")
    stores = f"HeldOutConfig.store_dir='{trained.parent / 'stores'}'"
    evaluate(tmp_path, stores, f"HeldOutConfig.sequence_length={LENGTH}")
    assert results(tmp_path)[0]["all"] == results(tmp_path / "run")[0]["all"]
    with pytest.raises(UserError, match="the model's longest sequence is"):
        evaluate(tmp_path, stores, "HeldOutConfig.sequence_length=100_000")


def test_a_hugging_face_model_and_what_it_converts_to_are_scored_as_by_hand(tmp_path):
    """Its tokenizer says whether the stores are its own."""
    model = write_random_model(tmp_path / "hf", shape())
    known = vocabulary.load(str(model))
    rng = np.random.default_rng(0)
    ends = {"bos_id": known.bos_id, "eos_id": known.eos_id}
    documents = [document(rng.integers(20, known.size, size), **ends) for size in (30, 50)]
    folder = str(tmp_path / "stores" / "text_en" / "validation")
    write_store(
        folder,
        [documents],
        split="validation",
        vocabulary=VocabularyInfo.of(known, "tokenizer.json"),
        token_bytes=known.token_bytes(),
    )
    assert main(["convert", f"--gin.SOURCE={model}", f"--gin.TARGET={tmp_path / 'ours'}"]) == 0
    by_hand = [nll(logits(model, each.tokens[None])[0], each.tokens) for each in documents]
    for path in (model, tmp_path / "ours"):
        flags = [f"--gin.MODEL_DIR={path}", f"--gin.STORE_DIR={tmp_path / 'stores'}"]
        assert main(["evaluate", "evaluate/held_out.gin", *flags]) == 0
        _, samples = results(path)
        np.testing.assert_allclose([sample["nll"] for sample in samples], by_hand, rtol=1e-5)
    (model / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"put its tokenizer\.json there"):
        evaluate(model, f"HeldOutConfig.store_dir='{tmp_path / 'stores'}'")


def nll(scores, document):
    scores = scores.astype(np.float64)[:-1]
    peak = scores.max(-1, keepdims=True)
    lse = (peak + np.log(np.exp(scores - peak).sum(-1, keepdims=True)))[:, 0]
    return float((lse - scores[np.arange(len(document) - 1), document[1:]]).sum())


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("EvaluateConfig.name='a/b'", "without folders"),
        ("HeldOutConfig.tasks=()", "at least one"),
        ("HeldOutConfig.batch=0", "at least 1"),
        ("HeldOutConfig.max_tokens=0", "None"),
    ],
)
def test_mistakes_are_named(binding, expected):
    with pytest.raises(UserError, match=expected):
        resolve(EvaluateConfig, bindings=["EvaluateConfig.model_dir='m'", binding])
