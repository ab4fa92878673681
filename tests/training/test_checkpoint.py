import errno
import json
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aya_jax.config import UserError
from aya_jax.training import checkpoint
from aya_jax.training.checkpoint import Checkpoints, find_damage, load_params, locate, read_meta
from aya_jax.training.config import CheckpointConfig, OptimizerConfig
from aya_jax.training.optimizer import make_optimizer
from aya_jax.training.state import TrainState, fresh_state
from tests import eight_devices

OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1.0))
META = {"loader": {"seed": 3}, "monitor": {"loss": [0.1 + 0.2, 1.0]}}


def make_state(step, seed=0, size=64):
    rng = np.random.default_rng(seed + step)
    params = {
        "embedding": {"table": jnp.asarray(rng.normal(size=(size, 8)), jnp.float32)},
        "layers": {"mlp": {"up": jnp.asarray(rng.normal(size=(2, 8, 4)), jnp.bfloat16)}},
    }
    state = fresh_state(params, OPTIMIZER)
    moments = jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), state.optimizer)
    return state._replace(step=jnp.int32(step), optimizer=moments)


def like(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same(found: TrainState, expected: TrainState):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(run_dir, *steps, size=64):
    with Checkpoints(run_dir, CheckpointConfig(keep=5), pytest.fail) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step, size=size), META)


def restore(run_dir, warnings=None, check=lambda meta: None):
    warn = pytest.fail if warnings is None else warnings.append
    with Checkpoints(run_dir, CheckpointConfig(keep=5), warn) as checkpoints:
        return checkpoints.restore(like(make_state(0)), check)


def biggest_file(path):
    return max(
        (f for f in path.rglob("*") if f.is_file() and f.name != checkpoint.CHECKSUMS), key=lambda f: f.stat().st_size
    )


def flip_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    save(tmp_path, 3, 7)
    seen = []
    restored = restore(tmp_path, check=seen.append)
    assert_same(restored.state, make_state(7))
    assert restored.meta["monitor"] == META["monitor"]
    assert seen[0]["loader"] == {"seed": 3}
    assert seen[0]["step"] == 7


def test_nothing_saved_is_no_error(tmp_path):
    assert restore(tmp_path) is None


def test_a_state_that_is_donated_while_it_is_written_is_written_whole(tmp_path):
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with Checkpoints(tmp_path, CheckpointConfig(), pytest.fail) as checkpoints:
        state = jax.tree.map(jnp.copy, make_state(5, size=200_000))  # no two leaves share a buffer
        checkpoints.save(state, META)
        for _ in range(5):
            state = overwrite(state)
        checkpoints.wait()
        restored = checkpoints.restore(like(make_state(5, size=200_000)), lambda meta: None)
    assert_same(restored.state, make_state(5, size=200_000))


def test_old_checkpoints_go_and_periodic_ones_stay(tmp_path):
    with Checkpoints(tmp_path, CheckpointConfig(keep=2, keep_period=4), pytest.fail) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(make_state(step), META)
    assert [path.name for path in checkpoint.finished(tmp_path / "checkpoints")] == ["4", "6", "7"]
    assert all((path / checkpoint.CHECKSUMS).exists() for path in checkpoint.finished(tmp_path / "checkpoints"))


@pytest.mark.parametrize("damage", [flip_byte, truncate, os.remove])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path, damage):
    save(tmp_path, 3, 7)
    file = biggest_file(tmp_path / "checkpoints" / "7")
    damage(file)
    warnings = []
    restored = restore(tmp_path, warnings)
    assert_same(restored.state, make_state(3))
    (warning,) = warnings
    assert "Checkpoint 7 is damaged" in warning
    assert str(file) in warning
    assert (tmp_path / "checkpoints" / "7.damaged").is_dir()
    save(tmp_path, 7)  # its step can be saved again
    assert_same(restore(tmp_path).state, make_state(7))


def test_one_flipped_bit_anywhere_is_found(tmp_path):
    save(tmp_path, 2)
    path = tmp_path / "checkpoints" / "2"
    assert find_damage(path) is None
    for file in sorted(f for f in path.rglob("*") if f.is_file() and f.stat().st_size):
        good = file.read_bytes()
        flip_byte(file)
        assert find_damage(path) is not None, file
        file.write_bytes(good)
    (path / "stray").touch()
    assert "stray" in find_damage(path)


def test_all_damaged_is_one_error_and_nothing_is_deleted(tmp_path):
    save(tmp_path, 3, 7)
    for step in ("3", "7"):
        flip_byte(biggest_file(tmp_path / "checkpoints" / step))
    warnings = []
    with pytest.raises(UserError, match="none of the checkpoints can be read"):
        restore(tmp_path, warnings)
    assert len(warnings) == 2
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"3.damaged", "7.damaged"}
    with pytest.raises(UserError, match="none of the checkpoints can be read"):
        restore(tmp_path, warnings)  # and again: a run never starts over by itself


def test_killed_before_its_seal_it_is_read_and_sealed(tmp_path):
    save(tmp_path, 3, 7)
    seal = tmp_path / "checkpoints" / "7" / checkpoint.CHECKSUMS
    written = seal.read_bytes()
    seal.unlink()
    assert_same(restore(tmp_path).state, make_state(7))
    assert seal.read_bytes() == written


def test_unsealed_and_cut_short_it_is_passed_over(tmp_path):
    save(tmp_path, 3, 7)
    path = tmp_path / "checkpoints" / "7"
    (path / checkpoint.CHECKSUMS).unlink()
    truncate(biggest_file(path / "params"))
    warnings = []
    assert_same(restore(tmp_path, warnings).state, make_state(3))
    assert "Checkpoint 7 is damaged" in warnings[0]


def test_a_whole_checkpoint_that_cannot_be_read_is_not_set_aside(tmp_path):
    """Its bytes are right, so the fault is elsewhere (another version, a model of another shape)."""
    save(tmp_path, 3)
    with Checkpoints(tmp_path, CheckpointConfig(), pytest.fail) as checkpoints:
        other = like(make_state(0))._replace(params={"another": jax.ShapeDtypeStruct((2,), jnp.float32)})
        with pytest.raises(UserError, match="as they were written"):
            checkpoints.restore(other, lambda meta: None)
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    save(tmp_path, 3)
    monkeypatch.undo()
    with pytest.raises(UserError, match="format_version 99"):
        restore(tmp_path)
    with pytest.raises(UserError, match="format_version 99"):
        read_meta(locate(tmp_path, pytest.fail))


def test_a_refusal_by_the_caller_is_passed_on(tmp_path):
    save(tmp_path, 3)

    def refuse(meta):
        raise UserError(f"not these batches: {meta['loader']}")

    with pytest.raises(UserError, match="not these batches"):
        restore(tmp_path, check=refuse)
    assert (tmp_path / "checkpoints" / "3").is_dir()


def test_what_a_kill_left_behind_is_cleared(tmp_path):
    save(tmp_path, 3)
    leftover = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp-0"
    leftover.mkdir()
    (leftover / "part").write_bytes(b"x" * 100)
    assert_same(restore(tmp_path).state, make_state(3))
    assert not leftover.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds little."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_error_and_earlier_checkpoints_stay(small_disk):
    save(small_disk, 3)
    with pytest.raises(UserError, match=r"disk is full.*Earlier checkpoints are as they were") as caught:
        save(small_disk, 7, size=120_000)  # 3.8 MB of random parameters
    assert len(str(caught.value).splitlines()) == 1
    assert_same(restore(small_disk).state, make_state(3))


def test_an_error_of_the_manager_is_one_error(tmp_path, monkeypatch):
    save(tmp_path, 3)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", fail)
    with pytest.raises(UserError, match="disk is full"):
        save(tmp_path, 7)
    monkeypatch.undo()
    assert_same(restore(tmp_path).state, make_state(3))


def test_a_seal_that_fails_is_heard(tmp_path, monkeypatch):
    def fail(path, content):
        raise UserError(f"{path}: cannot be written: the disk is full")

    monkeypatch.setattr(checkpoint, "write_atomic", fail)
    with pytest.raises(UserError, match=r"checksums\.json: cannot be written"):
        save(tmp_path, 3)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="checkpoints: cannot be written: a file is in the way"):
        Checkpoints(tmp_path, CheckpointConfig(), pytest.fail)


def test_locate_means_a_checkpoint_or_the_newest_whole_one(tmp_path):
    save(tmp_path, 3, 7)
    folder = tmp_path / "checkpoints"
    assert locate(tmp_path, pytest.fail) == folder / "7"
    assert locate(folder / "3", pytest.fail) == folder / "3"
    flip_byte(biggest_file(folder / "7"))
    warnings = []
    assert locate(tmp_path, warnings.append) == folder / "3"
    assert "7 is damaged and is passed over" in warnings[0]
    with pytest.raises(UserError, match="this checkpoint is damaged"):
        locate(folder / "7", pytest.fail)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="no checkpoint is there"):
        locate(tmp_path, pytest.fail)


def test_parameters_alone_are_loaded_into_another_type(tmp_path):
    save(tmp_path, 3)
    state = make_state(3)
    target = like(state).params
    table = target["embedding"]["table"]
    target["embedding"]["table"] = jax.ShapeDtypeStruct(table.shape, jnp.bfloat16, sharding=table.sharding)
    loaded = load_params(locate(tmp_path, pytest.fail), target)["embedding"]["table"]
    assert loaded.dtype == jnp.bfloat16
    assert np.array_equal(loaded, state.params["embedding"]["table"].astype(jnp.bfloat16))


def test_eight_devices_save_and_one_reads(tmp_path):
    code = (
        "import sys, jax\n"
        "from jax.sharding import NamedSharding, PartitionSpec\n"
        "from tests.training import test_checkpoint as t\n"
        "mesh = jax.make_mesh((8,), ('fsdp',))\n"
        "split = lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec('fsdp') if x.ndim == 2 else PartitionSpec()))\n"
        "state = jax.tree.map(split, t.make_state(9))\n"
        "assert len(state.params['embedding']['table'].sharding.device_set) == 8\n"
        "with t.Checkpoints(sys.argv[1], t.CheckpointConfig(), print) as checkpoints:\n"
        "    checkpoints.save(state, t.META)\n"
    )
    eight_devices.run("-c", code, tmp_path)
    assert_same(restore(tmp_path).state, make_state(9))
    assert json.loads((tmp_path / "checkpoints" / "9" / checkpoint.CHECKSUMS).read_text())
