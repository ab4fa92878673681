"""Mesh shapes and logical axes: what fits, and what is refused in which words."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.config import UserError
from aya_jax.parallel.config import LogicalAxes, MeshConfig


@given(
    slice=st.integers(1, 3),
    data=st.integers(1, 8),
    fsdp=st.integers(1, 8),
    context=st.integers(1, 4),
    tensor=st.integers(1, 4),
)
def test_the_open_axis_takes_what_is_left(slice, data, fsdp, context, tensor):
    devices = slice * data * fsdp * context * tensor
    sizes = {"slice": slice, "data": data, "fsdp": fsdp, "context": context, "tensor": tensor}
    for axis in sizes:
        assert MeshConfig(**{**sizes, axis: -1}).shape(devices) == (slice, data, fsdp, context, tensor)
    assert MeshConfig(**sizes).shape(devices) == (slice, data, fsdp, context, tensor)


def test_devices_that_do_not_fit():
    with pytest.raises(UserError, match=r"wants 4 devices and there are 8"):
        MeshConfig(data=2, fsdp=2).shape(8)
    with pytest.raises(UserError, match=r"8 devices cannot be divided by 3"):
        MeshConfig(tensor=3).shape(8)


def problems(config):
    return [(problem.field, problem.expected) for problem in config.validate()]


def test_validation():
    assert problems(MeshConfig()) == []
    assert problems(MeshConfig(data=-1)) == [("fsdp", "-1 in one axis only; data is -1 already")]
    assert [field for field, _ in problems(MeshConfig(slice=-1, fsdp=8))] == ["slice"]
    assert [field for field, _ in problems(MeshConfig(tensor=0, context=-2))] == ["context", "tensor"]
    assert problems(MeshConfig(xla_flags=("cpu_fast",)))[0][0] == "xla_flags"
    assert problems(LogicalAxes()) == []
    assert problems(LogicalAxes(mlp="model"))[0][0] == "mlp"
    assert problems(LogicalAxes(batch=("data", "data")))[0] == ("batch", "each mesh axis at most once")


def test_logical_axes_map_to_mesh_axes():
    assert LogicalAxes().mesh_axes(("layers", "embed", "mlp")) == (None, "fsdp", "tensor")
    assert LogicalAxes().mesh_axes(("batch", "sequence", None)) == (("slice", "data", "fsdp"), "context", None)


def test_a_mesh_axis_used_twice_is_refused():
    with pytest.raises(UserError, match=r"mesh axis 'tensor' would split two dims of one array, 'vocab' and 'embed'"):
        LogicalAxes(embed="tensor").mesh_axes(("vocab", "embed"))
    with pytest.raises(UserError, match=r"mesh axis 'fsdp' .*'batch' and 'sequence'"):
        LogicalAxes(sequence=("context", "fsdp")).mesh_axes(("batch", "sequence"))


def test_an_unknown_logical_axis_is_refused():
    with pytest.raises(UserError, match=r"'width' is no logical axis; LogicalAxes has batch, sequence"):
        LogicalAxes().mesh_axes(("width",))


def test_configuration_imports_no_jax():
    code = (
        "import sys; import aya_jax.parallel.config, aya_jax.models.config; "
        "assert not {'jax', 'numpy', 'tensorflow', 'flax'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
