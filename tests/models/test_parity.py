"""The same comparison as the golden files, live, and with gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.models.transformer import Transformer
from tools.make_golden_logits import CONFIGS, convert, flatten, tokens, torch_logits, torch_model

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients_equal_those_of_transformers(name):
    import torch

    config, ids = CONFIGS[name], tokens()
    reference = torch_model(name)
    params = jax.tree.map(jnp.asarray, convert(reference.state_dict(), config))
    model = Transformer(config)
    np.testing.assert_allclose(model.logits(params, {"tokens": ids}), torch_logits(reference, ids), atol=1e-4)

    labels = torch.tensor(ids, dtype=torch.long)
    loss = reference(input_ids=labels, labels=labels).loss
    loss.backward()
    batch = {"tokens": jnp.asarray(ids[:, :-1]), "targets": jnp.asarray(ids[:, 1:])}
    ours, grads = jax.value_and_grad(lambda params: -jnp.mean(model(params, batch).log_probs))(params)
    np.testing.assert_allclose(ours, loss.item(), rtol=1e-5)
    theirs = {name: weight.grad for name, weight in reference.named_parameters()}
    if config.tie_embeddings:
        theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"]
    expected = flatten(convert(theirs, config))
    for path, grad in flatten(grads).items():
        np.testing.assert_allclose(grad, expected[path], atol=2e-5, rtol=1e-3, err_msg=path)
