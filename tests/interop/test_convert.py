"""Conversion both ways: golden directories that transformers wrote, golden logits, and transformers live."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aya_jax.cli import main
from aya_jax.config import UserError
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.parallel.sharding import named_shardings
from tools.make_golden_logits import CONFIGS, HUGGING_FACE, torch_logits, torch_model
from tools.make_golden_logits import GOLDEN as LOGITS

NAMES = list(CONFIGS)


def convert(source, target, *bindings):
    return main(
        ["convert", f"--gin.SOURCE={source}", f"--gin.TARGET={target}", *(f"--gin.{each}" for each in bindings)]
    )


def logits(path, tokens, dtype=jnp.float32):
    found = find_model(path, print)
    model = Transformer(found.config)
    like = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape.shape, dtype), model.shapes())
    params = jax.tree.map(lambda array: array.astype(jnp.float32), load_params(found, like))
    return np.asarray(model.logits(params, {"tokens": tokens}))


@pytest.fixture
def copied(tmp_path):
    """A Hugging Face directory that a test may damage."""
    return Path(shutil.copytree(HUGGING_FACE / "cohere", tmp_path / "hf"))


@pytest.mark.parametrize("name", NAMES)
def test_a_hugging_face_directory_and_what_it_converts_to_give_the_logits_of_transformers(name, tmp_path):
    golden = np.load(LOGITS / f"{name}.npz")
    assert find_model(HUGGING_FACE / name, print).config == CONFIGS[name]
    assert convert(HUGGING_FACE / name, tmp_path / "ours", "ConvertConfig.dtype='float32'") == 0
    for path in (HUGGING_FACE / name, tmp_path / "ours", tmp_path / "ours" / "checkpoints" / "0"):
        np.testing.assert_allclose(logits(path, golden["tokens"]), golden["logits"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_is_bit_exact(name, tmp_path):
    """Through a padded vocabulary, and into several files."""
    assert convert(HUGGING_FACE / name, tmp_path / "ours", "ConvertConfig.vocab_multiple=64") == 0
    assert find_model(tmp_path / "ours", print).config.vocab_size == 128
    assert convert(tmp_path / "ours", tmp_path / "back", "ConvertConfig.shard_gb=2e-5") == 0
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 1
    before, after = load_file(HUGGING_FACE / name / "model.safetensors"), {}
    for file in files:
        part = load_file(tmp_path / "back" / file)
        assert {index["weight_map"][tensor] for tensor in part} == {file}
        after |= part
    assert before.keys() == after.keys()
    for tensor, array in before.items():
        assert array.dtype == after[tensor].dtype
        np.testing.assert_array_equal(array, after[tensor], err_msg=tensor)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in before.values())
    assert find_model(tmp_path / "back", print).config == CONFIGS[name]
    theirs, ours = (json.loads((path / "config.json").read_text()) for path in (HUGGING_FACE / name, tmp_path / "back"))
    for field in ("architectures", "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "tie_word_embeddings"):
        assert ours[field] == theirs[field], field
    assert {"generation_config.json"} <= {file.name for file in (tmp_path / "back").iterdir()}


def test_weights_are_cast_on_request(tmp_path):
    assert convert(HUGGING_FACE / "cohere", tmp_path / "ours", "ConvertConfig.dtype='bfloat16'") == 0
    assert convert(tmp_path / "ours", tmp_path / "back") == 0
    before, after = (load_file(path / "model.safetensors") for path in (HUGGING_FACE / "cohere", tmp_path / "back"))
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == "bfloat16"
    for name, array in before.items():
        np.testing.assert_array_equal(array.astype(ml_dtypes.bfloat16), after[name])


def test_weights_are_loaded_onto_a_mesh(tmp_path):
    golden = np.load(LOGITS / "cohere2.npz")
    mesh = make_mesh(MeshConfig())
    found = find_model(HUGGING_FACE / "cohere2", print)
    with jax.set_mesh(mesh):
        model = Transformer(found.config)
        shardings = named_shardings(mesh, model.rules, model.logical_axes(), model.shapes())
        like = jax.tree.map(
            lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), model.shapes(), shardings
        )
        params = load_params(found, like)
        assert jax.tree.map(lambda array: array.sharding, params) == shardings
        np.testing.assert_allclose(model.logits(params, {"tokens": golden["tokens"]}), golden["logits"], atol=1e-4)


def edit(directory, **fields):
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def damage(directory, **tensors):
    """Puts tensors in place of others; None takes one out."""
    file = directory / "model.safetensors"
    kept = {name: array for name, array in (load_file(file) | tensors).items() if array is not None}
    save_file(kept, file)


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: damage(d, **{NORM: None}), rf"tensor {NORM} is missing"),
        (
            lambda d: damage(d, **{NORM: np.zeros(7, np.float16)}),
            rf"{NORM} is \(7,\), and by config.json it is \(32,\)",
        ),
        (lambda d: damage(d, extra=np.zeros(7, np.float16)), "tensor extra has no place"),
        (lambda d: damage(d, **{NORM: np.zeros(32, np.int32)}), f"{NORM} is I32"),
        (lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-9]), "damaged"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pytorch_model.bin: a pickle"),
        (lambda d: (d / "model.safetensors").unlink(), "no .safetensors files"),
        (lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}'), "/b: missing"),
        (lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'), "no file of this"),
        (lambda d: (d / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda d: edit(d, architectures=["GPT2LMHeadModel"]), "'GPT2LMHeadModel' is not known; there are Cohere"),
        (lambda d: edit(d, attention_bias=True), "attention_bias = True: only False"),
        (lambda d: edit(d, hidden_act="gelu"), "hidden_act = 'gelu'"),
        (lambda d: edit(d, hidden_size=None), "hidden_size = None: expected a positive whole number"),
        (lambda d: edit(d, rope_parameters={"rope_type": "yarn", "rope_theta": 1.0}), "rope_type = 'yarn'"),
    ],
)
def test_what_is_damaged_or_unknown_is_refused_by_name(spoil, message, copied, tmp_path):
    spoil(copied)
    with pytest.raises(UserError, match=message):
        find_model(copied, print).reader()
    assert convert(copied, tmp_path / "ours") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hf"], "something was left behind"


def test_only_what_a_conversion_wrote_is_replaced(copied, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert convert(copied, tmp_path / "mine") == 1
    assert "no conversion wrote it" in capsys.readouterr().err
    assert convert(copied, copied) == 1
    assert convert(copied, tmp_path / "ours") == 0
    assert convert(copied, tmp_path / "ours") == 0
    (copied / "model.safetensors").write_bytes(b"")
    assert convert(copied, tmp_path / "ours") == 1
    assert find_model(tmp_path / "ours", print).config == CONFIGS["cohere"], "an earlier conversion was lost"


def test_old_and_new_forms_of_a_configuration_mean_the_same(copied):
    edit(copied, rope_parameters=None, rope_theta=123.0)
    assert find_model(copied, print).config.rope_theta == 123.0
    second = copied.parent / "cohere2"
    shutil.copytree(HUGGING_FACE / "cohere2", second)
    edit(second, layer_types=None, sliding_window_pattern=4)
    assert find_model(second, print).config == CONFIGS["cohere2"]
    edit(second, layer_types=["full_attention", "sliding_attention"] * 2)
    with pytest.raises(UserError, match=r"layer_types = .* only a full layer after every n - 1 sliding ones"):
        find_model(second, print)


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_what_was_converted_back(name, tmp_path):
    import torch
    import transformers

    network = torch_model(name)
    network.save_pretrained(tmp_path / "hf", max_shard_size="30KB")
    tokens = np.load(LOGITS / f"{name}.npz")["tokens"]
    np.testing.assert_allclose(logits(tmp_path / "hf", tokens), torch_logits(network, tokens), atol=1e-4)
    assert convert(tmp_path / "hf", tmp_path / "ours") == 0
    assert convert(tmp_path / "ours", tmp_path / "back") == 0
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32).eval()
    np.testing.assert_array_equal(torch_logits(back, tokens), torch_logits(network, tokens))
