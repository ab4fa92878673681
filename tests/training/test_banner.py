"""What is refused before anything is compiled: kernels by name."""

import pytest
from jax.sharding import AbstractMesh

from aya_jax.config import UserError, resolve
from aya_jax.parallel.config import MESH_AXES
from aya_jax.training.banner import chosen_kernels
from aya_jax.training.config import TrainConfig
from tests.training.small_run import CONFIG


def kernels(tmp_path, *bindings):
    file = tmp_path / "run.gin"
    file.write_text(CONFIG.format(steps=20, store_dir=tmp_path, cache=tmp_path))
    config = resolve(TrainConfig, files=[file], bindings=["RUN_DIR=r", *bindings]).config
    mesh = AbstractMesh(config.mesh.shape(8), MESH_AXES)
    return chosen_kernels(config, mesh)


def test_the_kernels_chosen_are_named(tmp_path):
    assert kernels(tmp_path) == "attention xla; linear + cross-entropy dense"
    assert kernels(tmp_path, "MeshConfig.context=2").startswith("attention interval;")
    names = ["PrecisionConfig.attention='reference'", "PrecisionConfig.cross_entropy='tiled'"]
    assert kernels(tmp_path, *names) == "attention reference; linear + cross-entropy tiled"


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("PrecisionConfig.attention='flash'", "no attention back-end 'flash'; there are splash"),
        ("PrecisionConfig.cross_entropy='fused'", "no cross-entropy 'fused'; there are dense"),
    ],
)
def test_a_kernel_that_there_is_not_is_refused_by_name(tmp_path, binding, message):
    with pytest.raises(UserError, match=message):
        kernels(tmp_path, binding)
