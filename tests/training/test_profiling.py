"""Traces of steps: what is read out of them."""

import json

import jax
import jax.numpy as jnp
from hypothesis import given
from hypothesis import strategies as st

from aya_jax.training.profiling import PARTS, Operation, Profiler, own_times, shares_of_parts, sources

PROGRAM = """
  %fusion.3 = f32[8]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(step)/while/body/closed_call/jvp(mlp)/dot_general"}
  ROOT %dot.1 = f32[8]{0} dot(%a, %b), metadata={op_name="jit(step)/transpose(jvp(head))/bsv,vd->bsd/dot_general" x=1}
  %copy.2 = f32[8]{0} copy(%a)
"""


def test_sources_name_the_part_and_the_direction():
    assert sources(PROGRAM) == {"fusion.3": "mlp/dot_general", "dot.1": "backward head/bsv,vd->bsd/dot_general"}


def test_a_loop_is_not_counted_on_top_of_its_body():
    events = [("while", 0.0, 10.0), ("a", 1.0, 3.0), ("inner", 2.0, 1.0), ("b", 5.0, 2.0), ("after", 10.0, 4.0)]
    assert own_times(events) == [("while", 5.0), ("a", 2.0), ("inner", 1.0), ("b", 2.0), ("after", 4.0)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=12))
def test_own_times_of_a_line_add_up_to_the_time_that_it_was_busy(blocks):
    """Events one after the other, each with two halves inside: nothing is lost, nothing counted twice."""
    events, start = [], 0.0
    for gap, length in blocks:
        start += gap
        events += [
            ("outer", start, 2.0 * length),
            ("first", start, 1.0 * length),
            ("second", start + length, 1.0 * length),
        ]
        start += 2 * length
    assert sum(own for _, own in own_times(events)) == sum(2 * length for _, length in blocks)


def test_shares_are_by_part_of_the_step():
    def operation(source, share):
        return Operation("o", source, 1, share, share)

    found = shares_of_parts(
        [operation("mlp/dot_general", 0.25), operation("backward mlp/silu/mul", 0.5), operation("copy", 0.25)]
    )
    assert found == {"backward mlp": 0.5, "mlp": 0.25, "other": 0.25}


def test_a_trace_names_the_operation_that_took_the_time(tmp_path):
    @jax.jit
    def step(x):
        with jax.named_scope("mlp"):
            y = jnp.sin(x) @ x @ x
        with jax.named_scope("head"):
            return jnp.tanh(y)

    x, lines = jnp.ones((600, 600)), []
    result = step(x)
    profiler = Profiler((2, 3), str(tmp_path), lines.append)
    for number in range(1, 6):
        profiler.before_step(number, result)
        result = step(x)
        profiler.after_step(number, result, step.lower(x).compile().as_text)
    summary = json.loads((tmp_path / "profile" / "operations.json").read_text())
    assert summary["steps"] == [2, 3]
    first = summary["operations"][0]
    assert first["source"].startswith("mlp/")
    assert first["count"] == 2
    assert summary["parts"]["mlp"] > 0.5
    assert sum(summary["parts"].values()) > 0.999
    assert set(summary["parts"]) <= {*PARTS, "other"}
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))
    assert "Traced steps 2 to 3" in lines[0]


def test_no_steps_trace_nothing(tmp_path):
    profiler = Profiler((), str(tmp_path), print)
    profiler.before_step(1, None)
    profiler.after_step(1, None, str)
    assert not list(tmp_path.iterdir())
