"""What merges are measured by, on small models."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aya_jax.cli import main
from aya_jax.config import UserError
from aya_jax.evaluation.config import HarnessConfig, HeldOutConfig
from aya_jax.evaluation.results import read_samples, read_summary
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.merging.objectives import Setting, goals, measures
from aya_jax.merging.search_config import (
    BenchmarkObjectiveConfig,
    FunctionObjectiveConfig,
    HeldOutObjectiveConfig,
    MergeSearchConfig,
    PreferenceObjectiveConfig,
)
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.state import abstract_params
from tests.evaluation.harness import tiny_benchmark
from tests.merging.chat_models import chat_model
from tests.training import small_run

ROOT = Path(__file__).parents[2]
ROWS = [
    ("de", "Guten Tag", "Hallo!"),
    ("de", "ja oder nein", "ja"),
    ("tr", "merhaba", "selam"),
    ("tr", "evet mi", "hayır"),
]


def setting(folder, *objectives) -> Setting:
    return setting_of(chat_model(folder, 0), *objectives)


def setting_of(model, *objectives) -> Setting:
    config = MergeSearchConfig(run_dir="r", models=("a", "b"), objectives=objectives)
    found, mesh = find_model(model, print), make_mesh(config.mesh)
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


@pytest.mark.parametrize(("tasks", "metric"), [(("tiny_*",), "acc"), (("says_de",), "exact_match")])
def test_benchmarks_are_those_of_aya_evaluate(tasks, metric, tmp_path):
    """Both what is scored and what is written, asked of weights on the devices twice."""
    folder, data = tiny_benchmark.write(tmp_path)
    asked = BenchmarkObjectiveConfig(
        metric=metric, benchmarks=HarnessConfig(tasks=tasks, task_dirs=(folder,), data_dir=data)
    )
    given = setting(tmp_path / "model", asked)
    (measure,) = measures(given)
    params = params_of(given)
    found = measure(params)["benchmarks"]
    flags = [f"--gin.MODEL_DIR={tmp_path / 'model'}", f"--gin.RUN_DIR={tmp_path}", f"--gin.TASKS={tasks!r}"]
    flags += [f"--gin.HarnessConfig.task_dirs=('{folder}',)", f"--gin.DATA_DIR={data}"]
    assert main(["evaluate", str(ROOT / "gin/evaluate/benchmarks.gin"), *flags]) == 0
    file = tmp_path / "evaluations" / "benchmarks.json"
    samples, summary = read_samples(file), read_summary(file)
    assert [(item.language, item.value) for item in found.items] == [(s.language, s.metrics[metric]) for s in samples]
    (family,) = summary["families"].values()
    assert found.mean == pytest.approx(family[metric]["macro"]["mean"])
    assert measure(params)["benchmarks"] == found
    other = BenchmarkObjectiveConfig(metric="none_such", benchmarks=asked.benchmarks)
    with pytest.raises(UserError, match=f"none_such is none of .*{metric}"):
        measures(setting(tmp_path / "again", other))[0](params)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory of six steps, its stores beside it."""
    folder = tmp_path_factory.mktemp("held_out")
    file = small_run.write_config(folder, small_run.write_stores(folder / "stores"), steps=6)
    small_run.run("train", file, f"--gin.RUN_DIR={folder / 'run'}")
    return folder / "run"


@pytest.mark.parametrize("of", ["bits_per_byte", "loss"])
def test_held_out_text_is_that_of_aya_evaluate(of, trained, tmp_path):
    given = setting_of(trained, HeldOutObjectiveConfig(of=of, held_out=HeldOutConfig()))
    found = measures(given)[0](params_of(given))["held_out"]
    flags = [f"--gin.MODEL_DIR={trained}", f"--gin.RUN_DIR={tmp_path}"]
    assert main(["evaluate", str(ROOT / "gin/evaluate/held_out.gin"), *flags]) == 0
    lines = (tmp_path / "evaluations" / "held_out.samples.jsonl").read_text().splitlines()
    sums = defaultdict(lambda: np.zeros(2))
    for row in map(json.loads, lines):
        language = row["language"] if row["domain"] == "text" else row["task"]
        value = row["nll"] / np.log(2), row["bytes"]
        sums[language] += value if of == "bits_per_byte" else (row["nll"], row["tokens"])
    assert found.languages == pytest.approx({name: a / b for name, (a, b) in sums.items()})
    assert sorted(found.languages) == ["code_web", "de", "en"]
    assert len(found.items) == len(lines) > 20
