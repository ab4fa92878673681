"""mergekit's files: what they mean, as its documentation and version 0.1.5 say, and what is refused with its line."""

import pytest

from aya_jax.config import UserError
from aya_jax.merging.mergekit_yaml import read_recipe
from tests.merging.models import variant

LAYER = "model.layers.{}.{}.weight"


def read(tmp_path, text):
    file = tmp_path / "m.yml"
    file.write_text(text, encoding="utf-8")
    return read_recipe(file, 7)


def test_ties_with_a_gradient_rules_and_defaults_for_all(tmp_path):
    """The example of mergekit's README, with rules that fall through to the parameters of all models."""
    recipe = read(
        tmp_path,
        """
models:
  - model: a
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1]
  - model: c
    parameters:
      weight:
        - filter: mlp
          value: 0.5
merge_method: ties
base_model: base
parameters:
  normalize: true
  int8_mask: true
  weight: 0.25
  density: 0.33
  lambda: 0.9
dtype: float16
""",
    )
    assert (recipe.method, recipe.base, recipe.models, recipe.owner) == ("ties", "base", ("a", "b", "c"), "base")
    assert (recipe.normalize, recipe.rescale, recipe.dtype, recipe.seed) == (True, "none", "float16", 7)
    middle = recipe.settings(LAYER.format(1, "mlp.up_proj"), 3)
    assert middle.weights == pytest.approx((1.0, 0.5, 0.5))
    assert middle.densities == pytest.approx((0.7, 0.5, 0.33))
    assert middle.scale == 0.9
    last = recipe.settings(LAYER.format(2, "self_attn.q_proj"), 3)
    assert last.weights == pytest.approx((1.0, 1.0, 0.25))
    assert last.densities == pytest.approx((0.1, 0.5, 0.33))
    assert recipe.settings("model.embed_tokens.weight", 3).weights == pytest.approx((1.0, 0.0, 0.25))


def test_slerp_by_full_slices_with_t_by_name(tmp_path):
    a, b = variant(tmp_path / "a", 1), variant(tmp_path / "b", 2)
    recipe = read(
        tmp_path,
        f"""
slices:
  - sources:
      - model: {a}
        layer_range: [0, 2]
      - model: {b}
        layer_range: [0, 2]
merge_method: slerp
base_model: {b}
parameters:
  t:
    - filter: self_attn
      value: [0, 1]
    - value: 0.4
dtype: float32
out_dtype: bfloat16
tokenizer_source: union
chat_template: auto
""",
    )
    assert (recipe.base, recipe.models, recipe.dtype) == (str(b), (str(a),), "bfloat16")
    assert (recipe.tokenizer, recipe.chat_template) == ("union", "auto")
    assert recipe.settings(LAYER.format(1, "self_attn.q_proj"), 2).t == 1.0
    assert recipe.settings(LAYER.format(1, "mlp.up_proj"), 2).t == 0.4


def test_defaults_are_those_of_mergekit(tmp_path):
    text = "merge_method: {}\nbase_model: c\nmodels: [{{model: a}}, {{model: b}}, {{model: c}}]\nparameters: {{weight: 1}}\n"
    # Its table of methods: (normalize, rescale); rescaling there matches the L1 norm.
    for method, expected in {
        "task_arithmetic": (False, "none"),
        "ties": (True, "none"),
        "dare_linear": (False, "l1"),
        "dare_ties": (False, "l1"),
        "breadcrumbs": (False, "none"),
        "breadcrumbs_ties": (False, "none"),
        "della": (True, "l1"),
        "della_linear": (False, "l1"),
    }.items():
        recipe = read(tmp_path, text.format(method))
        assert (recipe.normalize, recipe.rescale) == expected, method
        assert recipe.models == ("a", "b")  # a base that is listed too is no model beside itself
        found = recipe.settings("model.norm.weight", 2)
        assert (found.densities[0], found.gammas[0], found.epsilons[0], found.scale) == (1.0, 0.01, 0.15, 1.0)
    without = text.format("dare_ties").replace("weight: 1", "weight: 1, rescale: false")
    assert read(tmp_path, without).rescale == "none"


LINEAR = "merge_method: linear\nmodels:\n  - model: a\n    parameters: {weight: 1}\n  - model: b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [", r"m.yml:\d: not YAML"),
        ("- a", "m.yml: not a configuration of mergekit's"),
        ("models: []", "merge_method is missing"),
        (
            "merge_method: tise\nmodels: [{model: a}]",
            r"m.yml:1: merge_method: 'tise' is not done here; did you mean ties\?",
        ),
        ("merge_method: passthrough\nmodels: [{model: a}]", "m.yml:1: merge_method: 'passthrough' is not done here"),
        ("merge_method: linear\nmodules: {}\n", "m.yml:2: modules: this is not done here"),
        ("merge_method: linear\n", "expected one of models and slices"),
        ("merge_method: linear\nmodels: a\n", "m.yml:2: models: expected a list of models"),
        ("merge_method: linear\nmodels:\n  - path: a\n", r"m.yml:3: models\[0\].path: this is not done here"),
        ("merge_method: linear\nmodels:\n  - parameters: {}\n", r"m.yml:3: models\[0\]: model is None"),
        (LINEAR, r"weight is missing for some tensors, and linear needs it"),
        (
            LINEAR + "    parameters:\n      weigth: 1\n",
            r"m.yml:7: models\[1\].parameters.weigth: .* did you mean weight\?",
        ),
        (
            LINEAR + "    parameters:\n      weight: much\n",
            r"m.yml:7: models\[1\].parameters.weight: 'much': expected a number",
        ),
        (LINEAR + "    parameters:\n      weight: [1, true]\n", r"m.yml:7: .*weight: \[1, True\]: expected a number"),
        (LINEAR + "    parameters: {weight: [{filter: mlp, value: 1}]}\n", "weight is missing for some tensors"),
        (
            LINEAR + "parameters: {weight: 1, normalize: 3}\n",
            "m.yml:6: parameters.normalize: 3: expected true or false",
        ),
        (LINEAR + "parameters: {select_topk: 0.1}\n", "m.yml:6: parameters.select_topk: this is not done here"),
        (LINEAR + "parameters: {weight: 1}\ndtype: int8\n", "m.yml:7: dtype: 'int8': expected one of float32"),
        (LINEAR + "parameters: {weight: 1}\nbase_model: c\n", "m.yml:7: base_model: linear has no base"),
        (
            LINEAR + "parameters: {weight: 1}\nchat_template: chatml\n",
            "m.yml:7: chat_template: 'chatml': expected auto",
        ),
        (
            LINEAR + "parameters: {weight: 1}\ntokenizer: {source: base, tokens: {}}\n",
            "m.yml:7: tokenizer.tokens: this is not",
        ),
        ("merge_method: ties\nmodels: [{model: a}]\n", "base_model is missing, which ties needs"),
        (
            "merge_method: slerp\nbase_model: c\nmodels: [{model: a}, {model: b}]\n",
            "m.yml:2: base_model: 'c' is not one of",
        ),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\n", "t is missing"),
        ("merge_method: slerp\nbase_model: a\nmodels: [{model: a}]\n", "0 models beside the base: slerp takes 1"),
        (
            "merge_method: model_stock\nbase_model: a\nparameters: {filter_wise: true}\nmodels: [{model: b}, {model: c}]\n",
            "m.yml:3: parameters.filter_wise: True is not done here",
        ),
        (
            "merge_method: linear\nslices:\n  - sources: [{model: a}]\n  - sources: [{model: a}]\n",
            "m.yml:2: slices: more than one slice would stack layers",
        ),
    ],
)
def test_what_is_not_done_or_wrong_is_refused_by_line_and_field(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_part_of_the_layers_and_a_missing_file_are_refused(tmp_path):
    a = variant(tmp_path / "a", 1)
    text = "merge_method: linear\nslices:\n- sources:\n  - model: {}\n    layer_range: [0, 1]\n"
    with pytest.raises(
        UserError, match=r"m.yml:5: slices\[0\].sources\[0\].layer_range: \[0, 1\]: only all layers, \[0, 2\]"
    ):
        read(tmp_path, text.format(a))
    with pytest.raises(UserError, match=r"nothing\.yml: cannot be read"):
        read_recipe(tmp_path / "nothing.yml", 0)
