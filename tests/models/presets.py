"""The mesh presets of gin/hardware/mesh, and where each puts a model."""

import json
import sys
from pathlib import Path

import jax
from jax.sharding import AbstractMesh

from aya_jax.config import resolve
from aya_jax.models.config import DescribeConfig
from aya_jax.models.layers import ACTIVATION_AXES
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import MESH_AXES, MeshConfig, as_tuple
from aya_jax.parallel.sharding import named_shardings, partition_spec

GIN = Path(__file__).parents[2] / "gin"
GOLDEN = Path(__file__).parent / "golden" / "shardings.json"
PRESETS = tuple(sorted(path.stem for path in (GIN / "hardware" / "mesh").glob("*.gin")))
MODELS = ("aya_expanse_8b", "command_r7b", "llama3_8b")
DEVICES = 16


def mesh_config(preset: str) -> MeshConfig:
    """What the preset's file says."""
    return resolve(MeshConfig, files=[GIN / "hardware" / "mesh" / f"{preset}.gin"]).config


def shardings(preset: str) -> dict:
    """Sizes of the mesh over 16 devices, and the mesh axes of each dim of every parameter and pinned activation."""
    config = mesh_config(preset)
    mesh = AbstractMesh(config.shape(DEVICES), MESH_AXES)
    found = {"mesh": dict(mesh.shape), "parameters": {}}
    for name in MODELS:
        files = [GIN / "models" / f"{name}.gin"]
        model = resolve(
            DescribeConfig, files=files, bindings=["DescribeConfig.model=@TransformerConfig()"]
        ).config.model
        transformer = Transformer(model, rules=config.logical_axes)
        tree = named_shardings(mesh, config.logical_axes, transformer.logical_axes(), transformer.shapes())
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        found["parameters"][name] = {
            jax.tree_util.keystr(path, simple=True, separator="/"): _plain(leaf.spec) for path, leaf in leaves
        }
    found["activations"] = {
        name: _plain(partition_spec(config.logical_axes, axes)) for name, axes in ACTIVATION_AXES.items()
    }
    found["activations"]["batch"] = _plain(partition_spec(config.logical_axes, ("batch", "sequence")))
    return found


def _plain(spec) -> str:
    """ "- fsdp slice+data": a word for each dim."""
    return " ".join("+".join(as_tuple(axes)) or "-" for axes in spec)


if __name__ == "__main__":  # writes the golden file: look at the difference before committing it
    lines = {preset: shardings(preset) for preset in PRESETS}
    sys.stdout.write(json.dumps(lines, indent=1) + "\n")
