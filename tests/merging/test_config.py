"""What `MergeConfig` refuses, all at once and by field."""

import re

import pytest

from aya_jax.config import resolve
from aya_jax.config.errors import ConfigError
from aya_jax.merging.config import MergeConfig

TWO = ("a", "b")


def problems(**fields):
    return {problem.field: problem.expected for problem in MergeConfig(**{"target": "t", **fields}).validate()}


@pytest.mark.parametrize(
    ("fields", "field", "expected"),
    [
        ({}, "method", "a method: read one of merge/linear.gin"),
        ({"method": "tise", "models": TWO}, "method", "one of linear, slerp"),
        ({"method": "linear", "models": TWO, "target": ""}, "target", "--gin.TARGET"),
        ({"method": "linear", "models": TWO, "shard_gb": 0.0}, "shard_gb", "above 0"),
        ({"method": "linear"}, "models", "at least 1 for linear"),
        ({"method": "slerp", "models": ("a",)}, "models", "2 models for slerp"),
        ({"method": "slerp", "models": ("a", "b", "c")}, "models", "2 models for slerp"),
        ({"method": "slerp", "models": TWO, "base": "c"}, "models", "2 models for slerp"),
        ({"method": "linear", "models": ("a", "a")}, "models", "a is given twice"),
        ({"method": "ties", "models": TWO, "base": "b"}, "models", "b is given twice"),
        ({"method": "ties", "models": TWO}, "base", "which ties needs"),
        ({"method": "linear", "models": TWO, "base": "c"}, "base", "linear takes no base"),
        ({"method": "linear", "models": TWO, "weights": (1.0,)}, "weights", "one for each of 2 models, and not 1"),
        ({"method": "linear", "models": TWO, "weights": (1.0, ())}, "weights", "at least one in the tuple"),
        ({"method": "ties", "models": TWO, "base": "c", "densities": 0.0}, "densities", "above 0, at most 1"),
        (
            {"method": "ties", "models": TWO, "base": "c", "densities": (0.5, (0.5, 2.0))},
            "densities",
            "above 0, at most 1",
        ),
        ({"method": "breadcrumbs", "models": TWO, "base": "c", "gammas": 1.0}, "gammas", "less than 1"),
        ({"method": "slerp", "models": TWO, "t": (("mlp", 2.0), ("*", 0.5))}, "t", "from 0 to 1"),
        ({"method": "slerp", "models": TWO, "weights": 0.5}, "weights", "slerp has no use for it"),
        ({"method": "linear", "models": TWO, "densities": 0.5}, "densities", "linear has no use for it"),
        ({"method": "linear", "models": TWO, "t": 0.1}, "t", "linear has no use for it"),
        ({"method": "linear", "models": TWO, "steps": "all"}, "steps", "one run directory"),
        ({"method": "linear", "models": ("a",), "steps": "all", "decay": 1.0}, "decay", "less than 1"),
        ({"method": "linear", "models": TWO, "weights": 0.5, "decay": 0.9}, "decay", "nothing where weights are given"),
        ({"method": "linear", "models": TWO, "tokenizer": "c"}, "tokenizer", "'base', 'union' or one of models"),
        ({"method": "linear", "models": TWO, "tokenizer": "base"}, "tokenizer", "there is no base"),
        (
            {"method": "linear", "models": TWO, "chat_template": "c"},
            "chat_template",
            "one of models, or a Jinja template",
        ),
        ({"recipe": ("m.yml", "n.yml")}, "recipe", "one file of mergekit's"),
        ({"recipe": ("m.yml",), "models": TWO}, "models", "m.yml says it"),
        ({"recipe": ("m.yml",), "dtype": "float16"}, "dtype", "m.yml says it"),
    ],
)
def test_what_is_wrong_is_named_by_field(fields, field, expected):
    found = problems(**fields)
    assert list(found) == [field]
    assert re.search(re.escape(expected), found[field])


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "linear", "models": TWO, "weights": (0.3, 0.7)},
        {"method": "linear", "models": ("a",), "steps": "all", "decay": 0.9},
        {"method": "slerp", "models": TWO, "t": (0.0, 0.5, 1.0)},
        {"method": "slerp", "models": ("a",), "base": "b"},
        {"method": "ties", "models": TWO, "base": "c", "densities": (0.5, (("mlp", 0.3), ("*", 1.0)))},
        {"method": "linear", "models": TWO, "chat_template": "{{ messages }}", "tokenizer": "union"},
        {"recipe": ("m.yml",), "seed": 3, "scan": False},
    ],
)
def test_what_is_right_passes(fields):
    assert problems(**fields) == {}


def test_the_base_of_slerp_is_the_first_model_unless_it_is_named():
    assert MergeConfig(target="t", method="slerp", models=TWO).merged() == ("a", ("b",))
    assert MergeConfig(target="t", method="slerp", models=TWO, base="b").merged() == ("b", ("a",))
    assert MergeConfig(target="t", method="ties", models=TWO, base="c").merged() == ("c", TWO)


@pytest.mark.parametrize(
    "name", ["linear", "slerp", "ties", "dare_ties", "breadcrumbs", "della", "model_stock", "checkpoints"]
)
def test_each_gin_file_is_enough_with_what_it_says_is_required(name):
    models = ("a",) if name == "checkpoints" else TWO
    base = () if name in ("linear", "slerp", "checkpoints") else ("BASE='c'",)
    bindings = [f"MODELS={models!r}", "TARGET='t'", *base]
    found = resolve(MergeConfig, ["merge/base.gin", f"merge/{name}.gin"], bindings).config
    assert found.models == models
    if base:
        with pytest.raises(ConfigError, match="BASE"):
            resolve(MergeConfig, ["merge/base.gin", f"merge/{name}.gin"], bindings[:2])
