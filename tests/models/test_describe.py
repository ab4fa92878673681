"""The report of `aya describe`: numbers that can be checked by hand, at any size, quickly."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from rich.console import Console

from aya_jax.config import resolve
from aya_jax.models import describe
from aya_jax.models.config import PrecisionConfig

MODELS = Path(__file__).parents[2] / "gin" / "models"


def resolved(name, *bindings):
    return resolve(describe.DescribeConfig, [MODELS / f"{name}.gin"], bindings)


def test_the_largest_model_in_seconds(capsys):
    start = time.perf_counter()
    describe.run(resolved("aya_23_35b"))
    assert time.perf_counter() - start < 10
    text = capsys.readouterr().out
    for part in ("34,980,831,232", "2,097,152,000", "32,883,679,232", "layers/mlp/gate", "optimizer", "logits"):
        assert part in text


def test_memory_of_the_state():
    config = resolved("aya_23_8b", "DescribeConfig.devices=64", "DescribeConfig.global_batch=64").config
    parts = describe.memory(config)
    assert parts.parameters == 4 * 8_028_033_024 // 64
    assert parts.gradients == parts.parameters
    assert parts.optimizer == 2 * 4 * 8_028_033_024 // 64
    assert parts.total == sum(dataclasses.astuple(parts))


def test_dense_logits_are_counted_whole_and_tiled_ones_by_tile():
    small = resolved("25m", "DescribeConfig.sequence_length=256", "DescribeConfig.global_batch=8").config
    assert describe.memory(small).logits == 4 * 8192 * 8 * 256
    large = resolved("aya_23_8b").config
    assert describe.memory(large).logits <= 2**30


def test_rematerialisation_keeps_less():
    model = resolved("25m").config.model

    def kept(remat, compute="float32"):
        return describe.activation_bytes_per_token(model, PrecisionConfig(remat=remat, compute=compute))

    assert kept("full") == 8 * 512 * 4
    assert kept("full") < kept("dots") < kept("none")
    assert kept("full", "bfloat16") == 8 * 512 * 2


@pytest.mark.parametrize(("name", "line"), [("command_r7b", "24 in a window of 4,096, 8 full"), ("25m", "8, full")])
def test_layers_are_told_apart(name, line):
    console = Console(width=120)
    with console.capture() as capture:
        console.print(describe.render(resolved(name).config))
    assert line in capture.get()
