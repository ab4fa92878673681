"""Gradients and rules, against numbers worked by hand."""

import pytest

from aya_jax.merging.values import numbers, of_model, position, value_at

LAYER = "model.layers.{}.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0), (5, 0.75), (6, 0.5), (7, 0.25), (8, 0.0)],
)
def test_a_gradient_is_straight_between_its_numbers_which_are_spread_evenly(layer, expected):
    assert value_at((0.0, 1.0, 0.0), LAYER.format(layer), 9) == pytest.approx(expected)


def test_what_lies_outside_of_layers_has_the_first_number_and_a_single_layer_the_last():
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert value_at((0.25, 1.0), name, 9) == 0.25
    assert position(LAYER.format(0), 1) == 1.0
    assert value_at((0.25, 0.5, 1.0), LAYER.format(0), 1) == 1.0


def test_the_first_rule_whose_pattern_is_a_part_of_the_name_holds():
    rules = (("mlp", 0.3), ("up_proj", 0.4), ("self_attn", (0.0, 1.0)), ("*", 0.9))
    assert value_at(rules, LAYER.format(1), 3) == 0.3
    assert value_at(rules, "model.layers.1.self_attn.q_proj.weight", 3) == 0.5
    assert value_at(rules, "model.norm.weight", 3) == 0.9
    assert value_at(rules[:3], "model.norm.weight", 3) is None
    assert value_at((("m.p", 1.0),), LAYER.format(1), 3) is None  # parts of a name, no regular expressions


def test_values_are_one_for_all_models_or_one_for_each():
    assert [of_model(0.5, at) for at in range(2)] == [0.5, 0.5]
    assert [of_model((0.5, (0.0, 1.0)), at) for at in range(2)] == [0.5, (0.0, 1.0)]
    assert list(numbers((0.5, (0.0, 1.0), (("mlp", 0.3), ("*", (2.0,)))))) == [0.5, 0.0, 1.0, 0.3, 2.0]
