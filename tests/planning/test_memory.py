"""The state's size against the compiler's own figure, and the estimates' bounds."""

import dataclasses
import io

import pytest
from rich.console import Console

from aya_jax.config import UserError
from aya_jax.models import flops, parameters
from aya_jax.models.config import PrecisionConfig
from aya_jax.planning.ask import ask
from aya_jax.planning.hlo import Collective
from aya_jax.planning.memory import estimate, loss_implementation, shares
from aya_jax.planning.roofline import executed_flops_per_token, roofline
from aya_jax.planning.targets import find
from aya_jax.planning.worker import Job
from tests.planning.plans import tiny

PAIRS = (
    "TrainConfig.z_loss=0.0",
    "TrainConfig.objective=@PreferenceConfig()",
    "TrainConfig.initialize_from='base'",
    "DataConfig.packing='documents'",
    "DataConfig.long_documents='truncate'",
)
QUIET = Console(file=io.StringIO())


@pytest.mark.parametrize("more", [(), PAIRS, (*PAIRS, "TrainConfig.adapter=@AdapterConfig()", "AdapterConfig.rank=4")])
def test_arguments_are_the_compilers(more):
    """XLA, partitioning the step for eight devices, is given as many bytes as `estimate` says, beside a few scalars."""
    plan = tiny("h200-8", "MeshConfig.data=2", "MeshConfig.tensor=2", *more)
    (answer,) = ask(Job("compile", (plan,)), QUIET, "compiling", 200)
    found, expected = answer["compiled"]["arguments"], estimate(plan.train, 8).arguments
    assert found == pytest.approx(expected, abs=64)
    assert answer["estimate"]["arguments"] == expected


def test_an_adapter_takes_what_its_factors_take():
    """Of each matrix [L, in, out] the factors have L r (in + out) numbers, with two moments; the rest has none."""
    adapter = ("TrainConfig.adapter=@AdapterConfig()", "AdapterConfig.rank=4", "TrainConfig.initialize_from='base'")
    whole, adapted = (
        estimate(tiny("h200-8", "MeshConfig.fsdp=1", "MeshConfig.data=8", *more).train, 8) for more in ((), adapter)
    )
    sides = 64 * (2 + 2) + 64 + 32 + 64 + 32 + 3 * (64 + 128)  # query and output, key and value, gate, up and down
    numbers = 4 * 4 * sides
    assert adapted.parameters - whole.parameters == 4 * numbers
    assert adapted.gradients == 4 * numbers
    assert adapted.optimizer == pytest.approx(8 * numbers, abs=8)


def test_shares_of_a_mesh():
    share = shares(tiny("h200-8", "MeshConfig.tensor=2", "TrainConfig.accumulation=2").train, 8)
    assert (share.rows, share.tokens, share.tensor) == (2, 128, 2)
    assert share.mesh == {"slice": 1, "data": 1, "fsdp": 4, "context": 1, "tensor": 2}


def test_known_state():
    """32 bits each for a weight, and two moments of the same; a batch is six arrays of 32 bits."""
    train = tiny("h200-8").train
    found = estimate(train, 8)
    norms = (4 + 1) * 64  # too small to be split
    matrices = parameters.count(train.model).total - norms
    assert found.parameters == 4 * (matrices / 8 + norms)
    assert found.optimizer == pytest.approx(2 * found.parameters, abs=8)  # and a step counter
    assert found.batch == 6 * 4 * 16 * 64 / 8


def test_what_makes_it_smaller():
    plan = tiny("h200-8", batch=64)

    def peak(**changes):
        return estimate(dataclasses.replace(plan.train, **changes), 8).activations

    remat = [PrecisionConfig(remat=policy) for policy in ("none", "dots", "full")]
    kept = [peak(precision=precision) for precision in remat]
    assert kept[0] > kept[1] > kept[2]
    assert peak(accumulation=4) == kept[0] / 4


def test_the_loss_is_the_one_that_the_target_would_take(monkeypatch):
    """Of 256k logits a token: tiles on GPUs and on TPU v4, whose chips have too little memory for the kernel."""
    monkeypatch.setattr("aya_jax.kernels.cross_entropy.dispatch.DENSE_LOGITS", 0)
    chosen = {
        name: loss_implementation(train, shares(train, 8, find(name).chip))
        for name in ("v5e-8", "v5p-16", "v4-16", "h200-8")
        for train in [tiny("h200-8").train]
    }
    assert chosen == {"v5e-8": "pallas_tpu", "v5p-16": "pallas_tpu", "v4-16": "tiled", "h200-8": "tiled"}


def test_logits_that_never_leave_the_chip():
    """The TPU kernel keeps logits in its own memory: what is left is the table's gradient."""
    train = tiny("v5e-8").train
    kernel = dataclasses.replace(train, precision=dataclasses.replace(train.precision, cross_entropy="pallas_tpu"))
    assert estimate(kernel, 8).table == 512 * 64 * 4
    assert estimate(kernel, 8).logits == 512 * 64 * (4 + 4)  # one piece, and the same summed
    assert estimate(train, 8).logits > estimate(kernel, 8).logits
    assert estimate(kernel, 8, find("v5p-16").chip).table == 2 * 512 * 64 * 4  # two cores to a device


def test_a_mesh_of_another_size():
    with pytest.raises(UserError, match="bind one axis to -1"):
        estimate(tiny("h200-8", "MeshConfig.fsdp=4").train, 8)


def test_rows_that_do_not_divide():
    with pytest.raises(UserError, match="GLOBAL_BATCH"):
        estimate(tiny("h200-8", batch=12).train, 8)


def test_a_dim_that_does_not_divide():
    with pytest.raises(UserError, match=r"LogicalAxes\.mlp"):
        estimate(
            tiny("h200-8", "TransformerConfig.mlp_dim=132", "LogicalAxes.mlp='fsdp'", "LogicalAxes.embed=None").train, 8
        )


class TestRoofline:
    def test_closed_form(self):
        plan = tiny("v5p-16", "PrecisionConfig.remat='full'")
        target, train = plan.machine(), plan.train
        found = [Collective("all-gather", "", 10, 4e9, 3e9, 1e6, ""), Collective("all-reduce", "", 1, 2e9, 3e9, 0, "")]
        line = roofline(train, shares(train, 8), target, 8, found)
        tokens = 16 * 64
        assert line.model_flops == flops.per_token(train.model, 64) * tokens
        assert line.compute == pytest.approx(line.executed_flops / (8 * 459e12))
        assert (line.links, line.network) == (33e9 / 600e9, 10e6 / 6.25e9)
        assert line.overlapped == line.links  # far the slowest
        assert line.in_turn == pytest.approx(line.compute + line.memory + line.links + line.network)
        assert line.mfu_bound == pytest.approx(line.model_flops / (line.links * 8 * 459e12))

    def test_what_is_recomputed(self):
        """ "full" adds the layers' forward pass: a third of all but the head's FLOPs, beside attention's scores."""
        train = tiny("v5p-16").train
        by_policy = {
            policy: executed_flops_per_token(
                dataclasses.replace(train, precision=PrecisionConfig(remat=policy)), shares(train, 8)
            )
            for policy in ("none", "dots", "full")
        }
        layers = flops.per_token(train.model, 64) - 6 * 512 * 64
        assert by_policy["full"] - by_policy["none"] == pytest.approx(layers / 3)
        assert by_policy["none"] < by_policy["dots"] < by_policy["full"]
