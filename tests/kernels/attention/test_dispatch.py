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
        refuses=lambda shape: "head size above 64" if shape.head_dim and shape.head_dim > 64 else None,
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
