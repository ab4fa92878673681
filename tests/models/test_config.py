"""What TransformerConfig, PrecisionConfig and DescribeConfig refuse."""

from __future__ import annotations

import dataclasses

import pytest

from aya_jax.models.config import DescribeConfig, PrecisionConfig, TransformerConfig

GOOD = TransformerConfig(vocab_size=64, embed_dim=32, num_layers=4, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48)


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"num_kv_heads": 3}, ["num_kv_heads"]),
        ({"head_dim": 7}, ["head_dim"]),
        ({"vocab_size": 0, "mlp_dim": -1}, ["vocab_size", "mlp_dim"]),
        ({"logit_scale": 0.0}, ["logit_scale"]),
        ({"norm_eps": float("nan")}, ["norm_eps"]),
        ({"sliding_window": 0}, ["sliding_window"]),
        ({"sliding_window_pattern": 2}, ["sliding_window"]),
        ({"sliding_window": 8, "sliding_window_pattern": 3}, ["sliding_window_pattern"]),
        ({"sliding_window": 8, "sliding_window_pattern": 1}, ["sliding_window_pattern"]),
        ({"sliding_window": 8, "sliding_window_pattern": 4, "rope_on_full_layers": False}, []),
        ({"rope_on_full_layers": False}, ["rope_on_full_layers"]),
        ({"rope_low_frequency_factor": 4.0}, ["rope_high_frequency_factor"]),
    ],
)
def test_transformer(changes, fields):
    assert [problem.field for problem in dataclasses.replace(GOOD, **changes).validate()] == fields


def test_precision():
    assert not list(PrecisionConfig(compute="bfloat16").validate())
    assert [p.field for p in PrecisionConfig(params="bfloat16").validate()] == ["compute"]
    assert [p.field for p in PrecisionConfig(unroll=0).validate()] == ["unroll"]


def test_describe():
    assert not list(DescribeConfig(model=GOOD).validate())
    fields = [p.field for p in DescribeConfig(model=GOOD, sequence_length=8193, global_batch=0).validate()]
    assert fields == ["global_batch", "sequence_length"]
