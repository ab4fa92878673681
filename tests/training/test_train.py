"""Whole runs, most of them in processes of their own, on tiny stores."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest

from aya_jax.config import ConfigError, UserError, resolve
from aya_jax.training import train
from aya_jax.training.config import TrainConfig
from tests.training import small_run
from tests.training.small_run import STEPS


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with stores and `run.gin`."""
    folder = tmp_path_factory.mktemp("train")
    small_run.write_config(folder, small_run.write_stores(folder / "stores"))
    return folder


@pytest.fixture(scope="module")
def whole(workplace):
    """The run directory of a run that nothing interrupted, and what it printed."""
    output = small_run.run("train", workplace / "run.gin", f"--gin.RUN_DIR={workplace / 'whole'}")
    return workplace / "whole", output


def assert_same_run(run_dir, other):
    """Equal parameters, bit for bit, and equal numbers in the same order, as exact floats."""
    found, expected = (small_run.parameters(folder, STEPS) for folder in (run_dir, other))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name
    assert small_run.numbers(run_dir) == small_run.numbers(other)


def test_a_run_says_what_it_does_and_learns(whole):
    run_dir, output = whole
    for piece in ("26,976 (8,448 embedding)", "attention", "20 steps x 512 = 10,240", "text_en", "Done: 20 steps"):
        assert piece in output, output
    records = small_run.records(run_dir)
    train_losses = [r["loss"] for r in records if r["kind"] == "train"]
    assert [r["step"] for r in records if r["kind"] == "train"] == [3, 6, 9, 12, 15, 18, 20]
    assert (
        train_losses[0] > 5.4 > 4.7 > train_losses[-1]
    )  # from ln 264 = 5.58 towards the 95 printable bytes' ln 95 = 4.55
    validations = [r for r in records if r["kind"] == "validation"]
    assert [r["step"] for r in validations] == [5, 10, 15, 20]
    assert all(validations[-1][f"validation/{task}/bytes"] > 700 for task in small_run.TASKS)
    assert {p.name for p in run_dir.iterdir()} >= {"config.gin", "config.json", "environment.json", "metrics.jsonl"}


def test_log_lines_are_not_wrapped(whole, workplace):
    """A path longer than a terminal is wide stays in one line, so that logs can be searched."""
    _, output = whole
    assert f"{workplace / 'whole'} has the checkpoint, metrics.jsonl and the configuration." in output


def test_killed_and_resumed_is_the_same_run(workplace, whole):
    run_dir = workplace / "killed"
    command = ("train", workplace / "run.gin", f"--gin.RUN_DIR={run_dir}")
    process = small_run.start(*command)
    small_run.wait_for(lambda: small_run.has_checkpoint(run_dir, 8), process)
    code, _ = small_run.stop(process, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not small_run.has_checkpoint(run_dir, STEPS)
    output = small_run.run(*command)
    assert "(resumed)" in output
    assert_same_run(run_dir, whole[0])


def test_sigterm_saves_and_ends_well_and_a_second_process_is_refused(workplace, whole):
    run_dir = workplace / "stopped"
    command = ("train", workplace / "run.gin", f"--gin.RUN_DIR={run_dir}")
    process = small_run.start(*command)
    small_run.wait_for((run_dir / ".lock").exists, process)
    refused = resolve(TrainConfig, files=[workplace / "run.gin"], bindings=[f"RUN_DIR={run_dir}"])
    with pytest.raises(UserError, match="in use by process"):
        train.run(refused)
    small_run.wait_for((run_dir / "metrics.jsonl").exists, process)
    code, output = small_run.stop(process, signal.SIGTERM)
    assert code == 0, output
    (step,) = [int(line.split()[3]) for line in output.splitlines() if line.startswith("Stopped after step")]
    assert 0 < step < STEPS
    assert small_run.has_checkpoint(run_dir, step)
    small_run.run(*command)
    assert_same_run(run_dir, whole[0])


def test_eight_devices_train_as_one(workplace, whole):
    run_dir = workplace / "eight"
    output = small_run.run("train", workplace / "run.gin", f"--gin.RUN_DIR={run_dir}", devices=8)
    assert "fsdp 8" in output
    found, expected = (small_run.parameters(folder, STEPS) for folder in (run_dir, whole[0]))
    for name, value in expected.items():  # sums in another order; Adam's first steps take the sign of tiny gradients
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-3, err_msg=name)
    for ours, theirs in zip(small_run.numbers(run_dir), small_run.numbers(whole[0]), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-5)


def test_a_store_is_read_without_tensorflow(workplace, tmp_path):
    """Training from prepared stores must work where TensorFlow and SeqIO are not installed."""
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets'): sys.modules[name] = None\n"
        "from aya_jax.cli import main\n"
        f"sys.exit(main(['train', {str(workplace / 'run.gin')!r}, '--gin.RUN_DIR={tmp_path}', "
        "'--gin.TrainConfig.steps=5', '--gin.ScheduleConfig.warmup_steps=0']))\n"
    )
    result = subprocess.run([small_run.sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def resolved(workplace, run_dir, *bindings):
    return resolve(TrainConfig, files=[workplace / "run.gin"], bindings=[f"RUN_DIR={run_dir}", *bindings])


@pytest.mark.parametrize(
    ("binding", "field"),
    [("TrainConfig.steps=30", "steps"), ("OptimizerConfig.learning_rate=0.02", "optimizer.learning_rate")],
)
def test_another_configuration_is_refused_by_the_field_that_differs(workplace, whole, binding, field):
    before = (whole[0] / "config.json").read_bytes()
    with pytest.raises(UserError, match=rf"another configuration[\s\S]*{field}"):
        train.run(resolved(workplace, whole[0], binding))
    assert (whole[0] / "config.json").read_bytes() == before


def test_a_finished_run_stays_as_it_is(workplace, whole, capsys):
    run_dir, _ = whole
    before = (run_dir / "metrics.jsonl").read_bytes()
    train.run(resolved(workplace, run_dir))
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    assert "Done: 20 steps" in capsys.readouterr().out


def test_stores_that_changed_are_refused(workplace, whole, tmp_path):
    changed = small_run.write_stores(tmp_path / "stores")
    manifest = changed / "text_en" / "train" / "manifest.json"
    value = json.loads(manifest.read_text())
    value["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(value))
    with pytest.raises(UserError, match="step 20 was trained on other batches: stores changed"):
        train.run(resolved(workplace, whole[0], f"DataConfig.store_dir={changed}"))
    train.run(resolved(workplace, whole[0], f"DataConfig.store_dir={small_run.write_stores(tmp_path / 'moved')}"))


def test_a_sequence_longer_than_the_model_is_a_configuration_error(workplace, tmp_path):
    with pytest.raises(ConfigError, match=r"sequence_length[\s\S]*max_sequence_length = 64"):
        resolved(workplace, tmp_path, "DataConfig.sequence_length=65")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["TransformerConfig.vocab_size=200"], "has 259 tokens and the model 200 rows"),
        (["ValidationConfig.tasks=('text_xx',)"], r"text_xx.*no such held-out documents.*code_web, text_de, text_en"),
        (["MixtureConfig.rates='text_xx'"], "text_xx"),
        (["TrainConfig.initialize_from='nowhere'"], "nowhere: no model is there"),
    ],
)
def test_what_does_not_fit_is_said_before_training(workplace, tmp_path, bindings, message):
    with pytest.raises(UserError, match=message):
        train.run(resolved(workplace, tmp_path / "run", *bindings))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_starts_from_another_s_weights(workplace, whole, tmp_path, capsys):
    run_dir = tmp_path / "next"
    more = ["TrainConfig.steps=1", "ScheduleConfig.warmup_steps=0", "OptimizerConfig.learning_rate=1e-12"]
    train.run(resolved(workplace, run_dir, f"TrainConfig.initialize_from={whole[0]}", *more))
    assert "checkpoints/20" in capsys.readouterr().out
    found, expected = small_run.parameters(run_dir, 1), small_run.parameters(whole[0], STEPS)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-9)


def test_weights_of_another_shape_are_refused(workplace, whole, tmp_path):
    with pytest.raises(UserError, match=r"another model: layers/mlp/down is \(2, 64, 32\) there and \(2, 48, 32\)"):
        train.run(
            resolved(workplace, tmp_path, f"TrainConfig.initialize_from={whole[0]}", "TransformerConfig.mlp_dim=48")
        )


def test_too_many_skipped_steps_name_their_batches_and_keep_the_run(workplace, tmp_path):
    run_dir = tmp_path / "skips"
    guard = ["GuardConfig.spike_factor=1.0000001", "GuardConfig.warmup_steps=1", "GuardConfig.max_skipped=1",
             "CheckpointConfig.every=1"]  # fmt: skip
    with pytest.raises(UserError, match=r"1 steps in a row[\s\S]*batches (\d+) to \1, sequences"):
        train.run(resolved(workplace, run_dir, *guard))
    steps = sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    event = small_run.records(run_dir)[-1]
    assert event["event"] == "skipped"
    assert steps[-1] == event["step"] - 1


@pytest.mark.slow
def test_killed_again_and_again_is_the_same_run(workplace, whole):
    """Kills at moments drawn at random from the whole life of a process, starting and saving included."""
    run_dir, rng = workplace / "hunted", np.random.default_rng(7)
    begin = time.monotonic()
    small_run.run("train", workplace / "run.gin", f"--gin.RUN_DIR={whole[0]}")
    start_up = time.monotonic() - begin  # of a run that has nothing left to do
    command = ("train", workplace / "run.gin", f"--gin.RUN_DIR={run_dir}")
    kills = 0
    for _ in range(12):
        process = small_run.start(*command)
        if not kills:
            small_run.wait_for(lambda: small_run.has_checkpoint(run_dir, 4), process)
        else:
            time.sleep(start_up * float(rng.uniform(0.3, 1.3)))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    small_run.run(*command)
    assert kills > 3
    assert_same_run(run_dir, whole[0])
