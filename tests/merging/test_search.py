"""Searching for merges: proposals, what stands on disk, and that what was measured is what is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aya_jax.cli import main
from aya_jax.evaluation.weights import weights_digest
from aya_jax.interop.model_dir import find_model, load_params
from aya_jax.merging.in_memory import Merger
from aya_jax.merging.measured import Goal, Item, Measured, difference
from aya_jax.merging.recipe import from_config
from aya_jax.merging.search import Trial, best, front, read
from aya_jax.merging.search_config import FunctionObjectiveConfig, MergeSearchConfig
from aya_jax.merging.space import Evolution, grid, identity
from aya_jax.models.config import PrecisionConfig
from aya_jax.models.transformer import Transformer
from aya_jax.parallel.config import LogicalAxes, MeshConfig
from aya_jax.parallel.mesh import make_mesh
from aya_jax.training.state import abstract_params
from tests.merging import objective
from tests.merging.models import variant

FUNCTION = FunctionObjectiveConfig(
    function="tests.merging.objective:numbers", minimize=("largest/de", "spread"), maximize=()
)
GIN = """
MergeSearchConfig.run_dir = %RUN_DIR
MergeSearchConfig.models = %MODELS
MergeSearchConfig.base = %BASE
MergeSearchConfig.objectives = (@FunctionObjectiveConfig(),)
MergeSearchConfig.compilation_cache = None
FunctionObjectiveConfig.function = 'tests.merging.objective:numbers'
FunctionObjectiveConfig.minimize = ('largest/de', 'spread')
"""


def config(**fields) -> MergeSearchConfig:
    return MergeSearchConfig(**{"run_dir": "r", "models": ("a", "b"), "objectives": (FUNCTION,)} | fields)


def problems(**fields) -> dict[str, str]:
    return {problem.field: problem.expected for problem in config(**fields).validate()}


# Proposals ------------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_of_what_a_method_uses():
    searched = config(
        base="c",
        methods=("linear", "ties", "slerp"),
        weights=(0.5, 1.0),
        densities=((0.2, 0.4, 0.6), (0.5,)),
        scale=("range", 0.0, 1.0, 3),
        t=(0.1, 0.9),
    )
    assert not list(searched.validate())
    found = list(grid(searched))
    # 2 weights of each of 2 models; the same with 3 densities of the first and 3 scales; 2 places along the arc
    assert [sum(fields["method"] == name for fields in found) for name in searched.methods] == [4, 4 * 3 * 3, 2]
    assert found[0] == {"method": "linear", "weights": (0.5, 0.5)}
    assert {fields["scale"] for fields in found if fields["method"] == "ties"} == {0.0, 0.5, 1.0}
    assert {fields["densities"] for fields in found if fields["method"] == "ties"} == {
        (0.2, 0.5),
        (0.4, 0.5),
        (0.6, 0.5),
    }
    assert len({identity(fields) for fields in found[:4]}) == 3  # (0.5, 0.5) and (1, 1) are one average
    layered = next(grid(config(weights=(0.25,), layer_points=3)))
    assert layered["weights"] == ((0.25, 0.25, 0.25), (0.25, 0.25, 0.25))


def test_an_evolution_follows_from_its_seed_and_gets_better():
    pytest.importorskip("optuna")
    searched = config(weights=("range", 0.0, 1.0), strategy="evolution", trials=60, population=10)

    def run(seed):
        found = []
        for fields, tell in Evolution(config(**vars(searched) | {"seed": seed}), [True])():
            cost = sum((weight - target) ** 2 for weight, target in zip(fields["weights"], (0.2, 0.9), strict=True))
            tell([cost])
            found.append((fields["weights"], cost))
        return found

    first = run(0)
    assert first == run(0)
    assert first[0] != run(1)[0]
    early, late = ([cost for _, cost in part] for part in (first[:10], first[-10:]))
    assert np.mean(late) < 0.5 * np.mean(early)


def test_what_cannot_be_searched_is_said():
    assert not problems()
    assert "name" not in problems(objectives=(FUNCTION,))
    assert problems(weights=("range", 0.0, 1.0))["weights"].startswith("how many numbers of the range a grid has")
    assert "lower end first" in problems(weights=("range", 1.0, 0.0, 3))["weights"]
    assert "a choice for each of 2 models" in problems(weights=((0.1,), (0.2,), (0.3,)))["weights"]
    assert "which ties needs" in problems(methods=("ties",))["base"]
    assert problems(methods=("tise",))["methods"].startswith("one of ")
    assert "above 0" in problems(methods=("ties",), base="c", densities=(0.0, 0.5))["densities"]
    assert "one of function/largest/de" in problems(choose="x")["choose"]
    assert "name of its own" in problems(objectives=(FUNCTION, FUNCTION))["objectives"]


# What was measured ----------------------------------------------------------------------------------------------------

GOALS = [Goal("loss", "loss", None, True), Goal("acc", "acc", None, False)]


def trial(number, loss, acc, **more) -> Trial:
    return Trial(number, fields={"method": "linear"}, goals={"loss": loss, "acc": acc}, **more)


def test_the_front_and_the_best_of_it_by_hand():
    alone = Trial(0, alone="a", goals={"loss": 0.0, "acc": 9.0})  # no merge
    trials = [
        alone,
        trial(1, 1.0, 0.2),
        trial(2, 2.0, 0.8),
        trial(3, 3.0, 0.9),
        trial(4, 2.5, 0.8),  # trial 2 has less loss and the same accuracy
        trial(5, 1.0, 0.2),  # as good as trial 1
        trial(6, 0.1, 0.1, same_as=1),
        trial(7, float("nan"), 1.0),
    ]
    assert [found.number for found in front(trials, GOALS)] == [1, 2, 3, 5]
    # On the front's scale: (0, 1), (1/2, 1/7), (1, 0): the middle one is at 0.27 of the ideal, the others at 1.
    assert best(trials, GOALS).number == 2
    assert best(trials, GOALS, "acc").number == 3
    assert best(trials, GOALS, "loss").number == 1


def test_numbers_of_items_are_quotients_of_sums_and_differences_are_paired():
    first = [Item("1", "de", 8.0, 2.0), Item("2", "de", 2.0, 8.0), Item("3", "tr", 3.0, 1.0)]
    assert Measured.of(first).languages == {"de": 1.0, "tr": 3.0}
    assert Measured.of(first).mean == 2.0
    rng = np.random.default_rng(0)
    hard = rng.normal(5.0, 3.0, 400)  # what items have in common, which a paired comparison does not see
    gap = rng.normal(0.1, 0.2, 400)
    one, other = ([Item(str(n), "de", float(v)) for n, v in enumerate(values)] for values in (hard, hard + gap))
    found = difference(one, [*other, Item("more", "de", 100.0)]).macro
    assert found.interval.estimate == pytest.approx(gap.mean())
    width = 2 * 1.96 * gap.std(ddof=1) / np.sqrt(400)  # the t interval of paired differences
    assert found.interval.high - found.interval.low == pytest.approx(width, rel=0.1)
    assert found.shared == 400


# With models ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    return tuple(str(variant(tmp_path / name, seed)) for seed, name in enumerate("cab"))


def search(folder: Path, three, *bindings: str, code: int = 0) -> list[Trial]:
    file = folder.with_suffix(".gin")
    file.write_text(GIN)
    base, *models = three
    flags = [f"--gin.RUN_DIR={folder}", f"--gin.MODELS={tuple(models)!r}", f"--gin.BASE={base}"]
    assert main(["merge_search", str(file), *flags, *(f"--gin.MergeSearchConfig.{each}" for each in bindings)]) == code
    return read(folder / "trials.jsonl")


def digest_of_written(folder: Path) -> float:
    """Of the weights as an evaluation loads them."""
    found, mesh = find_model(folder, print), make_mesh(MeshConfig())
    model = Transformer(found.config, PrecisionConfig(), LogicalAxes())
    return float(int(weights_digest(load_params(found, abstract_params(model, mesh)))[:12], 16))


METHODS = {
    "linear": {"weights": (0.3, 0.7)},
    "slerp": {"t": 0.25},
    "ties": {"weights": (0.5, (0.2, 1.0)), "densities": (0.3, 0.6), "scale": 0.7},
    "dare_linear": {"weights": (0.5, 0.5), "densities": (0.4, 0.8)},
    "della": {"weights": (0.5, 0.5), "densities": (0.5, 0.5), "epsilons": (0.1, 0.2)},
    "model_stock": {},
}
SLOW = pytest.mark.slow  # of these programs most of the time is compilation


@pytest.mark.parametrize(
    "method", [m if m in ("slerp", "dare_linear") else pytest.param(m, marks=SLOW) for m in METHODS]
)
def test_in_memory_is_what_aya_merge_writes(method, three, tmp_path):
    base, *models = three
    searched = config(models=tuple(models), base=base, seed=5)
    recipe = searched.merge_config({"method": method} | METHODS[method])
    flags = METHODS[method] | {"method": method, "seed": 5}
    bound = [f"--gin.MergeConfig.{field}={value!r}" for field, value in flags.items()]
    bound += [f"--gin.MODELS={tuple(models)!r}"] + ([f"--gin.BASE={base}"] if recipe.base else [])
    assert main(["merge", *bound, f"--gin.TARGET={tmp_path / method}"]) == 0
    merger = Merger(from_config(recipe), make_mesh(MeshConfig()), PrecisionConfig(), LogicalAxes(), tmp_path, print)
    for again in range(2):  # the second time from blocks that are held
        params = merger.params(merger.plan(from_config(recipe)))
        assert float(int(weights_digest(params)[:12], 16)) == digest_of_written(tmp_path / method), again


def test_the_best_recipe_gives_the_weights_that_were_measured(three, tmp_path, capsys):
    bound = ("methods=('task_arithmetic','linear')", "weights=(0.3,1.0)")
    trials = search(tmp_path / "run", three, *bound)
    out = capsys.readouterr().out
    assert len(trials) == 3 + 4 + 4
    assert [found.alone for found in trials[:3]] == list(three)
    assert trials[10].same_as == 7  # (1, 1) as (0.3, 0.3): no number of its own
    assert (trials[10].goals, trials[10].languages) == (trials[7].goals, {})
    assert main(["merge", str(tmp_path / "run" / "best.gin"), f"--gin.TARGET={tmp_path / 'best'}"]) == 0
    goals = [Goal("function/largest/de", "", None, True), Goal("function/spread", "", None, True)]
    chosen = best(trials, goals)
    assert digest_of_written(tmp_path / "best") == chosen.languages["function/digest"][""]
    assert f"{chosen.number} (best)" in out
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"The best merge is trial {chosen.number}:" in page
    for found in front(trials, goals):
        assert f"{found.goals['function/spread']:.4f}" in page
    for number, name in enumerate(three):  # a model alone is that model
        assert digest_of_written(Path(name)) == trials[number].languages["function/digest"][""]


KILLED = "import sys; from aya_jax.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["grid", "evolution"])
def test_killed_it_goes_on_with_the_same_trials(strategy, three, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    bound = ["methods=('task_arithmetic','linear')", "weights=(0.3,1.0)"]
    bound += [f"strategy='{strategy}'", "trials=9", "population=3"]
    whole = search(tmp_path / "whole", three, *bound)
    (tmp_path / "calls").write_text("5")
    flags = [f"--gin.RUN_DIR={tmp_path / 'killed'}", f"--gin.MODELS={tuple(three[1:])!r}", f"--gin.BASE={three[0]}"]
    command = ["merge_search", str(tmp_path / "whole.gin"), *flags, *(f"--gin.MergeSearchConfig.{b}" for b in bound)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", objective.KILL_AT: str(tmp_path / "calls")}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *command], env=env, capture_output=True, timeout=300, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    file = tmp_path / "killed" / "trials.jsonl"
    assert len(read(file)) >= 5
    before = file.read_bytes()
    file.write_bytes(before + b'{"number": 5, "al')  # a line that was cut short
    again = search(tmp_path / "killed", three, *bound)
    assert file.read_bytes().startswith(before)
    seconds = {"merge_seconds": 0.0, "measure_seconds": 0.0}
    assert [vars(one) | seconds for one in again] == [vars(one) | seconds for one in whole]
    identities = [identity(found.fields) for found in whole if found.measured and found.fields]
    assert len(set(identities)) == len(identities)


def test_trials_of_other_weights_or_of_another_search_are_refused(three, tmp_path, capsys):
    search(tmp_path / "run", three, "weights=(0.3,)")
    search(tmp_path / "run", three, "weights=(0.5,)", code=1)
    assert "weights" in capsys.readouterr().err
    file = tmp_path / "run" / "trials.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    sources = tmp_path / "run" / "sources.json"
    known = json.loads(sources.read_text())
    sources.write_text(json.dumps(known | {three[1]: "0" * 64}))
    search(tmp_path / "run", three, "weights=(0.3,)", code=1)
    assert "other weights than those of the trials" in capsys.readouterr().err
    sources.write_text(json.dumps(known))
    file.write_text(lines[1] + "\n")
    command = ["merge_search", str(tmp_path / "run.gin"), f"--gin.RUN_DIR={tmp_path / 'run'}"]
    command += [f"--gin.MODELS={three[1:]!r}", f"--gin.BASE={three[0]}", "--gin.MergeSearchConfig.weights=(0.3,)"]
    assert main(command) == 1
    assert "line 1: another trial than this search would make there" in capsys.readouterr().err


def test_weights_that_cannot_be_averaged_are_refused_and_the_search_goes_on(three, tmp_path):
    trials = search(tmp_path / "run", three, "weights=(0.0,1.0)", "singles=False")
    assert [bool(found.refused) for found in trials] == [True, False, False, False]
    assert "sum to zero" in trials[0].refused
