"""Starting one process, and arguments that contradict each other."""

from __future__ import annotations

import jax
import pytest

from aya_jax.config import UserError
from aya_jax.parallel.distributed import initialize, process_info


def test_one_process_needs_nothing():
    initialize()
    info = process_info()
    assert (info.index, info.count) == (0, 1)
    assert info.devices == info.local_devices == len(jax.devices())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1", None, None), "needs all of"),
        (("host:1", 2, 2), "process_id must be from 0 to 1, not 2"),
        (("host", 0, 2), "coordinator must be host:port, not 'host'"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(UserError, match=message):
        initialize(*arguments)
