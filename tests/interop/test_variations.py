"""Every variation of the known architectures through a Hugging Face directory, against transformers live."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.models.transformer import Transformer
from tools.make_golden_logits import CONFIGS, tokens, torch_logits, torch_model

pytestmark = pytest.mark.parity

VARIATIONS = {
    "mha": ("cohere", {"num_kv_heads": 4}),
    "mha_qk_norm": ("cohere_qk_norm", {"num_kv_heads": 4}),
    "one_kv_head": ("cohere", {"num_kv_heads": 1}),
    "untied": ("cohere", {"tie_embeddings": False}),
    "mha_sliding": ("cohere2", {"num_kv_heads": 4}),
    "untied_sliding": ("cohere2", {"tie_embeddings": False}),
    "mha_llama": ("llama3", {"num_kv_heads": 4}),
    "tied_llama": ("llama3", {"tie_embeddings": True}),
    **{name: (name, {}) for name in CONFIGS},
}


@pytest.fixture(params=VARIATIONS)
def both(request, tmp_path, monkeypatch):
    """(the network in torch, our model, its parameters) of the same directory."""
    base, changes = VARIATIONS[request.param]
    monkeypatch.setitem(CONFIGS, request.param, dataclasses.replace(CONFIGS[base], **changes))
    network = torch_model(request.param)
    network.save_pretrained(tmp_path)
    found = find_model(tmp_path, print)
    assert found.config == CONFIGS[request.param]
    model = Transformer(found.config)
    return network, model, load_params(found, model.shapes())


def test_logits(both):
    network, model, params = both
    np.testing.assert_allclose(model.logits(params, {"tokens": tokens()}), torch_logits(network, tokens()), atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(both, side):
    """Rows of 24, 17 and 9 tokens: padding is another segment to us and no attention there; positions begin with the text."""
    import torch

    network, model, params = both
    lengths, size = (24, 17, 9), 24
    ids = np.concatenate([tokens(), tokens()])[: len(lengths)]
    place = np.arange(size)
    there = np.array([place >= size - n if side == "left" else place < n for n in lengths])
    positions = np.maximum(np.cumsum(there, axis=1) - 1, 0)
    ids = np.where(there, ids, 0).astype(np.int32)
    with torch.no_grad():
        expected = network(
            input_ids=torch.tensor(ids, dtype=torch.long),
            attention_mask=torch.tensor(there, dtype=torch.long),
            position_ids=torch.tensor(positions),
        ).logits.numpy()
    batch = {"tokens": ids, "segment_ids": there.astype(np.int32), "positions": positions.astype(np.int32)}
    ours = np.asarray(jax.jit(model.logits)(params, batch))
    np.testing.assert_allclose(ours[there], expected[there], atol=1e-4)


def test_position_offsets(both):
    """Positions that begin at 100: seen where rotations are of whole positions, as a cache's are."""
    import torch

    network, model, params = both
    positions = np.broadcast_to(100 + np.arange(24), (2, 24))
    with torch.no_grad():
        expected = network(
            input_ids=torch.tensor(tokens(), dtype=torch.long), position_ids=torch.tensor(positions)
        ).logits
    batch = {"tokens": tokens(), "positions": positions.astype(np.int32)}
    np.testing.assert_allclose(model.logits(params, batch), expected.numpy(), atol=1e-4)
