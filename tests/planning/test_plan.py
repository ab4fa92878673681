"""`aya plan` from the command line: figures, the file, a fix that works, and one clear error."""

import importlib.util
import json

import pytest

from aya_jax.planning.compile import lower_for_gpu
from tests.planning.plans import aya_plan, flags, tiny

LIBTPU = importlib.util.find_spec("libtpu") is not None


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """The plan of a tiny run on eight GPUs in two parts, and what was printed."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    arguments = ["gin/models/base_cohere.gin", "gin/hardware/gpu.gin", *flags("TARGET=h200-8", "GLOBAL_BATCH=16")]
    done = aya_plan(*arguments, f"--gin.PLAN_JSON={file}", "--gin.TrainConfig.accumulation=2")
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text()), done.stdout


def test_report(gpu):
    found, printed = gpu
    assert (found["devices"], found["mesh"], found["by"], found["fits"]) == (8, {"fsdp": 8}, "estimated", True)
    assert "8 emulated CPU devices" in found["compiled"]["compiler"]
    assert found["peak"] == found["estimate"]["peak"]
    assert found["compiled"]["arguments"] == pytest.approx(found["estimate"]["arguments"], abs=64)
    assert "Fits:" in printed
    assert "estimated" in printed
    assert all(
        title in printed
        for title in ("Memory on each chip", "a roofline, not a measurement", "Collectives of one step")
    )


def test_lowered_for_cuda(gpu):
    found, printed = gpu
    assert found["lowered"]["message"] == ""
    assert "lowered for" in printed


@pytest.mark.parametrize(
    ("attention", "kernels", "message"), [("pallas_gpu", {"triton"}, ""), ("cudnn", set(), "cuDNN")]
)
def test_kernels_by_name_are_those_of_a_gpu(attention, kernels, message):
    """Attention that a CPU cannot run is lowered for the GPU that is not here; cuDNN's asks for its library."""
    plan = tiny("h200-8", "SEQUENCE_LENGTH=128", f"PrecisionConfig.attention={attention}", hardware="gpu")
    found = lower_for_gpu(plan.train, plan.machine(), 3)
    assert {name.rpartition(".")[2] for name in found.kernels} == kernels
    assert message in found.message
    assert bool(found.message) == bool(message)


def test_collectives_count_the_loops(gpu):
    """Every layer's weights are gathered for every part of the batch: at least layers x parts x 7 / 8 of them, once."""
    found, _ = gpu
    layers = 4 * (64 * (4 + 2 + 2 + 4) * 16 + 3 * 64 * 128)  # no norms: they are not gathered where they are not split
    assert found["compiled"]["collectives"]["all-gather"]["links"] > layers * 2 * 7 / 8 * 2
    assert found["roofline"]["link_bytes"] == sum(kind["links"] for kind in found["compiled"]["collectives"].values())


def test_a_fix_fits(tmp_path):
    """What it advises, done, fits; without libtpu by estimate."""
    common = ["gin/models/base_cohere.gin", "gin/hardware/tpu.gin", "--gin.PlanConfig.compile=False"]
    common += flags("TARGET=v5e-8", "GLOBAL_BATCH=64", "TransformerConfig.num_layers=40")
    common += ["--gin.PlanConfig.usable_gib=0.008", "--gin.PrecisionConfig.remat=none"]
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    done = aya_plan(*common, f"--gin.PLAN_JSON={first}")
    assert done.returncode == 0, done.stderr
    found = json.loads(first.read_text())
    assert not found["fits"]
    assert "Does not fit" in done.stdout
    assert "Smallest change that fits: --gin." in done.stdout
    fix = found["fix"]
    assert fix["by"] == "estimated"
    done = aya_plan(*common, *(f"--gin.{binding}" for binding in fix["bindings"]), f"--gin.PLAN_JSON={second}")
    again = json.loads(second.read_text())
    assert again["fits"], done.stdout
    assert again["peak"] == pytest.approx(fix["peak"])


@pytest.mark.parametrize(
    ("bindings", "said"),
    [
        (("TARGET=v5e-8", "GLOBAL_BATCH=12"), "GLOBAL_BATCH"),
        (("TARGET=v5e-8", "GLOBAL_BATCH=16", "MeshConfig.fsdp=4"), "MeshConfig"),
        (("TARGET=v5e-7", "GLOBAL_BATCH=16"), "v5e-8"),
    ],
)
def test_refused_in_a_sentence(bindings, said):
    done = aya_plan("gin/models/base_cohere.gin", *flags(*bindings), "--gin.PlanConfig.compile=False")
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(LIBTPU, reason="libtpu is installed")
def test_without_libtpu_one_clear_error():
    done = aya_plan("gin/models/base_cohere.gin", *flags("TARGET=v5e-8", "GLOBAL_BATCH=16"))
    assert done.returncode == 1
    assert "pip install 'aya_jax[tpu]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_slices_are_counted():
    assert tiny("v5e-8", "MeshConfig.slice=2", batch=32).train.mesh.slice == 2
