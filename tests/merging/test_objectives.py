"""What merges are measured by, on small models."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.merging.objectives import Setting, goals, measures
from aya_jax.merging.search_config import FunctionObjectiveConfig, MergeSearchConfig, PreferenceObjectiveConfig
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.state import abstract_params
from tests.merging.chat_models import chat_model

ROWS = [
    ("de", "Guten Tag", "Hallo!"),
    ("de", "ja oder nein", "ja"),
    ("tr", "merhaba", "selam"),
    ("tr", "evet mi", "hayır"),
]


def setting(folder, *objectives) -> Setting:
    config = MergeSearchConfig(run_dir="r", models=("a", "b"), objectives=objectives)
    found, mesh = find_model(chat_model(folder, 0), print), make_mesh(config.mesh)
    return Setting(
        Transformer(found.config, PrecisionConfig(), config.mesh.logical_axes), mesh, config, found, Console()
    )


def params_of(given: Setting):
    return load_params(given.found, abstract_params(given.model, given.mesh))


def test_pairs_the_other_way_round_are_right_where_they_were_wrong(tmp_path):
    files = []
    for name in ("chosen", "rejected"):
        other = {"chosen": "rejected", "rejected": "chosen"}[name]
        rows = [
            {"id": number, "language": language, "prompt": prompt, name: answer, other: f"{answer} {answer} x"}
            for number, (language, prompt, answer) in enumerate(ROWS)
        ]
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    both = [PreferenceObjectiveConfig(name=file.stem, input=str(file), reduce="sum") for file in files]
    given = setting(tmp_path / "model", *both)
    params = params_of(given)
    one, other = (measure(params)[file.stem] for measure, file in zip(measures(given), files, strict=True))
    assert [item.value for item in one.items] == [1 - item.value for item in other.items]
    assert one.mean == pytest.approx(1 - other.mean)
    assert one.languages == {"de": 1.0, "tr": 1.0}  # a sum over more tokens of a random model is lower
    assert [(item.id, item.language) for item in one.items] == [("0", "de"), ("1", "de"), ("2", "tr"), ("3", "tr")]


def fake(params, model, tokenizer):
    return {"harm/de": 0.5, "harm/tr": 0.1, "wins": 3, "words": tokenizer.vocabulary.size}


def nothing(params, model, tokenizer):
    return {}


def test_a_functions_numbers_are_goals_by_name_and_language(tmp_path):
    asked = FunctionObjectiveConfig(
        name="mine", function=f"{__name__}:fake", minimize=("harm", "harm/tr"), maximize=("wins",)
    )
    given = setting(tmp_path / "model", asked)
    found = measures(given)[0](None)
    wanted = goals((asked,))
    assert [goal.name for goal in wanted] == given.config.goal_names()
    numbers = {goal.name: (found[goal.measure].goal(goal), goal.minimize) for goal in wanted}
    assert numbers == {"mine/harm": (0.3, True), "mine/harm/tr": (0.1, True), "mine/wins": (3.0, False)}


@pytest.mark.parametrize(("name", "said"), [("nothing", "and no harm"), ("none_such", "cannot be imported")])
def test_a_function_that_gives_nothing_is_named(name, said, tmp_path):
    asked = FunctionObjectiveConfig(function=f"{__name__}:{name}", minimize=("harm",))
    with pytest.raises(UserError, match=said):
        measures(setting(tmp_path / "model", asked))[0](None)
