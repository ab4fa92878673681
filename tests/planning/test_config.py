"""What `aya plan` takes: files of a training run as they are, and a target."""

import subprocess
import sys

import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.planning.config import PlanConfig
from aya_jax.planning.targets import GIB
from tests.planning.plans import tiny


def test_a_users_own_training_file(tmp_path):
    """Its directories and its mixture may be those of a machine far away."""
    own = tmp_path / "own.gin"
    own.write_text(
        "include 'train/pretrain.gin'\ninclude 'models/test.gin'\nRUN_DIR = '/far/away'\nSTORE_DIR = 'gs://far/away'\n"
        "MIXTURE = {'text_sv': 1.0}\nSTEPS = 50000\nGLOBAL_BATCH = 128\nScheduleConfig.warmup_steps = 2000\n"
    )
    config = resolve(PlanConfig, ["plan/base.gin", str(own)], ["TARGET=v5p-8"]).config
    assert (config.train.data.global_batch, config.train.steps, config.train.run_dir) == (128, 50_000, "/far/away")
    assert config.machine().chips == 4


def test_unknown_target_is_refused_with_near_names():
    with pytest.raises(ConfigError) as raised:
        tiny("v5p-129")
    assert "TARGET = 'v5p-129'" in str(raised.value)
    assert "v5p-128" in str(raised.value).rpartition("did you mean")[2]


@pytest.mark.parametrize("name", ["usable_gib", "peak_tflops", "num_tasks", "timeout"])
def test_numbers_out_of_range(name):
    with pytest.raises(ConfigError, match=f"PlanConfig.{name}"):
        tiny("v5p-8", f"PlanConfig.{name}=0")


def test_values_in_place_of_the_tables():
    chip = tiny("h200-8", "PlanConfig.usable_gib=100.0", "PlanConfig.link_gb_per_second=50.0").machine().chip
    assert (chip.usable, chip.link_bandwidth) == (100 * GIB, 50e9)
    assert chip.flops == 989.4e12


def test_the_users_process_imports_no_jax():
    """The compiler's settings are for the worker alone, and with libtpu installed JAX would look for a TPU here."""
    code = "import sys, aya_jax.planning.plan; print([name for name in ('jax', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
