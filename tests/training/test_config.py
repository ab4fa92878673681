import subprocess
import sys

import pytest

from aya_jax.config import ConfigError, resolve
from aya_jax.training.config import TrainConfig
from tests.training.small_run import CONFIG


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text(CONFIG.format(steps=20, store_dir=tmp_path, cache=tmp_path))
    return path


def problems(file, *bindings):
    with pytest.raises(ConfigError) as caught:
        resolve(TrainConfig, files=[file], bindings=[f"RUN_DIR={file.parent}", *bindings])
    return caught.value.problems


def test_the_file_of_the_tests_is_right(file):
    assert resolve(TrainConfig, files=[file], bindings=["RUN_DIR=r"]).config.data.global_batch == 8


@pytest.mark.parametrize(
    ("bindings", "field", "expected"),
    [
        (["TrainConfig.steps=0"], "steps", "at least 1"),
        (["TrainConfig.accumulation=3"], "global_batch", "a multiple of accumulation = 3"),
        (["TrainConfig.accumulation=2", "MeshConfig.data=8"], "global_batch", "a multiple of 16"),
        (["MeshConfig.data=2", "MeshConfig.fsdp=8"], "global_batch", "a multiple of 16"),
        (["DataConfig.sequence_length=65"], "sequence_length", "max_sequence_length = 64"),
        (
            ["DataConfig.sequence_length=63", "MeshConfig.context=2"],
            "sequence_length",
            "a multiple of 4, for the devices",
        ),
        (["MeshConfig.tensor=4"], "num_kv_heads", "or LogicalAxes.kv_heads = None"),
        (["TrainConfig.seed=-1"], "seed", "between 0"),
        (["TrainConfig.z_loss=-0.1"], "z_loss", "0 or more"),
        (["TrainConfig.label_smoothing=1.0"], "label_smoothing", "below 1"),
        (["ScheduleConfig.warmup_steps=21"], "warmup_steps", "within the run's 20 steps"),
        (["ScheduleConfig.kind='wsd'", "ScheduleConfig.decay_steps=16"], "decay_steps", "within the run's 20 steps"),
        (["ScheduleConfig.kind='wsd'"], "decay_steps", 'above 0 with kind = "wsd"'),
        (["ScheduleConfig.decay_steps=4"], "decay_steps", "0 with every other kind"),
        (["ScheduleConfig.warmup_steps=-1"], "warmup_steps", "0 or more"),
        (["ScheduleConfig.final_learning_rate=0.1"], "final_learning_rate", "at most learning_rate = 0.01"),
        (["OptimizerConfig.learning_rate=0.0"], "learning_rate", "above 0"),
        (["OptimizerConfig.beta2=1.0"], "beta2", "below 1"),
        (["OptimizerConfig.epsilon=0.0"], "epsilon", "above 0"),
        (["OptimizerConfig.weight_decay=-1.0"], "weight_decay", "0 or more"),
        (["OptimizerConfig.clip_norm=0.0"], "clip_norm", "None for no clipping"),
        (["GuardConfig.spike_factor=1.0"], "spike_factor", "above 1"),
        (["GuardConfig.warmup_steps=0"], "warmup_steps", "at least 1"),
        (["GuardConfig.decay=1.0"], "decay", "below 1"),
        (["GuardConfig.max_skipped=0"], "max_skipped", "at least 1"),
        (["CheckpointConfig.every=0"], "every", "at least 1 step"),
        (["CheckpointConfig.keep=1"], "keep", "one to fall back on"),
        (["CheckpointConfig.keep_period=0"], "keep_period", "None"),
        (["ValidationConfig.max_tokens=0"], "max_tokens", "at least 1, or None"),
        (["TrackingConfig.every=0"], "every", "at least 1 step"),
        (["MixtureConfig.schedule=((20, {'text_en': 1.0}),)"], "schedule", "20 is never reached"),
    ],
)
def test_each_mistake_names_its_field(file, bindings, field, expected):
    (problem,) = problems(file, *bindings)
    assert field in problem
    assert expected in problem
    assert any(where in problem for where in ("--gin.", "run.gin:", "(the default)"))


def test_mistakes_of_all_kinds_come_at_once(file):
    found = problems(
        file,
        "DataConfig.sequence_length=65",
        "TrainConfig.accumulation=3",
        "ScheduleConfig.warmup_steps=21",
        "CheckpointConfig.keep=1",
        "TrainConfig.z_los=1.0",
    )
    assert len(found) == 5
    assert any("z_los" in problem and "z_loss" in problem for problem in found)


def test_rows_are_divided_as_the_logical_axes_say(file):
    """With batches over `data` alone, a batch of 8 suits 2 x 16 devices."""
    mesh = ["MeshConfig.data=2", "MeshConfig.fsdp=16"]
    assert "a multiple of 32" in problems(file, *mesh)[0]
    resolve(TrainConfig, files=[file], bindings=["RUN_DIR=r", *mesh, "LogicalAxes.batch='data'"])


@pytest.mark.parametrize(
    ("binding", "same"),
    [
        ("CheckpointConfig.every=9", True),
        ("TrackingConfig.every=9", True),
        ("MeshConfig.data=2", True),
        ("PrecisionConfig.remat='full'", True),
        ("DataConfig.store_dir='elsewhere'", True),
        ("DataConfig.prefetch=9", True),
        ("PrecisionConfig.compute='bfloat16'", False),
        ("TrainConfig.seed=9", False),
        ("TrainConfig.accumulation=2", False),
        ("DataConfig.packing='documents'", False),
        ("GuardConfig.max_skipped=9", False),
    ],
)
def test_what_makes_another_run(file, binding, same):
    first, second = (
        resolve(TrainConfig, files=[file], bindings=["RUN_DIR=r", *more]).fingerprint for more in ([], [binding])
    )
    assert (first == second) is same


def test_no_heavy_import():
    """A mistake must be reported before JAX, NumPy or TensorFlow is read."""
    code = (
        "import sys, aya_jax.training.config, aya_jax.evaluation.config\n"
        "print({'jax', 'numpy', 'tensorflow'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
