"""Looking up under a mesh: the rows of the table, and in the gradient each token's row added up, by NumPy."""

import json

from tests import eight_devices

CASES = [
    {"mesh": {"fsdp": 8}, "rules": {}},
    {"mesh": {"fsdp": 4, "tensor": 2}, "rules": {}},
    {"mesh": {"slice": 2, "fsdp": 2, "data": 2}, "rules": {}},
    {"mesh": {"fsdp": 4, "context": 2}, "rules": {"embed": ["fsdp", "context"]}},
    {"mesh": {"fsdp": 2, "context": 2, "tensor": 2}, "rules": {"embed": ["context", "fsdp"]}},
    {"mesh": {"fsdp": 4, "data": 2}, "rules": {"batch": ["data"]}},
    {"mesh": {"data": 8, "fsdp": 1}, "rules": {"embed": None}},
]


def test_rows_and_gradient_under_meshes():
    printed = eight_devices.run("-m", "tests.kernels.emulated_embedding", json.dumps(CASES))
    results = [json.loads(line) for line in printed.splitlines()]
    assert len(results) == len(CASES)
    for case, result in zip(CASES, results, strict=True):
        assert result["rows"] == 0, (case, result)
        assert result["gradient"] < 1e-5, (case, result)
    # FSDP: tokens are gathered and rows exchanged; no device ever holds the whole table.
    assert {"all-gather", "all-to-all"} <= set(results[0]["collectives"])
    assert not results[0]["whole table"]
