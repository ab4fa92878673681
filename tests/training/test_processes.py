"""Two real processes train together: as one would, through kills and stops, and with another number of processes."""

import shutil
import signal

import numpy as np
import pytest

from aya_jax.training import checkpoint
from tests.training import process_pair, small_run
from tests.training.process_pair import Processes, one_at_a_time  # noqa: F401 - a fixture
from tests.training.small_run import STEPS

pytestmark = [pytest.mark.multiprocess, pytest.mark.usefixtures("one_at_a_time")]

# So that no run is over before its test has stopped it.
SLOW = ["--gin.CheckpointConfig.every=1"]
# Sums over two replicas do not depend on their order, so that two processes and one agree to the bit.
REPLICAS = ["--gin.MeshConfig.data=2", "--gin.MeshConfig.fsdp=1", "--gin.MeshConfig.tensor=2"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with stores and `run.gin`."""
    folder = tmp_path_factory.mktemp("processes")
    small_run.write_config(folder, small_run.write_stores(folder / "stores"))
    return folder


@pytest.fixture(scope="module")
def whole(workplace):
    """The run directory of one process with four devices."""
    small_run.run(*command(workplace, "whole"), devices=4)
    return workplace / "whole"


def command(workplace, name, *more, mesh=REPLICAS):
    return ("train", workplace / "run.gin", f"--gin.RUN_DIR={workplace / name}", *mesh, *more)


def newest(run_dir):
    """The step of the newest checkpoint, 0 where there is none."""
    return max([int(path.name) for path in checkpoint.finished(run_dir / "checkpoints")], default=0)


def wait_for_more(run_dir, process):
    """Waits until this session of a run has saved something."""
    before = newest(run_dir)
    small_run.wait_for(lambda: newest(run_dir) > before, process)


def assert_same_run(run_dir, other):
    """Equal parameters and numbers, bit for bit."""
    found, expected = (small_run.parameters(folder, STEPS) for folder in (run_dir, other))
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name
    assert small_run.numbers(run_dir) == small_run.numbers(other)


def assert_close_runs(run_dir, other):
    """Equal but for the order of sums: Adam's first steps take the sign of tiny gradients."""
    found, expected = (small_run.parameters(folder, STEPS) for folder in (run_dir, other))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-3, err_msg=name)
    for ours, theirs in zip(small_run.numbers(run_dir), small_run.numbers(other), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-5)


def test_one_killed_ends_the_other_and_the_same_command_ends_as_one_process(workplace, whole):
    run_dir = workplace / "killed"
    with Processes(*command(workplace, "killed", *SLOW), devices=2) as processes:
        second = processes.all[1]
        wait_for_more(run_dir, second)
        second.kill()
        (code, output), (killed, _) = processes.finish(60)
    assert killed == -signal.SIGKILL
    assert code == 1, output
    assert output.splitlines()[-1].startswith("process 1 of 2 on ")
    assert "gone without a word" in output.splitlines()[-1]
    assert "Traceback" not in output
    left = checkpoint.finished(run_dir / "checkpoints")
    assert left
    assert all(checkpoint.find_damage(path) is None for path in left)
    zero, one = process_pair.run(*command(workplace, "killed"), devices=2)
    assert "(resumed)" in zero
    assert "process 1  " in zero  # the device map
    assert one == ""
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_sigterm_to_one_saves_and_ends_both_and_one_process_goes_on(workplace, whole):
    run_dir = workplace / "stopped"
    with Processes(*command(workplace, "stopped", *SLOW), devices=2) as processes:
        wait_for_more(run_dir, processes.all[1])
        processes.all[1].send_signal(signal.SIGTERM)
        (code, output), (other, _) = processes.finish()
    assert (code, other) == (0, 0), output
    (step,) = [int(line.split()[3]) for line in output.splitlines() if line.startswith("Stopped after step")]
    assert 0 < step < STEPS
    assert [path.name for path in checkpoint.finished(run_dir / "checkpoints")][-1] == str(step)
    small_run.run(*command(workplace, "stopped"), devices=4)
    assert_same_run(run_dir, whole)


def test_a_configuration_error_is_said_once_and_ends_all(workplace):
    with Processes(*command(workplace, "wrong", "--gin.TrainConfig.steps=0"), devices=1) as processes:
        (code, output), (other, pointer) = processes.finish(60)
    assert code == other == 2
    assert "TrainConfig.steps" in output
    assert pointer.endswith("process 0 says why.")
    assert len(pointer.splitlines()) == 1
    assert not (workplace / "wrong").exists()


def test_a_mistake_on_one_machine_is_said_by_process_0(workplace):
    with Processes(*command(workplace, "wrong"), devices=1, each={1: ["--gin.SEDE=2"]}) as processes:
        (code, output), (other, _) = processes.finish(60)
    assert code == 1
    assert other == 2
    assert "process 1 of 2 on " in output
    assert "did you mean SEED?" in output


@pytest.mark.slow
def test_fsdp_over_two_processes_is_as_over_one(workplace):
    mesh = ["--gin.MeshConfig.fsdp=4"]
    process_pair.run(*command(workplace, "fsdp", mesh=mesh), devices=2)
    small_run.run(*command(workplace, "fsdp_one", mesh=mesh), devices=4)
    assert_close_runs(workplace / "fsdp", workplace / "fsdp_one")


@pytest.mark.slow
def test_a_model_over_both_processes_reads_the_same_rows_in_each(workplace):
    mesh = ["--gin.MeshConfig.fsdp=1", "--gin.MeshConfig.tensor=2"]
    process_pair.run(*command(workplace, "tensor", mesh=mesh), devices=1)
    small_run.run(*command(workplace, "tensor_one", mesh=mesh), devices=2)
    assert_same_run(workplace / "tensor", workplace / "tensor_one")


@pytest.mark.slow
def test_two_processes_one_and_two_again(workplace, whole):
    """The same devices all the time, so that the run is the same to the bit."""
    run_dir = workplace / "two_one_two"
    for count, stops in ((2, True), (1, True), (2, False)):
        with Processes(*command(workplace, run_dir.name, *SLOW), devices=4 // count, count=count) as processes:
            if stops:
                wait_for_more(run_dir, processes.all[0])
                processes.all[-1].send_signal(signal.SIGTERM)
            assert [code for code, _ in processes.finish()] == [0] * count
        assert (newest(run_dir) < STEPS) == stops
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_eight_devices_four_one_and_eight_again(workplace, whole):
    run_dir = workplace / "devices"
    meshes = {8: ["--gin.MeshConfig.data=2"], 4: REPLICAS, 1: []}
    for devices, stops in ((8, True), (4, True), (1, True), (8, False)):
        process = small_run.start(*command(workplace, run_dir.name, *SLOW, mesh=meshes[devices]), devices=devices)
        if stops:
            wait_for_more(run_dir, process)
            process.send_signal(signal.SIGTERM)
        code, output = small_run.finish(process)
        assert code == 0, output
        assert (newest(run_dir) < STEPS) == stops
    assert_close_runs(run_dir, whole)


@pytest.mark.slow
def test_process_0_killed_ends_the_other(workplace):
    run_dir = workplace / "headless"
    with Processes(*command(workplace, run_dir.name, *SLOW), devices=2) as processes:
        wait_for_more(run_dir, processes.all[0])
        processes.all[0].kill()
        _, (code, output) = processes.finish(60)
    assert code != 0
    assert "process 0 at 127.0.0.1" in output


@pytest.mark.slow
def test_a_directory_that_is_not_shared_is_refused(workplace):
    own = {i: [f"--gin.RUN_DIR={workplace / f'own_{i}'}"] for i in range(2)}
    (workplace / "own_1").mkdir()
    arguments = ("train", workplace / "run.gin", "--gin.MeshConfig.data=2", "--gin.MeshConfig.fsdp=1")
    with Processes(*arguments, devices=1, each=own) as processes:
        (code, output), (other, pointer) = processes.finish(120)
    assert code == other == 1
    assert "process 1 of 2 sees another directory" in output
    assert pointer.endswith("process 0 says why.")
    assert not list((workplace / "own_0").glob(".shared*"))


@pytest.mark.slow
def test_a_batch_that_the_devices_cannot_share_is_said_once(workplace):
    more = ["--gin.DataConfig.global_batch=7"]
    with Processes(*command(workplace, "seven", *more, mesh=[]), devices=1) as processes:
        (code, output), (other, pointer) = processes.finish()
    assert code == other == 1
    assert "7 rows of 64 tokens" in output
    assert "7 rows" not in pointer
    assert not (workplace / "seven").exists()


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_by_both(workplace, whole):
    run_dir = workplace / "damaged"
    shutil.copytree(whole, run_dir)
    file = max((run_dir / "checkpoints" / str(STEPS) / "params").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    zero, _ = process_pair.run(*command(workplace, "damaged"), devices=2)
    assert f"Checkpoint {STEPS} is damaged and is set aside" in zero
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(workplace, whole):
    (whole / "evaluations").mkdir(exist_ok=True)
    arguments = ("evaluate", f"--gin.EvaluateConfig.model_dir={whole}")
    folder = whole / "evaluations"
    process_pair.run(*arguments, devices=2)
    two = {file.name: file.read_bytes() for file in folder.iterdir()}
    shutil.rmtree(folder)
    small_run.run(*arguments, devices=4)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == two
    assert two.keys() == {"held_out.json", "held_out.samples.jsonl"}
