"""Collectives read from programs: against closed forms, and from a program as libtpu writes it."""

import json
import textwrap
from pathlib import Path

import pytest

from aya_jax.planning.hlo import collectives, groups, parse, shape_bytes, trip_count
from tests import eight_devices

# Cut from a step that libtpu 0.0.52 compiled for v5e:2x2: a loop without a noted trip count, an asynchronous all-gather
# spread over three fusions (channel 142), a reduce-scatter written as all-reduce and slice, a permute in two lines.
TPU_PROGRAM = (Path(__file__).parent / "recorded/tpu_step.hlo").read_text(encoding="utf-8")


class TestTpuProgram:
    def test_each_collective_once_a_round(self):
        found = collectives(parse(TPU_PROGRAM), 4, [0] * 4)
        gathered, scattered = 1024 * 2816 * 2, 2560 * 1024 * 4
        assert [(each.kind, each.times, each.size) for each in found] == [
            ("all-gather", 18, gathered),
            ("reduce-scatter", 18, scattered),
            ("collective-permute", 18, 256 * 64 * 2),
            ("all-reduce", 1, 16),
        ]
        # A ring of four: three quarters of the array, twice that for an all-reduce, a neighbour's all of it.
        assert [each.links for each in found] == [gathered * 0.75, scattered * 0.75, 256 * 64 * 2, 24]
        assert [each.network for each in found] == [0] * 4
        assert found[-1].operation == "jit(step)/sum"

    def test_two_slices(self):
        found = {each.kind: each for each in collectives(parse(TPU_PROGRAM), 4, [0, 0, 1, 1])}
        gathered = 1024 * 2816 * 2
        # Between two in each slice half of the array; beyond it each sends half of its own half.
        assert (found["all-gather"].links, found["all-gather"].network) == (gathered / 2, gathered / 4)
        assert (found["all-reduce"].links, found["all-reduce"].network) == (16, 8)
        assert (found["collective-permute"].links, found["collective-permute"].network) == (0, 256 * 64 * 2)

    def test_what_the_hosts_carry_between_slices(self):
        """libtpu writes a collective between slices as a transfer to the host; in a ring of two all is sent once."""
        sent = (
            "  %send.9 = (bf16[6,8,128]{2,1,0:T(8,128)(2,1)}, u32[]{:S(2)}, token[]) send(%p, %after-all.9), channel_id=2, "
            'is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}\n'
        )
        entry, rest = TPU_PROGRAM.split("ENTRY", 1)
        program = parse(entry + "ENTRY" + rest.replace("  %tuple.0", sent + "  %tuple.0"))
        (found,) = [each for each in collectives(program, 4, [0, 0, 1, 1]) if each.size == 6 * 8 * 128 * 2]
        assert (found.kind, found.times, found.links, found.network) == ("all-reduce", 1, 0, found.size)

    def test_trip_count_noted_by_the_compiler(self):
        noted = TPU_PROGRAM.replace(
            'metadata={op_name="jit(step)/while"}', 'backend_config={"known_trip_count":{"n":"7"}}'
        )
        program = parse(noted)
        loop = next(each for each in program.computations["main"] if each.opcode == "while")
        assert trip_count(program, loop) == 7

    def test_no_program(self):
        with pytest.raises(ValueError, match="no ENTRY"):
            parse("nothing")


class TestGroups:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
            ("{}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
            ("[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
            ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]]),
            ("mesh['a'=2,'b'=4] {'b'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
            ("mesh['a'=2,'b'=4] {'a'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
            ("mesh['a'=2,'b'=4] {'a','b'}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
            ("mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ],
    )
    def test_forms(self, written, expected):
        assert groups(f"%x), channel_id=1, replica_groups={written}, dimensions={{1}}", 8) == expected


def test_shape_bytes():
    assert shape_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0}, pred[8], u32[]{:S(2)}, f8e4m3fn[5], s4[6])") == [
        24,
        8,
        8,
        4,
        5,
        3,
    ]


FSDP = """
import json, sys
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from aya_jax.planning.hlo import collectives, parse
mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
layers, width = 5, 128
def forward(weights, x):
    def layer(x, w):
        return jax.lax.with_sharding_constraint(x, P("fsdp")) @ jax.lax.with_sharding_constraint(w, P()), None
    return jax.lax.scan(layer, x, weights)[0]
arguments = [
    jax.ShapeDtypeStruct((layers, width, width), jnp.float32, sharding=NamedSharding(mesh, P(None, "fsdp"))),
    jax.ShapeDtypeStruct((64, width), jnp.float32, sharding=NamedSharding(mesh, P("fsdp"))),
]
with jax.set_mesh(mesh):
    text = jax.jit(forward).lower(*arguments).compile().as_text()
found = collectives(parse(text), 8, [0] * 4 + [1] * 4)
print(json.dumps([[each.kind, each.times, each.size, each.links, each.network] for each in found]))
"""


def test_fsdp_gathers_every_layer_once():
    """L layers of P bytes over n devices: n - 1 of n parts of P are passed on, L times."""
    printed = eight_devices.run("-c", textwrap.dedent(FSDP), timeout=120)
    ((kind, times, size, links, network),) = json.loads(printed)
    layer = 128 * 128 * 4
    assert (kind, times, size) == ("all-gather", 5, layer)
    # Two slices of four: three quarters within, an eighth beyond.
    assert (links, network) == (layer * 3 / 4, layer / 8)
