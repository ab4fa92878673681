"""A search of merges as two real processes: the trials of one, and other weights on another machine are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aya_jax.merging.search import read
from tests.merging.chat_models import chat_model
from tests.training import process_pair, small_run
from tests.training.process_pair import Processes, one_at_a_time  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

# Two processes of two devices each: pairs are divided over processes, matrices within one.
GIN = """
include 'merge/search_base.gin'
MergeSearchConfig.methods = ('slerp', 'dare_ties', 'ties')
MergeSearchConfig.densities = (0.4,)
MergeSearchConfig.weights = (0.3, 0.9)
MergeSearchConfig.compilation_cache = '{folder}/compiled'
MergeSearchConfig.objectives = (@PreferenceObjectiveConfig(),)
PreferenceObjectiveConfig.input = '{folder}/pairs.jsonl'
PreferenceObjectiveConfig.languages = ('de',)
MeshConfig.data = 2
MeshConfig.tensor = 2
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    for seed, name in enumerate(("base", "one", "two")):
        chat_model(folder / name, seed)
    rng = np.random.default_rng(0)
    words = ["ja", "nein", "gut", "Tag", "evet", "hayır", "selam", "iyi"]
    rows = [
        {"id": str(n), "language": "de" if n % 2 else "tr"}
        | {key: " ".join(rng.choice(words, 4)) for key in ("prompt", "chosen", "rejected")}
        for n in range(40)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "search.gin").write_text(GIN.format(folder=folder), encoding="utf-8")
    return folder


def command(folder, name, *more):
    models = tuple(str(folder / each) for each in ("one", "two"))
    flags = f"--gin.MODELS={models!r}", f"--gin.BASE={folder / 'base'}", f"--gin.RUN_DIR={folder / name}"
    return "merge_search", folder / "search.gin", *flags, *more


def test_two_processes_search_as_one_does(workplace):
    small_run.run(*command(workplace, "alone"), devices=4)
    first, second = process_pair.run(*command(workplace, "together"), devices=2)
    alone, together = (read(workplace / name / "trials.jsonl") for name in ("alone", "together"))
    assert len(alone) == 3 + 3 + 4 + 4
    assert [(one.alone, one.fields, one.goals) for one in alone] == [(t.alone, t.fields, t.goals) for t in together]
    assert len({tuple(one.goals.values()) for one in alone}) > 2
    for name in ("best.gin", "sources.json", "items/0.jsonl", "items/9.jsonl"):
        assert (workplace / "together" / name).read_bytes() == (workplace / "alone" / name).read_bytes(), name
    assert (workplace / "together" / "report.html").is_file()
    assert "(best)" in first
    assert second == ""
    again, _ = process_pair.run(*command(workplace, "together"), devices=2)  # nothing is measured again
    assert "14 trials are there." in again


def test_other_weights_on_another_machine_are_refused(workplace):
    chat_model(workplace / "other", 7)
    models = tuple(str(workplace / each) for each in ("one", "other"))
    other = {1: [f"--gin.MODELS={models!r}"]}
    with Processes(*command(workplace, "refused"), devices=2, each=other) as processes:
        found = processes.finish()
    assert 0 not in [code for code, _ in found]
    assert "process 1 has other weights than process 0" in found[0][1] + found[1][1]
