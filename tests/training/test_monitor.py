import io
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from aya_jax.config import UserError, resolve
from aya_jax.models import flops
from aya_jax.objectives.metrics import WeightedSum
from aya_jax.training import monitor as module
from aya_jax.training.clock import Clock
from aya_jax.training.config import TrainConfig
from aya_jax.training.monitor import Monitor
from tests.training.small_run import CONFIG

TASKS = ("code_web", "text_en")
LANGUAGES = ("code", "en")


class Recorder:
    """A tracker that keeps the records."""

    def __init__(self):
        self.records = []

    def write(self, record):
        self.records.append(json.loads(json.dumps(record)))


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "run.gin"
    file.write_text(CONFIG.format(steps=7, store_dir="stores", cache="cache"))
    return resolve(TrainConfig, files=[file], bindings=["RUN_DIR=run", "GuardConfig.max_skipped=2"]).config


def step_metrics(done, skipped=0, in_a_row=0):
    """What step `done` of a run might give: task 0 has weight 2, task 1 weight `done`."""
    value = math.nan if skipped else 1.0
    return {
        "z_loss": WeightedSum(jnp.float32(done * value), jnp.float32(2 + done)),
        "loss": WeightedSum(jnp.float32([6 * value, done * 5 * value]), jnp.float32([2, done])),
        "grad_norm": jnp.float32(done * value),
        "learning_rate": jnp.float32(0.5**done),
        "skipped": jnp.int32(skipped),
        "skipped_total": jnp.int32(skipped),
        "skipped_in_a_row": jnp.int32(in_a_row),
    }


def make(config, recorder, first=0, pending=None, output=None):
    console = Console(file=output or io.StringIO(), width=200)
    return Monitor(config, TASKS, LANGUAGES, recorder, console, first, pending)


def by_step(records, *names):
    return [{name: record[name] for name in ("step", *names)} for record in records]


def test_records_are_exact_means_over_their_steps(config):
    recorder, clock = Recorder(), Clock()
    with make(config, recorder) as monitor:
        for done in range(1, 8):
            monitor.step(done, step_metrics(done), clock)
        monitor.flush(clock)
    assert [record["step"] for record in recorder.records] == [3, 6, 7]
    for record, steps in zip(recorder.records, ((1, 2, 3), (4, 5, 6), (7,)), strict=True):
        loss = sum(6 + 5 * k for k in steps) / sum(2 + k for k in steps)
        assert record["loss"] == loss
        assert record["perplexity"] == math.exp(loss)
        assert record["z_loss"] == sum(steps) / sum(2 + k for k in steps)
        assert (record["loss/code_web"], record["loss/text_en"]) == (3.0, 5.0)
        assert (record["loss/language/code"], record["loss/language/en"]) == (3.0, 5.0)
        assert (record["grad_norm"], record["learning_rate"]) == (steps[-1], 0.5 ** steps[-1])
        assert record["tokens"] == record["step"] * 8 * 64


def test_sums_that_were_saved_go_on(config):
    """A run stopped in the middle of a record writes the record of the uninterrupted one."""
    whole, parts, clock = Recorder(), Recorder(), Clock()
    with make(config, whole) as monitor:
        for done in range(1, 8):
            monitor.step(done, step_metrics(done), clock)
        monitor.flush(clock)
    pending = None
    for steps in ((1,), (2, 3, 4, 5), (6, 7)):
        with make(config, parts, steps[0] - 1, pending) as monitor:
            for done in steps:
                monitor.step(done, step_metrics(done), clock)
            pending = json.loads(json.dumps(monitor.flush(clock)))
    names = ("loss", "z_loss", "loss/text_en", "grad_norm", "tokens")
    assert by_step(parts.records, *names) == by_step(whole.records, *names)


def test_a_skipped_step_is_an_event_and_no_part_of_the_mean(config):
    recorder, clock = Recorder(), Clock()
    with make(config, recorder) as monitor:
        for done in (1, 2, 3):
            monitor.step(done, step_metrics(done, skipped=int(done == 2), in_a_row=int(done == 2)), clock)
        monitor.flush(clock)
    event, record = recorder.records
    assert (event["kind"], event["step"], event["event"], event["skipped_in_a_row"]) == ("event", 2, "skipped", 1)
    assert record["loss"] == (11 + 21) / (3 + 5)


def test_too_many_in_a_row_end_the_run_and_name_the_batches(config):
    clock = Clock()
    with make(config, Recorder()) as monitor:
        monitor.step(1, step_metrics(1), clock)
        monitor.step(2, step_metrics(2, 1, 1), clock)
        monitor.step(3, step_metrics(3, 1, 2), clock)
        with pytest.raises(UserError, match=r"batches 1 to 2, sequences 8 to 23[\s\S]*step=2`"):
            monitor.flush(clock)


def test_records_of_skipped_steps_alone_have_no_loss(config):
    recorder, clock, output = Recorder(), Clock(), io.StringIO()
    with make(config, recorder, first=5, output=output) as monitor:
        monitor.step(6, step_metrics(6, 1, 1), clock)
        monitor.flush(clock)
    assert recorder.records[-1]["loss"] is None
    assert "all steps skipped" in output.getvalue()


def test_speed_and_its_formula(config, monkeypatch):
    """1.5 s of training in a lap of 10 s: compilation and validation are left out, waiting for data is not."""
    monkeypatch.setattr(module, "peak_flops", lambda kind: 1e9)
    recorder = Recorder()

    class Laps:
        def lap(self):
            return {"total": 10.0, "compilation": 6.0, "validation": 2.5, "data": 0.3, "checkpoint": 0.6}

    with make(config, recorder) as monitor:
        for done in (1, 2, 3):
            monitor.step(done, step_metrics(done), Laps())
        monitor.flush(Laps())
    (record,) = recorder.records
    pace = 3 * 8 * 64 / 1.5
    assert record["tokens_per_second"] == pytest.approx(pace)
    assert record["data_fraction"] == pytest.approx(0.2)
    assert record["checkpoint_fraction"] == pytest.approx(0.4)
    devices = module.jax.device_count()
    assert record["mfu"] == pytest.approx(pace * flops.per_token(config.model, 64) / (1e9 * devices))


def test_without_a_peak_there_is_no_mfu(config):
    recorder, clock = Recorder(), Clock()
    with make(config, recorder, first=2) as monitor:
        monitor.step(3, step_metrics(3), clock)
        monitor.flush(clock)
    assert recorder.records[0]["mfu"] is None
    assert np.isfinite(recorder.records[0]["tokens_per_second"])


def test_metrics_are_fetched_only_after_the_next_step_was_dispatched(config):
    """So that the devices never wait for the host."""
    recorder, clock = Recorder(), Clock()
    with make(config, recorder) as monitor:
        for done in (1, 2, 3):
            monitor.step(done, step_metrics(done), clock)
        assert not recorder.records
        monitor.step(4, step_metrics(4), clock)
        assert [record["step"] for record in recorder.records] == [3]
