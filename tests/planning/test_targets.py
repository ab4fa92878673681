"""The machines that a name means."""

import pytest

from aya_jax.config import UserError
from aya_jax.planning.targets import CHIPS, find, named, names, sizes


@pytest.mark.parametrize(
    ("name", "chips", "topology"),
    [
        # docs.cloud.google.com/tpu/docs: v4 and v5p are named by cores, v5e and v6e by chips.
        ("v5p-128", 64, "v5p:4x4x4"),
        ("v4-128", 64, "v4:4x4x4"),
        ("v5p-8", 4, "v5p:2x2x1"),
        ("v5e-256", 256, "v5e:16x16"),
        ("v6e-1", 1, "v6e:1x1"),
        ("V6E-8", 8, "v6e:2x4"),
    ],
)
def test_tpus(name, chips, topology):
    target = find(name)
    assert (target.chips, target.topology) == (chips, topology)
    assert target.name == name.lower()


def test_gpus():
    assert [find(name).chips for name in ("h200-1", "h200-8", "h100-64", "a100-16")] == [1, 8, 64, 16]


def test_every_size_is_its_shape():
    for chip in CHIPS.values():
        for count, shape in chip.shapes.items():
            product = 1
            for side in shape.split("x"):
                product *= int(side)
            assert product == count, (chip.name, shape)


def test_every_name_is_found_again():
    for name in names():
        target = find(name)
        assert named(target.chip, target.chips) == name
        assert target.chips in sizes(target.chip)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h20-8", "did you mean h200-8"),
        ("v5p-12", "v5p comes as v5p-8, v5p-16, v5p-32"),
        ("v5p-12", "counts cores, two to a chip"),
        ("v5e-3", "counts chips"),
        ("v5p-9", "v5p comes as"),
        ("moon", "there are v4, v5e, v5p, v6e, a100, h100, h200"),
    ],
)
def test_unknown(name, said):
    with pytest.raises(UserError, match=said):
        find(name)


def test_values_are_possible():
    for chip in CHIPS.values():
        assert 0 < chip.usable <= chip.memory
        # Every one of them computes, reads, sends within and sends beyond at falling rates.
        assert chip.flops > chip.memory_bandwidth > chip.link_bandwidth > chip.network_bandwidth
