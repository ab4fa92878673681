"""Differences of logits against closed forms, and of golden models with themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.interop.test_convert import convert
from tools.compare_logits import compare, main
from tools.make_golden_logits import HUGGING_FACE


def test_a_known_difference():
    """Two tokens: p = (1/2, 1/2) and q = (3/4, 1/4); a constant added to all logits changes no probability."""
    first, second = np.zeros((2, 2), np.float32), np.asarray([[math.log(3), 0], [5, 5]], np.float32)
    found = compare(first, second)
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found.positions == 2
    assert found.largest == 5
    assert found.mean == pytest.approx((math.log(3) + 10) / 4)
    assert found.kl_largest == pytest.approx(divergence, rel=1e-5)
    assert found.kl == pytest.approx(divergence / 2, rel=1e-5)
    assert found.agreement == 1


def test_a_converted_model_is_the_same_and_another_is_not(tmp_path, capsys):
    source = str(HUGGING_FACE / "cohere")
    assert convert(source, tmp_path / "ours") == 0
    capsys.readouterr()
    assert main([source, str(tmp_path / "ours")]) == 0
    assert "largest difference 0, mean 0" in capsys.readouterr().out
    assert main([source, str(HUGGING_FACE / "cohere_qk_norm")]) == 0
    assert "largest difference 0," not in capsys.readouterr().out
    assert main([source, str(tmp_path)]) == 1
    assert "no model is there" in capsys.readouterr().err
