"""A server under many clients at once, good and bad: no wrong answer, nothing left, no growth."""

import pytest

from tools.bench.serve_load import faults, measure
from tools.random_model import shape, write_random_model


@pytest.mark.parametrize(("clients", "seconds"), [(24, 3), pytest.param(64, 60, marks=pytest.mark.slow)])
def test_clients_of_all_kinds_at_once(clients, seconds, tmp_path):
    found = measure(write_random_model(tmp_path / "tiny", shape()), clients, seconds, tmp_path / "server.log")
    assert not faults(found), found
    kinds = {name.partition(":")[0] for name in found["by_kind_and_status"]}
    assert kinds == {"whole", "stream", "dribble", "bad", "leave", "ignore", "break_off"}
