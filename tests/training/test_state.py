import json

import jax
import numpy as np

from aya_jax.models.config import TransformerConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.config import OptimizerConfig
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.state import abstract_state, make_state, state_shardings
from tests import eight_devices

MODEL = Transformer(
    TransformerConfig(
        vocab_size=96, embed_dim=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48
    )
)  # fmt: skip
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1.0))


def build():
    mesh = make_mesh(MeshConfig())
    shardings = state_shardings(mesh, MODEL, OPTIMIZER)
    return make_state(MODEL.init, jax.random.key(0), OPTIMIZER, shardings), shardings


def test_a_fresh_state_begins_at_nothing():
    state, _ = build()
    assert int(state.step) == 0
    assert [int(x) for x in state.guard[1:]] == [0, 0, 0]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(state.optimizer))
    assert jax.tree.structure(state.params) == jax.tree.structure(MODEL.shapes())


def test_abstract_state_is_the_state_without_its_numbers():
    state, shardings = build()
    abstract = abstract_state(MODEL, OPTIMIZER, shardings)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for shape, leaf in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype, shape.sharding) == (leaf.shape, leaf.dtype, leaf.sharding)


def test_moments_lie_where_their_parameters_do():
    """On eight emulated devices every matrix and both its moments are split in eight; counters are whole."""
    code = (
        "import json, jax\n"
        "from tests.training.test_state import build\n"
        "state, _ = build()\n"
        "shards = lambda tree: [str(leaf.sharding.spec) for leaf in jax.tree.leaves(tree) if leaf.ndim]\n"
        "moments = shards(state.optimizer)\n"
        "table = state.params['embedding']['table']\n"
        "print(json.dumps([shards(state.params), moments, table.addressable_shards[0].data.size / table.size,"
        " state.step.sharding.is_fully_replicated]))\n"
    )
    params, moments, share, replicated = json.loads(eight_devices.run("-c", code))
    assert moments == params + params
    assert any("fsdp" in spec for spec in params)
    assert share == 1 / 8
    assert replicated
