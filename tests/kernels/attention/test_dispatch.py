"""Which back-end is picked, and why one is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from aya_jax.config import UserError
from aya_jax.kernels.attention import Shape, attention, choose
from aya_jax.kernels.attention.dispatch import Backend


def test_a_backend_that_lacks_a_feature_is_never_picked():
    fast = Backend("fast", lambda *_: None, frozenset({"causal", "gqa"}), frozenset({"cpu"}))
    everything = Backend(
        "slow", lambda *_: None, frozenset({"causal", "full", "gqa", "window", "segments"}), frozenset({"cpu", "tpu"})
    )
    backends = (fast, everything)

    def pick(**kwargs):
        return choose(platform="cpu", backends=backends, **kwargs)

    assert pick(segments=False) == "fast"
    assert pick(segments=True) == "slow"
    assert pick(segments=False, window=4) == "slow"
    assert pick(segments=False, causal=False) == "slow"
    assert choose(platform="tpu", backends=backends, segments=False) == "slow"
    with pytest.raises(UserError, match=r"fast: does not honour segments; choose one of slow"):
        pick(segments=True, implementation="fast")
    with pytest.raises(UserError, match=r"soft_cap.*no other back-end can either"):
        pick(soft_cap=30.0, implementation="fast")
    with pytest.raises(UserError, match=r"fast: not on gpu; slow: not on gpu"):
        choose(platform="gpu", backends=backends, window=3)
    with pytest.raises(UserError, match=r"no attention back-end 'flash'; there are fast, slow"):
        pick(implementation="flash")


def test_a_backend_that_refuses_a_shape_or_waits_to_be_named_is_passed_over():
    narrow = Backend(
        "narrow",
        lambda *_: None,
        frozenset({"causal"}),
        frozenset({"cpu"}),
        refuses=lambda shape, needed: "head size above 64" if shape.head_dim and shape.head_dim > 64 else None,
    )
    shy = Backend("shy", lambda *_: None, frozenset({"causal"}), frozenset({"cpu"}), by_name_only=True)
    asked = {"platform": "cpu", "segments": False, "gqa": False, "backends": (shy, narrow)}
    assert choose(**asked) == "narrow"
    assert choose(**asked, shape=Shape(head_dim=64)) == "narrow"
    assert choose(**asked, implementation="shy") == "shy"
    with pytest.raises(UserError, match=r"shy: only when asked for by name; narrow: head size above 64"):
        choose(**asked, shape=Shape(head_dim=80))


def test_the_choice_on_a_cpu():
    assert choose(platform="cpu") == "xla"
    assert choose(platform="cpu", window=4, soft_cap=20.0) == "xla"
    assert choose(platform="cpu", segments=True, causal=False) == "interval"
    with pytest.raises(UserError, match="segments_full"):
        choose(segments=True, causal=False, implementation="xla")


def test_the_platform_is_that_of_the_mesh_in_context():
    """So that what is compiled for devices that are not here picks what they run."""
    device = jax.sharding.AbstractDevice(device_kind="Whatever", num_cores=1, platform="abacus")
    mesh = jax.sharding.AbstractMesh((1,), ("data",), (jax.sharding.AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(UserError, match="xla: not on abacus"):
        attention(*[jnp.zeros((1, 4, 2, 16))] * 3)


def test_the_choice_on_a_tpu_and_a_gpu():
    long = Shape(head_dim=128, queries=8192, keys=8192, dtype=jnp.bfloat16)
    assert choose(platform="tpu", shape=long) == choose(platform="tpu", window=4096, shape=long) == "splash"
    assert choose(platform="tpu", shape=Shape(queries=1000)) == "xla"
    # Neither has been measured on a GPU.
    assert choose(platform="gpu", shape=long) == "xla"
    for name in ("pallas_gpu", "cudnn"):
        assert choose(platform="gpu", shape=long, implementation=name) == name


@pytest.mark.parametrize(
    ("name", "asked", "reason"),
    [
        (
            "splash",
            {"platform": "gpu"},
            "splash: not on gpu; choose one of xla, interval, pallas_gpu, cudnn, reference",
        ),
        ("splash", {"platform": "tpu", "shape": Shape(queries=200)}, "a row of 200 positions is no multiple of 128"),
        ("pallas_gpu", {"platform": "gpu", "shape": Shape(head_dim=72)}, "head size 72 is no multiple of 16"),
        ("pallas_gpu", {"platform": "gpu", "shape": Shape(head_dim=272)}, "head size 272 is above 256"),
        ("cudnn", {"platform": "gpu", "shape": Shape(head_dim=160)}, "cudnn: head size 160 is above 128"),
        ("cudnn", {"platform": "gpu", "shape": Shape(head_dim=100)}, "head size 100 is no multiple of 8"),
        ("cudnn", {"platform": "gpu", "shape": Shape(dtype=jnp.float32)}, "float32 is neither bfloat16 nor float16"),
        ("cudnn", {"platform": "gpu", "shape": Shape(queries=7)}, "a row of 7 positions is odd"),
        ("cudnn", {"platform": "gpu", "window": 8}, "no window over packed documents"),
        ("cudnn", {"platform": "gpu", "soft_cap": 30.0}, "does not honour soft_cap"),
        ("cudnn", {"platform": "cpu"}, "cudnn: not on cpu"),
    ],
)
def test_a_backend_asked_for_by_name_says_why_not(name, asked, reason):
    with pytest.raises(UserError, match=reason):
        choose(implementation=name, **asked)
