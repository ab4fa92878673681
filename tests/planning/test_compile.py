"""What is made of a compiler's messages, as libtpu 0.0.52 wrote them."""

import pytest

from aya_jax.planning.compile import _refusal, first_sentence
from aya_jax.planning.targets import GIB

OUT_OF_MEMORY = """\
RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries \
(24.00G) exceeds available HBM (15.75G). HLO module: jit__lambda.
See https://openxla.org/xla/errors/error_1000 for more details."""
OLDER = "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.44G of 15.75G hbm."
VMEM = """\
INTERNAL: Mosaic failed to compile TPU kernel: scoped vmem limit exceeded: used 520.00M of 128.00M vmem. Reduce the blocks.
The MLIR operation involved:
  "tpu.region"() ..."""


@pytest.mark.parametrize(("text", "needed"), [(OUT_OF_MEMORY, 24.00), (OLDER, 17.44)])
def test_out_of_memory_is_a_result(text, needed):
    found = _refusal(text, "libtpu", 1.0)
    assert (found.outcome, found.peak, found.limit) == ("out of memory", round(needed * GIB), round(15.75 * GIB))


def test_another_error_is_one_sentence():
    found = _refusal(VMEM, "libtpu", 59.0)
    assert found.outcome == "refused"
    assert found.message == (
        "Mosaic failed to compile TPU kernel: scoped vmem limit exceeded: used 520.00M of 128.00M vmem."
    )


def test_a_long_message_is_cut():
    assert len(first_sentence("x" * 5000)) == 300
