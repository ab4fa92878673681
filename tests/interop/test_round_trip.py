"""A model from transformers, converted, generated from, tuned for ten steps, and taken back; by the commands a user types."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from tools.make_golden_chat import write_tokenizer

pytestmark = pytest.mark.parity


def test_from_transformers_to_transformers(tmp_path, capsys):
    import torch
    import transformers

    hugging_face, ours, run, back = (str(tmp_path / name) for name in ("hf", "ours", "run", "back"))
    torch.manual_seed(0)
    config = transformers.CohereConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=2,
        eos_token_id=5,
        logit_scale=1.0,
    )
    transformers.CohereForCausalLM(config).save_pretrained(hugging_face)
    write_tokenizer(tmp_path / "hf")

    def aya(verb, *words, **bindings):
        assert (
            main([verb, *words, *(f"--gin.{name.replace('__', '.')}={value}" for name, value in bindings.items())]) == 0
        )

    aya("convert", SOURCE=hugging_face, TARGET=ours)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n{"prompt": "Hello"}\n')
    answers = {}
    for name, source in (("theirs", hugging_face), ("ours", ours)):
        output = tmp_path / f"{name}.jsonl"
        sampling = {
            "SamplingConfig__temperature": 0.0,
            "SamplingConfig__max_tokens": 8,
            "EngineConfig__max_length": 128,
        }
        aya("generate", MODEL_DIR=source, INPUT=prompts, OUTPUT=output, **sampling)
        answers[name] = [json.loads(line)["completions"] for line in output.read_text().splitlines()]
    assert answers["ours"] == answers["theirs"]

    stores = str(tmp_path / "stores")
    tasks = "('text_en',)"
    aya(
        "prepare",
        "gin/prepare/sample.gin",
        VOCABULARY=ours + "/tokenizer",
        STORE_DIR=stores,
        PrepareConfig__tasks=tasks,
    )
    training = {"STEPS": 10, "GLOBAL_BATCH": 8, "SEQUENCE_LENGTH": 64, "MODEL_DIR": ours, "STORE_DIR": stores}
    training |= {"MIXTURE": "text_en", "RUN_DIR": run, "MeshConfig__fsdp": 1, "LEARNING_RATE": 0.003}
    aya("train", "gin/train/pretrain.gin", f"{ours}/model.gin", **training)
    aya("convert", SOURCE=run, TARGET=back)
    capsys.readouterr()

    network = transformers.AutoModelForCausalLM.from_pretrained(back, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(back)
    messages = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.startswith("<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hello")
    assert network.generation_config.eos_token_id == [5]
    found = find_model(run, print)
    model = Transformer(found.config)
    tokens = np.random.default_rng(0).integers(9, 340, (2, 50))
    with torch.no_grad():
        theirs = network(torch.tensor(tokens)).logits.numpy()
    mine = np.asarray(model.logits(load_params(found, model.shapes()), {"tokens": tokens}))
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
    before = transformers.AutoModelForCausalLM.from_pretrained(hugging_face).eval()
    with torch.no_grad():
        assert np.abs(before(torch.tensor(tokens)).logits.numpy() - theirs).max() > 0.1, "tuning changed nothing"
