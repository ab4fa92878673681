"""LoRA adapters: against the sum in NumPy, against PEFT live, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from aya_jax.config import UserError
from aya_jax.inference.config import LocalModelConfig
from aya_jax.inference.local import open_generator
from aya_jax.interop.adapter import WEIGHTS, Adapter, Factors, read_adapter, write_adapter
from aya_jax.interop.model_dir import find_model
from tests.interop.test_convert import convert, logits
from tools.make_golden_logits import CONFIGS, HUGGING_FACE, torch_logits, torch_model
from tools.make_golden_logits import GOLDEN as LOGITS
from tools.random_model import shape, write_random_model

QUERY, DOWN, TABLE = (
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.embed_tokens.weight",
)


def factors(rng, name, entries, rank, scale):
    out, into = entries[name].shape
    a, b = rng.normal(size=(rank, into)), rng.normal(size=(out, rank))
    return Factors(a.astype(np.float32), b.astype(np.float32), scale)


@pytest.fixture
def adapter(tmp_path):
    """Two matrices of different ranks and scales, the token table, and a norm in place of another."""
    rng, entries = np.random.default_rng(0), find_model(HUGGING_FACE / "cohere", print).reader().entries()
    return Adapter(
        tmp_path / "adapter",
        {
            DOWN: factors(rng, DOWN, entries, 4, 0.5),
            TABLE: factors(rng, TABLE, entries, 2, 0.25),
            QUERY: factors(rng, QUERY, entries, 4, 2.0),
        },
        {"model.norm.weight": rng.normal(size=32).astype(np.float32)},
        str(HUGGING_FACE / "cohere"),
    )


def test_what_is_written_is_read_again(adapter):
    write_adapter(adapter.path, adapter)
    again = read_adapter(adapter.path)
    assert (again.base, list(again.factors)) == (adapter.base, sorted(adapter.factors))
    for name, each in adapter.factors.items():
        np.testing.assert_array_equal(again.factors[name].a, each.a)
        np.testing.assert_array_equal(again.factors[name].b, each.b)
        assert again.factors[name].scale == each.scale
    np.testing.assert_array_equal(again.replaced["model.norm.weight"], adapter.replaced["model.norm.weight"])


def test_weights_are_those_of_the_sum(adapter, tmp_path):
    """Read with the adapter, converted with it, found through the adapter's directory: the same, in both kinds of directory."""
    write_adapter(adapter.path, adapter)
    base = load_file(HUGGING_FACE / "cohere" / "model.safetensors")
    expected = {name: array.astype(np.float64) for name, array in base.items()} | adapter.replaced
    for name, each in adapter.factors.items():
        expected[name] = base[name].astype(np.float64) + each.scale * (each.b.astype(np.float64) @ each.a)
    bindings = [f"ADAPTER={adapter.path}", "ConvertConfig.dtype='float32'"]
    assert convert(HUGGING_FACE / "cohere", tmp_path / "ours", "ConvertConfig.dtype='float32'") == 0
    assert convert(HUGGING_FACE / "cohere", tmp_path / "merged", *bindings) == 0
    assert convert(tmp_path / "ours", tmp_path / "hf", *bindings) == 0
    readers = {
        "by name": find_model(tmp_path / "ours", print, adapter.path).reader(),
        "merged": find_model(tmp_path / "merged", print).reader(),
        "Hugging Face": find_model(tmp_path / "hf", print).reader(),
    }
    for where, reader in readers.items():
        for name, array in expected.items():
            np.testing.assert_allclose(reader.read(name), array, rtol=1e-5, atol=1e-5, err_msg=f"{where}: {name}")
    found = find_model(adapter.path, print).reader()  # through the base that it names, whose weights are float16
    np.testing.assert_allclose(found.read(QUERY), expected[QUERY], rtol=1e-5, atol=1e-5)
    assert convert(adapter.path, tmp_path / "half") == 0
    half = find_model(tmp_path / "half", print).reader().read(QUERY)
    np.testing.assert_array_equal(half, found.read(QUERY).astype(np.float16))
    tokens = np.load(LOGITS / "cohere.npz")["tokens"]
    np.testing.assert_array_equal(logits(tmp_path / "merged", tokens), logits(tmp_path / "hf", tokens))


def test_a_model_is_generated_with_under_its_adapter(tmp_path):
    """The text is that of the merged model, and the digest that cached answers hang on is another than the model's."""
    model = write_random_model(tmp_path / "tiny", shape())
    entries = find_model(model, print).reader().entries()
    added = factors(np.random.default_rng(1), QUERY, entries, 4, 0.3)
    write_adapter(tmp_path / "adapter", Adapter(tmp_path / "adapter", {QUERY: added}, base=str(model)))
    assert convert(model, tmp_path / "merged", f"ADAPTER={tmp_path / 'adapter'}") == 0
    texts, digests = {}, set()
    for name, config in {
        "plain": LocalModelConfig(model_dir=str(model)),
        "adapted": LocalModelConfig(model_dir=str(model), adapter=str(tmp_path / "adapter")),
        "found": LocalModelConfig(model_dir=str(tmp_path / "adapter")),
        "merged": LocalModelConfig(model_dir=str(tmp_path / "merged")),
    }.items():
        with open_generator(config, print) as generator:
            texts[name] = answer(generator)
            digests.add(generator.weights_digest)
    assert texts["adapted"] == texts["found"] == texts["merged"] != texts["plain"]
    assert len(digests) == 3


def answer(generator):
    from aya_jax.inference.config import SamplingConfig
    from aya_jax.inference.protocol import Request

    sampling = SamplingConfig(temperature=0, max_tokens=20, ignore_stop_tokens=True)
    (response,) = generator.generate([Request(id="a", prompt="Once", sampling=sampling)])
    return [token.id for token in response.completions[0].tokens]


def test_bfloat16_factors(adapter):
    small = adapter.factors[QUERY]
    narrow = Factors(small.a.astype(ml_dtypes.bfloat16), small.b.astype(ml_dtypes.bfloat16), 0.5)
    write_adapter(adapter.path, Adapter(adapter.path, {QUERY: narrow}))
    again = read_adapter(adapter.path).factors[QUERY]
    assert again.a.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(again.b, narrow.b)


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 4.0), (True, 8.0)])
def test_the_scale_is_peft_s(adapter, use_rslora, scale):
    """alpha / r, or alpha / sqrt(r), by the pattern that a module's name ends with."""
    write_adapter(adapter.path, dataclasses.replace(adapter, factors={QUERY: adapter.factors[QUERY]}))
    edit(adapter.path, alpha_pattern={"k_proj": 1.0, r"layers\.\d+\.self_attn\.q_proj": 16.0}, use_rslora=use_rslora)
    assert read_adapter(adapter.path).factors[QUERY].scale == scale


def edit(path, **changes):
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


A = "q_proj.lora_A.weight"
NORM = "norm.weight"


def without(array, key):
    return {}


def shorter(array, key):
    return {key: array[:2]}


def renamed(old, new):
    return lambda array, key: {key.replace(old, new): array}


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        (None, lambda path: (path / "adapter_config.json").write_text("{"), r"adapter_config.json: not JSON"),
        (None, lambda path: (path / WEIGHTS).write_bytes(b"half"), r"damaged"),
        (None, lambda path: (path / WEIGHTS).rename(path / "adapter_model.bin"), r"a pickle, which is not read"),
        ("config", {"peft_type": "LOHA"}, r"peft_type is 'LOHA'"),
        ("config", {"use_dora": True}, r"use_dora is True"),
        ("config", {"bias": "all"}, r"bias is 'all'"),
        ("config", {"r": 3, "rank_pattern": {}}, r"has rank 2, and adapter_config.json says 3"),
        ("config", {"lora_alpha": None, "alpha_pattern": {}}, r"lora_alpha is None"),
        (A, without, r"there is B alone"),
        (A, shorter, r"do not multiply"),
        (A, renamed("base_model.", ""), r"does not begin with"),
        (NORM, renamed("norm", "q.lora_magnitude"), r"of a kind of adapter that is not done"),
        (NORM, shorter, r"is \(2,\) there, and \(32,\) in the model"),
        (NORM, renamed("norm", "nor"), r"it adapts model.nor.weight"),
    ],
)
def test_what_is_damaged_or_of_another_kind_is_refused_by_name(file, spoil, message, adapter):
    write_adapter(adapter.path, adapter)
    if file is None:
        spoil(adapter.path)
    elif file == "config":
        edit(adapter.path, **spoil)
    else:
        tensors = load_file(adapter.path / WEIGHTS)
        key = next(key for key in tensors if key.endswith(file))
        array = tensors.pop(key)
        save_file(tensors | spoil(array, key), adapter.path / WEIGHTS)
    with pytest.raises(UserError, match=message):
        find_model(HUGGING_FACE / "cohere", print, adapter.path).reader()


def test_an_adapter_without_its_model_says_what_to_do(adapter, capsys, tmp_path):
    write_adapter(adapter.path, dataclasses.replace(adapter, base="CohereForAI/aya-expanse-8b"))
    with pytest.raises(UserError, match=r"'CohereForAI/aya-expanse-8b', which is no directory here; .* ADAPTER"):
        find_model(adapter.path, print)
    with pytest.raises(UserError, match="is an adapter, and"):
        find_model(adapter.path, print, adapter.path)
    shutil.rmtree(adapter.path)
    assert convert(HUGGING_FACE / "cohere", tmp_path / "x", f"ADAPTER={adapter.path}") == 1
    assert "adapter_config.json: missing" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parity
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("use_rslora", [False, True])
def test_peft_s_adapters_are_merged_as_by_peft(name, use_rslora, tmp_path):
    """Ranks and alphas by pattern, every matrix of a layer, and where it is not tied the head."""
    import peft
    import torch

    network = torch_model(name)
    network.save_pretrained(tmp_path / "hf")
    tokens = np.load(LOGITS / f"{name}.npz")["tokens"]
    wanted = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=use_rslora,
        target_modules=wanted + ([] if CONFIGS[name].tie_embeddings else ["embed_tokens"]),
        modules_to_save=None if CONFIGS[name].tie_embeddings else ["lm_head"],
        rank_pattern={"k_proj": 2},
        alpha_pattern={"v_proj": 3},
        task_type="CAUSAL_LM",
    )
    tuned = peft.get_peft_model(network, config)
    with torch.no_grad():
        for key, parameter in tuned.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.3 if "lora" in key else parameter + 0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = torch_logits(tuned, tokens)
    assert convert(tmp_path / "hf", tmp_path / "ours", f"ADAPTER={tmp_path / 'adapter'}") == 0
    np.testing.assert_allclose(logits(tmp_path / "ours", tokens), expected, atol=1e-4)
    assert np.abs(torch_logits(torch_model(name), tokens) - expected).max() > 0.01


@pytest.mark.parity
def test_peft_reads_what_was_written(adapter):
    import peft

    network = torch_model("cohere")
    tokens = np.load(LOGITS / "cohere.npz")["tokens"]
    kept = dataclasses.replace(adapter, factors={name: adapter.factors[name] for name in (DOWN, QUERY)}, replaced={})
    write_adapter(adapter.path, kept)
    tuned = peft.PeftModel.from_pretrained(network, str(adapter.path)).merge_and_unload().eval()
    reader = find_model(HUGGING_FACE / "cohere", print, adapter.path).reader()
    for name in kept.factors:
        np.testing.assert_allclose(tuned.get_parameter(name).numpy(), reader.read(name), rtol=1e-3, atol=2e-3)
    assert np.abs(torch_logits(tuned, tokens) - torch_logits(torch_model("cohere"), tokens)).max() > 0.01
