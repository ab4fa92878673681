"""Live, side by side with lm-evaluation-harness's own Hugging Face back-end on the same weights and rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aya_jax.cli import main
from aya_jax.evaluation.config import HarnessConfig
from aya_jax.evaluation.harness.benchmarks import load_tasks
from aya_jax.evaluation.harness.local_data import reading_from
from aya_jax.evaluation.results import read_samples, read_summary
from tests.evaluation.harness import tiny_benchmark
from tools.random_model import shape, write_random_model

ROOT = Path(__file__).parents[3]
DATA = os.environ.get("AYA_DATA")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny", shape(64, 2, 512))


def theirs(model, config, **more):
    """What the harness says of the model over torch; one prompt at a time, since its answers depend on what is beside them."""
    pytest.importorskip("torch")
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    tasks = load_tasks(config, print)
    peer = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1, max_length=512)
    with reading_from(config.data_dir):
        return lm_eval.evaluate(peer, {"tasks": tasks}, limit=config.limit, bootstrap_iters=0, **more)


def ours(model, config, folder):
    arguments = [
        "evaluate", str(ROOT / "gin/evaluate/benchmarks.gin"), f"--gin.MODEL_DIR={model}", f"--gin.RUN_DIR={folder}",
        f"--gin.TASKS={config.tasks!r}", f"--gin.HarnessConfig.task_dirs={config.task_dirs!r}",
        f"--gin.DATA_DIR={config.data_dir}", f"--gin.HarnessConfig.limit={config.limit}",
        f"--gin.HarnessConfig.few_shot={config.few_shot}", f"--gin.HarnessConfig.chat={config.chat}",
    ]  # fmt: skip
    assert main(arguments) == 0
    file = folder / "evaluations" / "benchmarks.json"
    return read_summary(file), read_samples(file)


def assert_same(found, summary, samples):
    """Scores exactly, log-probabilities to 1e-4, texts letter by letter."""
    by_id = {sample.id: sample for sample in samples}
    for task, values in found["results"].items():
        mine = summary["reported_by_harness"][task]
        assert {k: v for k, v in values.items() if isinstance(v, float)} == pytest.approx(
            {k: mine[k] for k, v in values.items() if isinstance(v, float)}
        ), task
    for task, rows in found["samples"].items():
        for row in rows:
            sample = by_id[f"{task}/{row['doc_id']}"]
            if sample.log_probs:
                theirs = [float(response[0]) for response in row["filtered_resps"]]
                assert list(sample.log_probs) == pytest.approx(theirs, abs=1e-4)
            elif (
                row["filter"] == rows[-1]["filter"]
            ):  # where several read an answer, a record keeps what the last one read
                assert sample.prediction == _first(row["filtered_resps"])


@pytest.mark.parametrize("few_shot", [None, 2])
@pytest.mark.parametrize("chat", [False, True])
def test_invented_questions_score_the_same(model, tmp_path, few_shot, chat):
    tasks, data = tiny_benchmark.write(tmp_path)
    config = HarnessConfig(tasks=("tiny_*", "says_*"), task_dirs=(tasks,), data_dir=data, few_shot=few_shot, chat=chat)
    assert_same(theirs(model, config, apply_chat_template=chat), *ours(model, config, tmp_path / "run"))


@pytest.mark.real_data
@pytest.mark.skipif(not DATA, reason="AYA_DATA names no corpora")
@pytest.mark.parametrize(
    "tasks",
    [("xcopa_id", "xcopa_zh", "sib200_hi", "exams_ar"), ("mgsm_direct_de",), ("mgsm_native_cot_ja",), ("xquad_zh",)],
)
def test_real_rows_score_the_same(model, tmp_path, tasks):
    config = HarnessConfig(tasks=tasks, data_dir=DATA, limit=12)
    assert_same(theirs(model, config), *ours(model, config, tmp_path))


def _first(responses):
    """The text in a list of lists."""
    while isinstance(responses, list | tuple):
        responses = responses[0]
    return responses
